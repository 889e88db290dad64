"""The regions of the report as a DICOM Segmentation (PS3.3 A.51), so that each figure points at its voxels."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import version

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_node.encode.figures import WHOLE_BRAIN, Region
from dicom_node.encode.identity import (
    SOFTWARE,
    Identity,
    inherit,
    inherit_patient_and_study,
    plain,
    processing_equipment,
    stamp,
)
from dicom_node.encode.quantity import in_words
from dicom_node.encode.series import PLANE, SPACE, file_meta
from reconstruction import Recipe

SEGMENTATION_NUMBER = 3
"""Its place among the outputs' series numbers."""

ANATOMY = {
    WHOLE_BRAIN: (codes.SCT.AnatomicalStructure, codes.SCT.Brain),
    "csf": (codes.cid7150.BodySubstance, codes.SCT.CerebrospinalFluid),
}
TISSUE = (codes.cid7150.Tissue, codes.SCT.Tissue)
"""Category and type of a reference region that has no code of its own here; its label names it."""


def anatomy(name: str) -> tuple[Code, Code]:
    """Segmented property category and type (PS3.16 CID 7150, CID 7151) of a region."""
    return ANATOMY.get(name, TISSUE)


def encode_segmentation(
    regions: Sequence[Region],
    images: Sequence[Dataset],
    header: Dataset,
    identity: Identity,
    recipe: Recipe,
    number: int,
    when: datetime.datetime,
) -> Dataset:
    """One segment for each region, numbered from 1 in their order, over the slices of `images` (the QSM series)."""
    frames = np.stack([region.mask.transpose(2, 1, 0) for region in regions], axis=-1)
    algorithm = hd.AlgorithmIdentificationSequence(
        name="qsm-node", family=codes.cid7162.MorphologicalOperations, version=version("qsm-node"), source=SOFTWARE
    )
    segments = [
        hd.seg.SegmentDescription(
            segment_number=place,
            segment_label=plain(in_words(region.name)),
            segmented_property_category=anatomy(region.name)[0],
            segmented_property_type=anatomy(region.name)[1],
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=identity.uid("region", region.name),
            tracking_id=plain(region.name),
        )
        for place, region in enumerate(regions, 1)
    ]
    segmentation = hd.seg.Segmentation(
        source_images=[anonymous(image) for image in images],
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=identity.uid("segmentation", "series"),
        series_number=number,
        sop_instance_uid=identity.uid("segmentation", "instance"),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name="qsm-node",
        software_versions=version("qsm-node"),
        device_serial_number="0",
        content_label="QSM_REGIONS",
        content_description="Regions of the QSM report",
        series_description="QSM regions",
    )
    _derive_dimension_uid(segmentation, identity)
    inherit_patient_and_study(segmentation, header)
    stamp(segmentation, when)
    segmentation.ContentQualification = "RESEARCH"
    segmentation.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
    segmentation.file_meta = file_meta(segmentation)
    return segmentation


def anonymous(image: Dataset) -> Dataset:
    """What highdicom needs to know of an image: its place and its UIDs.

    Patient and study are put in afterwards as the source has them: highdicom refuses values that occur in the field (a
    sex of "U") and copies the source's empty sequences, which make an invalid object.
    """
    stand_in = Dataset()
    wanted = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns")
    inherit(stand_in, image, (*wanted, *SPACE, *PLANE))
    empty = (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
    )
    for keyword in empty:
        setattr(stand_in, keyword, None)
    return stand_in


def _derive_dimension_uid(segmentation: Dataset, identity: Identity) -> None:
    """highdicom draws this one UID at random."""
    uid = identity.uid("segmentation", "dimensions")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
