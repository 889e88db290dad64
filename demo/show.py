"""What reached the archive, asked of it over an association and read from the report that lies there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import highdicom as hd
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]  # made at import

from demo.archive import Archive
from dicom_node.checkpoint import install_checkpoint
from dicom_node.encode.quantity import QSM, R2STAR
from dicom_node.regions import in_words, split

TITLES = ("susceptibility, ppb", "R2*, 1/s", "volume, ml")
COLUMNS: tuple[tuple[Code, Code | None, int, float], ...] = (
    (QSM.concept, codes.SCT.Mean, 1, 1.0),
    (R2STAR.concept, codes.SCT.Mean, 1, 1.0),
    (codes.SCT.Volume, None, 2, 1e-3),
)
"""What is shown of a region: concept, derivation, decimals, factor from the report's unit (mm³ for volumes)."""


def print_arrivals(archive: Archive) -> int:
    """Prints every series that the archive holds; returns how many images that is."""
    images = _find(archive)
    series = Counter((i.SeriesNumber, i.Modality, i.SeriesDescription, i.SeriesInstanceUID) for i in images)
    print(f"\nThe archive {archive.ae_title} answers a query (C-FIND) with {len(images)} images:")
    for (number, modality, description, uid), count in sorted(series.items(), key=lambda entry: int(entry[0][0])):
        print(f"  series {number:>5}  {modality:<4} {description:<24} {count:>4} images   {uid}")
    print(f"  files: {archive.folder}")
    return len(images)


def print_figures(archive: Archive) -> None:
    """Prints the regional figures of every report in the archive."""
    for path in archive.paths.values():
        header = dcmread(path, stop_before_pixels=True)
        if header.SOPClassUID == Comprehensive3DSRStorage:
            _print_report(path, hd.sr.srread(path))


def _print_report(path: Path, document: Any) -> None:
    """A line for each structure, both its sides beside each other."""
    sides: dict[str, dict[str, list[str]]] = {}
    for group in document.content.get_volumetric_roi_measurement_groups():
        structure, side = split(str(group.tracking_identifier))
        sides.setdefault(structure, {})[side] = [_measured(group, *column) for column in COLUMNS]
    print(f"\nThe report ({path.name}) says, left and right:")
    print(f"  {'':<27}" + "".join(f"{title:>24}" for title in TITLES))
    for structure, told in sides.items():
        cells = zip(*(told.get(side, [""] * len(COLUMNS)) for side in ("left", "right")), strict=True)
        if "" in told:
            cells = zip([""] * len(COLUMNS), told[""], strict=True)
        line = f"  {in_words(structure):<27}" + "".join(f"{left:>13}{right:>11}" for left, right in cells)
        print(line.rstrip())


def _measured(group: Any, name: Code, derivation: Code | None, digits: int, per_unit: float) -> str:
    for measurement in group.get_measurements(name=name):
        if derivation is None or measurement.derivation == derivation:
            return f"{measurement.value * per_unit:.{digits}f}"
    return "-"


def _find(archive: Archive) -> list[Dataset]:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    for keyword in ("Modality", "SeriesNumber", "SeriesDescription", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(query, keyword, None)
    entity = AE("DEMO")
    entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    handlers: list[Any] = [(evt.EVT_CONN_OPEN, install_checkpoint)]
    association = entity.associate(archive.host, archive.port, ae_title=archive.ae_title, evt_handlers=handlers)
    if not association.is_established:
        raise ConnectionError(f"the archive on port {archive.port} did not accept a query; expected an association")
    try:
        answers = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
        return [identifier for _, identifier in answers if identifier is not None]
    finally:
        association.release()
