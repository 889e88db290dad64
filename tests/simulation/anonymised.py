"""Files after an anonymiser: no vendor, no private element, no name that a person gave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.simulation.generic import write_generic
from tests.simulation.head import SimulatedHead

REMOVED = (
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "StationName",
    "InstitutionName",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "PulseSequenceName",
    "AccessionNumber",
    "PatientBirthDate",
    "PatientAge",
    "PatientWeight",
)
"""What the Basic Application Level Confidentiality Profile (PS3.15 E) and its usual implementations take out."""


def write_anonymised(head: SimulatedHead, folder: Path, *, seed: int | None = None) -> list[Path]:
    """Writes `write_generic`'s object without its manufacturer: only standard attributes say what it is."""
    return anonymise(write_generic(head, folder, seed=seed))


def anonymise(paths: Sequence[Path]) -> list[Path]:
    """Anonymises files in place, those of any vendor; UIDs and times stay."""
    for path in paths:
        d = dcmread(path)
        d.remove_private_tags()
        for keyword in REMOVED:
            if keyword in d:
                del d[keyword]
        _blank(d)
        d.save_as(path)
    return list(paths)


def _blank(d: Dataset) -> None:
    """What the standard wants there but does not want filled (type 2)."""
    d.PatientName = "Anonymous"
    d.PatientID = "A0001"
    d.AccessionNumber = d.PatientBirthDate = d.PatientSex = None
    d.PatientIdentityRemoved, d.DeidentificationMethod = "YES", "Removed"
