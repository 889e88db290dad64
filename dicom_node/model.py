"""The values that travel between the rooms of the node."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Component(StrEnum):
    """What a pixel holds (ComplexImageComponent, PS3.3 C.8.13.3.1.1)."""

    MAGNITUDE = "magnitude"
    PHASE = "phase"
    REAL = "real"
    IMAGINARY = "imaginary"


@dataclass(frozen=True)
class Frame:
    """One image plane: a classic instance has one, an enhanced one many.

    index: from 0 within the instance.  echo_time: ms.  position: ImagePositionPatient, mm.
    orientation: ImageOrientationPatient.  acquired_at: DICOM DT or TM as the object carries it, "" if it does not.
    """

    index: int
    component: Component
    echo_time: float
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    acquired_at: str = ""


@dataclass(frozen=True)
class Instance:
    """What grouping needs to know of one stored object; read from its header alone, no patient attribute in it.

    encoding: the reader of `convert` that understood it ("siemens", "siemens_enhanced", "philips", …), "" if none.
    refusal: why this object can never be part of a multi-echo acquisition ("" if it can).
    received_at: seconds since the epoch, as handed in.  association: the id of the association that brought it.
    digest: SHA-256 of the file.
    repetition: acquisition number and temporal position as written, which tell repetitions within one series apart.
    processing: what was done to the image besides ("DIS2D NORM"), which tells two renderings of one scan apart.
    protocol: repetition time and flip angle, which all images of one scan share.
    coil: the one coil element that the image is of, "" where the header names none or several.
    brain_of: the series whose brain this object marks (a DICOM Segmentation); none for an image.
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    series_number: int
    frame_of_reference_uid: str
    rows: int
    columns: int
    pixel_spacing: tuple[float, float]
    encoding: str
    refusal: str
    frames: tuple[Frame, ...]
    received_at: float
    association: str
    digest: str
    repetition: str = ""
    processing: str = ""
    protocol: str = ""
    coil: str = ""
    brain_of: tuple[str, ...] = ()


class Completeness(StrEnum):
    COMPLETE = "complete"
    """Every cell of echo × slice × component is there and nothing more is coming."""
    WAITING = "waiting"
    """May still grow: its association is open or it was fed less than the quiet time ago."""
    INCOMPLETE = "incomplete"
    """The quiet time has passed and cells are missing; a late image reopens it."""
    FOREIGN = "foreign"
    """Not a multi-echo gradient echo with phase; `reason` says why.  Left alone."""


@dataclass(frozen=True)
class Group:
    """One acquisition: one study, frame of reference, geometry and set of echo times, however many series.

    key: stable while the group grows (hex digits).  instances: those to reconstruct from, one export of the scan only.
    set_aside: members that are not used (a second export of the same scan).
    echo_times: ms, ascending.  holes: the missing cells in words.  reason: why it is foreign or incomplete.
    mask: a segmentation of the brain that the site made of one of its series.
    """

    key: str
    study_instance_uid: str
    completeness: Completeness
    instances: tuple[Instance, ...]
    set_aside: tuple[Instance, ...]
    echo_times: tuple[float, ...]
    holes: tuple[str, ...]
    reason: str
    mask: Instance | None = None

    @property
    def mask_file(self) -> Path | None:
        return None if self.mask is None else self.mask.path

    @property
    def used(self) -> tuple[Instance, ...]:
        """All that its result is made of."""
        return self.instances if self.mask is None else (*self.instances, self.mask)
