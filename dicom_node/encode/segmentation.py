"""The regions of the report as a DICOM Segmentation (PS3.3 A.51), so that each figure points at its voxels."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.convert.header import tag
from dicom_node.convert.source import Source
from dicom_node.encode.anatomy import laterality, structure
from dicom_node.encode.figures import Region
from dicom_node.encode.identity import (
    OWN_MASK,
    SOFTWARE,
    VERSION,
    Identity,
    inherit_patient_and_study,
    processing_equipment,
    stamp,
    written,
)
from dicom_node.encode.series import PLANE, SPACE, code_item, file_meta
from dicom_node.regions import WHOLE_BRAIN, in_words
from reconstruction import Recipe

SEGMENTATION_NUMBER = 3
"""Its place among the outputs' series numbers."""

LONGEST_LABEL = 64
"""LO, PS3.5 table 6.2-1."""

DEFORMED, THRESHOLDED = codes.cid7162.DeformableModels, codes.cid7162.MorphologicalOperations
"""Families of algorithms (CID 7162): an atlas deformed onto the brain, and masks; the recipe names every step."""

FOUND, GIVEN = hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC
"""A brain that is sought, and what is left of a mask that the site gave (0062,0008)."""


def encode_segmentation(
    regions: Sequence[Region],
    images: Sequence[Dataset],
    source: Source,
    recipe: Recipe,
    number: int,
    when: datetime.datetime,
) -> Dataset:
    """One segment for each region, numbered from 1 in their order, over the slices of `images` (the QSM series).

    Both sides of a structure are segments of their own, of one code, one colour (CIELab) and each its laterality.
    """
    header, identity = source.headers[0], Identity.of(source, recipe)
    # Each plane of each segment lies in one piece of memory, as highdicom takes them one by one.
    planes = np.zeros((len(regions), len(images), images[0].Rows, images[0].Columns), np.uint8)
    for region, plane in zip(regions, planes, strict=True):
        plane.T[region.box] = region.mask
    segments = [_segment(region, place, source, identity) for place, region in enumerate(regions, 1)]
    segmentation = hd.seg.Segmentation(
        source_images=[anonymous(image) for image in images],
        pixel_array=np.moveaxis(planes, 0, -1),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=identity.uid("segmentation", "series"),
        series_number=number,
        sop_instance_uid=identity.uid("segmentation", "instance"),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name="qsm-node",
        software_versions=VERSION,
        device_serial_number="0",
        content_label="QSM_REGIONS",
        content_description="Regions of the QSM report",
        series_description="QSM regions",
    )
    derive_dimension_uid(segmentation, identity, "segmentation")
    inherit_patient_and_study(segmentation, header)
    stamp(segmentation, when)
    segmentation.ContentQualification = "RESEARCH"
    segmentation.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
    segmentation.file_meta = file_meta(segmentation)
    return segmentation


def _segment(region: Region, number: int, source: Source, identity: Identity) -> hd.seg.SegmentDescription:
    what, header = structure(region.name), source.headers[0]
    given = source.mask if region.name == WHOLE_BRAIN else ""
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=written(in_words(region.name), header)[:LONGEST_LABEL],
        segmented_property_category=what.category,
        segmented_property_type=what.kind,
        algorithm_type=GIVEN if given else FOUND,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="qsm-node",
            family=DEFORMED if laterality(region.name) else THRESHOLDED,
            version=VERSION,
            source=SOFTWARE,
            parameters={"mask": f"{OWN_MASK}, {given}"} if given else None,
        ),
        tracking_uid=identity.uid("region", region.name),
        tracking_id=written(region.name, header),
        display_color=hd.color.CIELabColor.from_rgb(*what.colour),
    )
    if (side := laterality(region.name)) is not None:
        # (0062,0011), CID 244: highdicom has no parameter for it.
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [code_item(side)]
    return segment


def anonymous(image: Dataset, *besides: str) -> Dataset:
    """What highdicom needs to know of an image: its place, its UIDs, and what of it is wanted besides.

    Patient and study are put in afterwards as the source has them: highdicom refuses values that occur in the field (a
    sex of "U") and copies the source's empty sequences, which make an invalid object.  It shares the image's elements.
    """
    known = [image[tag(keyword)] for keyword in (*_KNOWN, *besides) if tag(keyword) in image]
    return Dataset({**_NOBODY, **{element.tag: element for element in known if not element.is_empty}})


_KNOWN = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    *SPACE,
    *PLANE,
)
_NOBODY = {
    tag(keyword): DataElement(tag(keyword), dictionary_VR(keyword), None)
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
    )
}


def derive_dimension_uid(dataset: Dataset, identity: Identity, *what: str) -> None:
    """highdicom draws this one UID at random."""
    uid = identity.uid(*what, "dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
