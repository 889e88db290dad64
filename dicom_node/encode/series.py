"""A map as a series of MR Image Storage, one instance for each slice of the source (PS3.3 A.4).

The series lies in the source's study and frame of reference; positions and orientation are the source's own strings.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicom_node.convert.header import tag
from dicom_node.convert.source import Reference, Source
from dicom_node.encode.identity import (
    PATIENT,
    STUDY,
    Identity,
    inherit,
    inherit_patient_and_study,
    methods,
    plain,
    processing_equipment,
    stamp,
)
from dicom_node.encode.quantity import INT16, QSM, Quantity, stored, zero
from dicom_node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from reconstruction import Maps, Recipe

SERIES = ("PatientPosition", "ProtocolName")
EQUIPMENT = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "InstitutionalDepartmentName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)
SPACE = ("FrameOfReferenceUID", "PositionReferenceIndicator")
PLANE = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
)
ACQUISITION = (
    "AcquisitionNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "MRAcquisitionType",
    "SequenceName",
    "RepetitionTime",
    "EchoTrainLength",
    "NumberOfAverages",
    "ImagingFrequency",
    "ImagedNucleus",
    "MagneticFieldStrength",
    "FlipAngle",
    "PixelBandwidth",
    "InPlanePhaseEncodingDirection",
    "ReceiveCoilName",
    "TransmitCoilName",
    "ContrastBolusAgent",
)
TYPE_2 = frozenset(
    {
        "PositionReferenceIndicator",
        "SliceThickness",
        "Manufacturer",
        "PatientPosition",
        "AcquisitionNumber",
        "ScanOptions",
        "MRAcquisitionType",
        "RepetitionTime",
        "EchoTrainLength",
    }
)
"""Must be present, may be empty (PS3.3 C.7.4.1, C.7.5.1, C.7.6.2, C.8.3.1)."""

INHERITED = (*SERIES, *EQUIPMENT, *SPACE, *PLANE, *ACQUISITION)

SERIES_NUMBERS_PER_SOURCE = 100
LARGEST_SERIES_NUMBER = 2**31 - 1
"""IS, PS3.5 table 6.2-1."""

UNSPECIFIED = "US"
"""Of a stored value without a unit (PS3.3 C.11.1.1.2)."""


def encode_series(
    maps: Maps,
    quantity: Quantity,
    source: Source,
    recipe: Recipe,
    when: datetime.datetime,
    slices: Sequence[Dataset] | None = None,
) -> list[Dataset]:
    """One dataset for each slice, in slice order; they share the elements that they have in common.

    slices: what `inherited` makes of the source; several series can share it.  Raises ValueError where maps and source
    differ in shape.
    """
    identity = Identity.of(source, recipe)
    pixels = stored(maps, quantity)
    own = Dataset()
    _identify(own, quantity, source, identity)
    stamp(own, when)
    _describe(own, quantity, source, f" {zero(maps)}" if quantity is QSM else "", recipe, when)
    _format(own, quantity, rows=pixels.shape[1], columns=pixels.shape[0])
    datasets = []
    for index, slice_ in enumerate(inherited(maps, source, identity) if slices is None else slices):
        dataset = Dataset(dict(slice_.items()) | dict(own.items()))
        dataset.SOPInstanceUID = identity.uid(quantity.name, "instance", index)
        dataset.InstanceNumber = index + 1
        dataset.PixelData = np.ascontiguousarray(pixels[:, :, index].T, "<i2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = file_meta(dataset)
        datasets.append(dataset)
    return datasets


def inherited(maps: Maps, source: Source, identity: Identity) -> list[Dataset]:
    """What every series has of its source, for each slice: patient, study, device, place, acquisition, references.

    Raises ValueError where maps and source differ in shape.
    """
    purpose = Dataset()
    purpose.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.SourceImageForImageProcessingOperation)]
    first = source.headers[0]
    common = Dataset()
    inherit_patient_and_study(common, first)
    _inherit(common, first, INHERITED, maps, identity)
    slices = []
    for header, references in zip(source.headers, source.references, strict=True):
        if maps.geometry.shape != (header.Columns, header.Rows, len(source.headers)):
            raise ValueError(
                f"the maps have shape {maps.geometry.shape}; expected columns {header.Columns}, rows {header.Rows}, "
                f"{len(source.headers)} slices, as the source has"
            )
        dataset = Dataset(dict(common.items()))
        if _differing(first, header, ("SpecificCharacterSet", "TimezoneOffsetFromUTC", *PATIENT, *STUDY)):
            dataset.pop("TimezoneOffsetFromUTC", None)  # it is inherited only where it is one
            inherit_patient_and_study(dataset, header)
        _inherit(dataset, header, _differing(first, header, INHERITED), maps, identity)
        for element in _references(references, purpose):
            dataset.add(element)
        slices.append(dataset)
    return slices


def series_number(header: Dataset, place: int) -> int:
    """Source series 7 → 701, 702, …: next to its source in a sorted list, and clear of what a scanner gives out."""
    number = int(header.get("SeriesNumber") or 0) * SERIES_NUMBERS_PER_SOURCE + place
    return number if 0 < number <= LARGEST_SERIES_NUMBER else place


def file_meta(dataset: Dataset) -> FileMetaDataset:
    """The file meta information of a dataset that is written as a file (PS3.10 7.1)."""
    sop_class, sop_instance = tag("MediaStorageSOPClassUID"), tag("MediaStorageSOPInstanceUID")
    return FileMetaDataset(
        {
            sop_class: DataElement(sop_class, "UI", dataset.SOPClassUID),
            sop_instance: DataElement(sop_instance, "UI", dataset.SOPInstanceUID),
            **_IMPLEMENTATION,
        }
    )


_IMPLEMENTATION = {
    tag("TransferSyntaxUID"): DataElement("TransferSyntaxUID", "UI", ExplicitVRLittleEndian),
    tag("ImplementationClassUID"): DataElement("ImplementationClassUID", "UI", IMPLEMENTATION_CLASS_UID),
    tag("ImplementationVersionName"): DataElement("ImplementationVersionName", "SH", IMPLEMENTATION_VERSION_NAME),
}


def _differing(one: Dataset, other: Dataset, keywords: Sequence[str]) -> list[str]:
    return [keyword for keyword in keywords if one.get(tag(keyword)) != other.get(tag(keyword))]


def _inherit(dataset: Dataset, header: Dataset, keywords: Sequence[str], maps: Maps, identity: Identity) -> None:
    """What follows from the header's attributes of these keywords."""
    inherit(dataset, header, keywords, empty=TYPE_2)
    if not dataset.SliceThickness:
        # Slices of a 3D acquisition touch; a Segmentation over them cannot do without (C.7.6.16.2.1).
        dataset.SliceThickness = f"{maps.geometry.voxel_size[2]:.9g}"
    if "FrameOfReferenceUID" not in dataset:
        dataset.FrameOfReferenceUID = identity.uid("frame of reference", header.StudyInstanceUID)
    # Required of every MR image (type 1, C.8.3.1).
    dataset.setdefault("ScanningSequence", "GR")
    dataset.setdefault("SequenceVariant", "NONE")


def _identify(dataset: Dataset, quantity: Quantity, source: Source, identity: Identity) -> None:
    dataset.SOPClassUID = MRImageStorage
    dataset.Modality = "MR"
    dataset.SeriesInstanceUID = identity.uid(quantity.name, "series")
    dataset.SeriesNumber = series_number(source.headers[0], quantity.number)


def _describe(
    dataset: Dataset, quantity: Quantity, source: Source, relative: str, recipe: Recipe, when: datetime.datetime
) -> None:
    unit = f" in {quantity.unit.meaning}" if quantity.unit else ", arbitrary unit"
    steps = ", ".join(f"{stage} {method}" for stage, method in methods(recipe, source.mask).items())
    dataset.ImageType = ["DERIVED", "PRIMARY", "OTHER", quantity.label]
    dataset.SeriesDescription = quantity.description
    dataset.DerivationDescription = plain(
        f"{quantity.title}: {quantity.concept.meaning}{unit}{relative}, 0 where it is not known; recipe {recipe.name}: "
        f"{steps}"
    )[:1024]
    dataset.ContentQualification = "RESEARCH"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "01" if source.lossy else "00"
    dataset.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
    dataset.EchoTime = None  # type 2: a map of many echoes has none
    # What the maps are of, in the standard's word: for a site's own ("KOPF") the IOD asks for a laterality (C.7.3.1).
    dataset.BodyPartExamined = "BRAIN"


def _references(references: Iterable[Reference], purpose: Dataset) -> tuple[DataElement, DataElement]:
    """Source Image Sequence (C.7.6.1) and Referenced Series Sequence (C.12.2) over every image of a slice."""
    frames: dict[tuple[str, str, str], list[int]] = {}
    for image in references:
        key = (image.series_instance_uid, image.sop_class_uid, image.sop_instance_uid)
        frames.setdefault(key, []).extend([] if image.frame is None else [image.frame])
    images = []
    series: dict[str, list[Dataset]] = {}
    for (series_uid, sop_class, sop_instance), numbers in sorted(frames.items()):
        instance = reference(sop_class, sop_instance)
        item = Dataset(dict(instance.items()) | dict(purpose.items()))
        if numbers:
            item.ReferencedFrameNumber = sorted(numbers)
        images.append(item)
        series.setdefault(series_uid, []).append(instance)
    refers = Dataset()
    refers.SourceImageSequence = images
    refers.ReferencedSeriesSequence = []
    for series_uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        item.ReferencedInstanceSequence = instances
        refers.ReferencedSeriesSequence.append(item)
    return refers["SourceImageSequence"], refers["ReferencedSeriesSequence"]


@lru_cache(maxsize=1 << 14)
def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """An item that refers to one object (PS3.3 table 10-11), the same wherever it is referred to: not to be changed."""
    uids = {"ReferencedSOPClassUID": sop_class_uid, "ReferencedSOPInstanceUID": sop_instance_uid}
    return Dataset({tag(keyword): DataElement(tag(keyword), "UI", uid) for keyword, uid in uids.items()})


def _format(dataset: Dataset, quantity: Quantity, rows: int, columns: int) -> None:
    low, high = quantity.window
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.WindowCenter = (low + high) // 2
    dataset.WindowWidth = high - low
    dataset.RescaleIntercept = 0
    dataset.RescaleSlope = 1
    dataset.RescaleType = quantity.unit.meaning if quantity.unit else UNSPECIFIED
    if quantity.unit:
        dataset.RealWorldValueMappingSequence = [real_world_value_mapping(quantity, quantity.unit)]


def real_world_value_mapping(quantity: Quantity, unit: Code) -> Dataset:
    """Stored value = value in the unit, and what the value is of (PS3.3 C.7.6.16.2.11)."""
    what = Dataset()
    what.ValueType = "CODE"
    what.ConceptNameCodeSequence = [code_item(codes.SCT.Quantity)]
    what.ConceptCodeSequence = [code_item(quantity.concept)]
    mapping = Dataset()
    mapping.LUTExplanation = f"{quantity.concept.meaning} in {unit.meaning}"
    mapping.LUTLabel = quantity.label
    mapping.MeasurementUnitsCodeSequence = [code_item(unit)]
    mapping.QuantityDefinitionSequence = [what]
    mapping.add_new("RealWorldValueFirstValueMapped", "SS", INT16.min)
    mapping.add_new("RealWorldValueLastValueMapped", "SS", INT16.max)
    mapping.RealWorldValueIntercept = 0.0
    mapping.RealWorldValueSlope = 1.0
    return mapping


def code_item(code: Code) -> Dataset:
    """An item of a code sequence (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
