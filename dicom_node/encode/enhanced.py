"""A map as one multi-frame object, Enhanced MR Image (PS3.3 A.36.2), where the source was enhanced.

A derived image needs none of the macros of an acquisition (A.36.2.3: they are required of ORIGINAL and MIXED frames);
place, contrast, values, window and the source frames stand with each frame.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import EnhancedMRImageStorage

from dicom_node.convert.source import Source
from dicom_node.encode.identity import (
    LOCAL_SCHEME,
    Identity,
    inherit,
    inherit_patient_and_study,
    processing_equipment,
    stamp,
)
from dicom_node.encode.quantity import Quantity, stored
from dicom_node.encode.series import (
    EQUIPMENT,
    SPACE,
    code_item,
    file_meta,
    real_world_value_mapping,
)
from reconstruction import Maps, Recipe

ENHANCED_NUMBER = 20
"""Place among the outputs' series numbers; that of the quantity is added."""

RECONSTRUCTED = Code("1005", LOCAL_SCHEME, "Map reconstructed from gradient echoes")
"""CID 7203 has no word for it."""

CONTRAST = {
    "ComplexImageComponent": "MAGNITUDE",
    "AcquisitionContrast": "T2_STAR",
    "PixelPresentation": "MONOCHROME",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE",
}
"""C.8.13.1.1.2: what the echoes were weighted by; the quantity itself stands in the Real World Value Mapping."""


def is_enhanced(source: Source) -> bool:
    """Whether the source images are frames."""
    return any(reference.frame is not None for slice_ in source.references for reference in slice_)


def encode_enhanced(
    maps: Maps,
    quantity: Quantity,
    source: Source,
    images: Sequence[Dataset],
    identity: Identity,
    recipe: Recipe,
    number: int,
    when: datetime.datetime,
) -> Dataset:
    """One frame for each slice.  images: the series of this quantity, whose place and words each frame takes over."""
    header, first = source.headers[0], images[0]
    pixels = stored(maps, quantity).transpose(2, 1, 0)
    dataset = Dataset()
    inherit_patient_and_study(dataset, header)
    inherit(
        dataset, first, (*SPACE, *EQUIPMENT, "PatientPosition"), empty=("PositionReferenceIndicator", "PatientPosition")
    )
    for keyword, stand_in in (
        ("Manufacturer", "unknown"),
        ("ManufacturerModelName", "unknown"),
        ("DeviceSerialNumber", "unknown"),
        ("SoftwareVersions", "unknown"),
    ):
        if not dataset.get(keyword):
            setattr(dataset, keyword, stand_in)  # type 1 in Enhanced General Equipment (C.7.5.2)
    stamp(dataset, when)
    dataset.SOPClassUID = EnhancedMRImageStorage
    dataset.SOPInstanceUID = identity.uid("enhanced", quantity.name)
    dataset.SeriesInstanceUID = identity.uid("enhanced", quantity.name, "series")
    dataset.Modality = "MR"
    dataset.SeriesNumber = number
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = f"{quantity.description} multi-frame"  # beside the series of the same map
    dataset.AcquisitionNumber = header.get("AcquisitionNumber")
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.ContentQualification = "RESEARCH"
    dataset.ImageComments = first.DerivationDescription
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = first.LossyImageCompression
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
    dataset.AcquisitionContextSequence = []
    dataset.ApplicableSafetyStandardAgency = header.get("ApplicableSafetyStandardAgency") or "IEC"
    for keyword, value in CONTRAST.items():
        setattr(dataset, keyword, value)
    _pixels(dataset, pixels)
    _dimensions(dataset, identity.uid("enhanced", quantity.name, "dimensions"))
    dataset.SharedFunctionalGroupsSequence = [_shared(quantity, first)]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(place, image) for place, image in enumerate(images, 1)]
    dataset.ReferencedSeriesSequence = _referenced_series(images)
    dataset.SourceImageEvidenceSequence = [_evidence(header, dataset.ReferencedSeriesSequence)]
    dataset.file_meta = file_meta(dataset)
    return dataset


def _pixels(dataset: Dataset, pixels: NDArray[np.int16]) -> None:
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.PixelData = np.ascontiguousarray(pixels, "<i2").tobytes()
    dataset["PixelData"].VR = "OW"


def _dimensions(dataset: Dataset, uid: str) -> None:
    """Frames are told apart by their place in one stack (C.7.6.17)."""
    organization, stack, position = Dataset(), Dataset(), Dataset()
    organization.DimensionOrganizationUID = uid
    for item, keyword in ((stack, "StackID"), (position, "InStackPositionNumber")):
        item.DimensionOrganizationUID = uid
        item.DimensionIndexPointer = _TAGS[keyword]
        item.FunctionalGroupPointer = _TAGS["FrameContentSequence"]
        item.DimensionDescriptionLabel = keyword
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = [stack, position]


_TAGS = {"StackID": 0x00209056, "InStackPositionNumber": 0x00209057, "FrameContentSequence": 0x00209111}


def _shared(quantity: Quantity, image: Dataset) -> Dataset:
    measures, orientation, kind, values, window, group = (Dataset() for _ in range(6))
    inherit(measures, image, ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"))
    inherit(orientation, image, ("ImageOrientationPatient",))
    kind.FrameType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    for keyword, value in CONTRAST.items():
        setattr(kind, keyword, value)
    inherit(values, image, ("RescaleIntercept", "RescaleSlope"))
    values.RescaleType = "US"
    inherit(window, image, ("WindowCenter", "WindowWidth"))
    group.PixelMeasuresSequence = [measures]
    group.PlaneOrientationSequence = [orientation]
    group.MRImageFrameTypeSequence = [kind]
    group.PixelValueTransformationSequence = [values]
    group.FrameVOILUTSequence = [window]
    if quantity.unit is not None:
        group.RealWorldValueMappingSequence = [real_world_value_mapping(quantity, quantity.unit)]
    region, anatomy = Dataset(), code_item(codes.SCT.Brain)
    region.AnatomicRegionSequence = [anatomy]
    region.FrameLaterality = "U"
    group.FrameAnatomySequence = [region]
    return group


def _frame(place: int, image: Dataset) -> Dataset:
    content, position, derivation, group = (Dataset() for _ in range(4))
    content.StackID = "1"
    content.InStackPositionNumber = place
    content.DimensionIndexValues = [1, place]
    inherit(position, image, ("ImagePositionPatient",))
    derivation.DerivationDescription = image.DerivationDescription
    derivation.DerivationCodeSequence = [code_item(RECONSTRUCTED)]
    derivation.SourceImageSequence = list(image.SourceImageSequence)
    group.FrameContentSequence = [content]
    group.PlanePositionSequence = [position]
    group.DerivationImageSequence = [derivation]
    return group


def _evidence(header: Dataset, series: Sequence[Dataset]) -> Dataset:
    """The source images by study (C.8.13.2.1.3)."""
    study = Dataset()
    study.StudyInstanceUID = header.StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for known in series:
        item = Dataset()
        item.SeriesInstanceUID = known.SeriesInstanceUID
        item.ReferencedSOPSequence = list(known.ReferencedInstanceSequence)
        study.ReferencedSeriesSequence.append(item)
    return study


def _referenced_series(images: Sequence[Dataset]) -> list[Dataset]:
    """Every series that a slice refers to, with each of its images once (C.12.2)."""
    series: dict[str, dict[str, Dataset]] = {}
    for image in images:
        for item in image.ReferencedSeriesSequence:
            known = series.setdefault(item.SeriesInstanceUID, {})
            for instance in item.ReferencedInstanceSequence:
                known[instance.ReferencedSOPInstanceUID] = instance
    found = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = list(instances.values())
        found.append(item)
    return found
