"""The proton frequency of a scan."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.convert.header import number
from dicom_node.errors import NotConvertible
from reconstruction import GYROMAGNETIC_RATIO

_MEGAHERTZ = (1.0, 1e3)
_HERTZ = (1e6, 1e9)
"""Ranges that a proton frequency can have in either unit (0.02 to 23 T): some vendors write (0018,0084) in Hz."""

_TESLA = (0.01, 25.0)


def larmor_frequency(plane: Dataset) -> tuple[float, tuple[str, ...]]:
    """Hz, and what is doubtful about it.

    From ImagingFrequency; MagneticFieldStrength is nominal only (a "3 T" Siemens runs at 123.2 MHz, 3.5 % less), so it
    is the last resort.  Raises NotConvertible where neither is there.
    """
    frequency = number(plane, "ImagingFrequency")
    if frequency is not None:
        if _MEGAHERTZ[0] < frequency < _MEGAHERTZ[1]:
            return frequency * 1e6, ()
        if _HERTZ[0] < frequency < _HERTZ[1]:
            return frequency, ()
    strength = number(plane, "MagneticFieldStrength")
    if strength is None or not _TESLA[0] < strength < _TESLA[1]:
        raise NotConvertible(
            f"ImagingFrequency is {frequency} and MagneticFieldStrength {strength}; expected MHz or tesla: "
            "without the field strength the susceptibility cannot be scaled"
        )
    return strength * GYROMAGNETIC_RATIO, (
        f"ImagingFrequency is {'absent' if frequency is None else f'{frequency:g}'}: the field was taken from the "
        f"nominal MagneticFieldStrength of {strength:g} T, which can be some percent off",
    )
