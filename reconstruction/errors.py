"""The errors of the physics.

ReconstructionError
├── InvalidAcquisition    arrays, echo times or geometry that cannot belong together
├── InvalidAtlas          templates and regions that cannot belong together
├── InvalidRecipe         a recipe that names no stage, no method or no setting that exists
├── DeviceUnavailable     a device was asked for that no installed library can use
└── NotReconstructible    a sound acquisition from which no map can be made (no brain found, no signal)

Every message says what was found, what was expected, and what to do.
"""


class ReconstructionError(Exception):
    """The root of this package's errors."""


class InvalidAcquisition(ReconstructionError, ValueError):
    """Arrays, echo times or geometry that cannot belong together."""


class InvalidAtlas(ReconstructionError, ValueError):
    """Templates and regions that cannot belong together."""


class InvalidRecipe(ReconstructionError, ValueError):
    """A recipe that names no stage, no method or no setting that exists."""


class NotReconstructible(ReconstructionError):
    """A sound acquisition from which no map can be made."""


class DeviceUnavailable(ReconstructionError):
    """A device was asked for that no installed library can use."""
