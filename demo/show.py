"""What reached the archive, asked of it over an association and read from the report that lies there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import highdicom as hd
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]  # made at import

from demo.archive import Archive
from dicom_node.checkpoint import install_checkpoint


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
    print(f"\nThe report ({path.name}) says, region by region:")
    groups = document.content.get_volumetric_roi_measurement_groups()
    for group in groups:
        print(f"  {group.tracking_identifier}")
        for measurement in group.get_measurements():
            derivation = measurement.derivation.meaning if measurement.derivation else ""
            name = f"{measurement.name.meaning} {derivation}".strip()
            unit = "" if measurement.unit == codes.UCUM.NoUnits else measurement.unit.value
            print(f"    {name:<58} {measurement.value:>12.6g} {unit}")


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
