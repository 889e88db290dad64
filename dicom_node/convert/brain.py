"""Which objects outline the brain: a DICOM Segmentation of it, told by its codes or its label."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from dicom_node.convert.header import items, text, whole

BRAIN = {("12738006", "SCT"), ("T-A0100", "SRT"), ("T-A0100", "99SDM"), ("T-A0100", "SNM3")}
"""Code value and scheme of the brain (PS3.16 CID 7140 and what it was before SNOMED CT)."""


def series_of_brain(header: Dataset) -> tuple[str, ...]:
    """The series that a segmentation of the brain was made of; none for any other object."""
    if text(header, "SOPClassUID") != SegmentationStorage or not brain_segments(header):
        return ()
    return tuple(sorted({text(series, "SeriesInstanceUID") for series in items(header, "ReferencedSeriesSequence")}))


def brain_segments(header: Dataset) -> set[int]:
    """Numbers of the segments that are typed as brain, or called so and nothing else."""
    found = set()
    for segment in items(header, "SegmentSequence"):
        codes = items(segment, "SegmentedPropertyTypeCodeSequence")
        typed = any((text(code, "CodeValue"), text(code, "CodingSchemeDesignator")) in BRAIN for code in codes)
        number = whole(segment, "SegmentNumber")
        if number is not None and (typed or text(segment, "SegmentLabel") in ("BRAIN", "BRAIN MASK", "BRAIN_MASK")):
            found.add(number)
    return found
