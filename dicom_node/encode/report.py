"""The report: TID 1500 Measurement Report as Comprehensive 3D SR (PS3.3 A.35.13, PS3.16 TID 1500).

It says what the QSM consensus asks of a report (doi:10.1002/mrm.30006): the unit, the reference region with its mean
and SD relative to the whole brain, software and version, algorithm and parameters of every step, changes of geometry.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import version

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_node.convert.source import Source
from dicom_node.encode.figures import WHOLE_BRAIN, Region, Summary
from dicom_node.encode.identity import (
    DEVICE_UID,
    RESEARCH_ONLY,
    SOFTWARE,
    Identity,
    describe_recipe,
    inherit_patient_and_study,
    plain,
    processing_equipment,
    source_images,
    stamp,
)
from dicom_node.encode.quantity import QSM, R2STAR, Quantity, zero
from dicom_node.encode.segmentation import anatomy, anonymous
from dicom_node.encode.series import file_meta
from reconstruction import Maps, Recipe

REPORT_NUMBER = 4
"""Its place among the outputs' series numbers."""

BRAIN_MRI = Code("24590-2", "LN", "MR Brain")
MILLILITER = Code("ml", "UCUM", "ml")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
"""TID 1500, row 12."""

LOCAL_SCHEME = "99QSMNODE"
RELATIVE_SUSCEPTIBILITY = Code("1001", LOCAL_SCHEME, "Unreferenced susceptibility relative to whole-brain mean")
"""No published code says this; the scheme is declared in the object (PS3.16 8)."""

DERIVATIONS = {
    "mean": codes.SCT.Mean,
    "sd": codes.SCT.StandardDeviation,
    "median": codes.SCT.Median,
    "minimum": codes.SCT.Minimum,
    "maximum": codes.SCT.Maximum,
}


def encode_report(
    maps: Maps,
    regions: Sequence[Region],
    source: Source,
    images: Sequence[Dataset],
    segmentation: Dataset,
    recipe: Recipe,
    warnings: Sequence[str],
    number: int,
    when: datetime.datetime,
) -> Dataset:
    """The report over `regions`, segment n of `segmentation` being region n; images: every derived image."""
    header = source.headers[0]
    identity = Identity.of(source, recipe)
    qsm_series = next(i.SeriesInstanceUID for i in images if i.ImageType[3] == QSM.label)
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_observer()),
        procedure_reported=BRAIN_MRI,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=[
            _group(maps, region, place, segmentation, qsm_series, identity, recipe)
            for place, region in enumerate(regions, 1)
        ],
    )
    content = report[0].ContentSequence
    content.insert(len(content) - 1, _image_library(source, images))
    content.append(_statements(maps, recipe, warnings))
    document = hd.sr.Comprehensive3DSR(
        evidence=_evidence(source, *images, segmentation),
        content=report[0],
        series_instance_uid=identity.uid("report", "series"),
        series_number=number,
        sop_instance_uid=identity.uid("report", "instance"),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name="qsm-node",
        software_versions=version("qsm-node"),
        series_description="QSM report",
        is_complete=True,
        is_final=True,
        is_verified=False,
        coding_schemes=[CodingSchemeIdentificationItem(LOCAL_SCHEME, name=SOFTWARE, responsible_organization=SOFTWARE)],
    )
    inherit_patient_and_study(document, header)
    stamp(document, when)
    document.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
    document.file_meta = file_meta(document)
    return document


def _observer() -> hd.sr.ObserverContext:
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=DEVICE_UID, name="qsm-node", manufacturer_name=SOFTWARE, model_name=f"qsm-node {version('qsm-node')}"
        ),
    )


def _group(
    maps: Maps,
    region: Region,
    segment: int,
    segmentation: Dataset,
    qsm_series: str,
    identity: Identity,
    recipe: Recipe,
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411: the figures of one region, which is one segment."""
    category, kind = anatomy(region.name)
    measurements = [
        hd.sr.Measurement(name=codes.SCT.Volume, value=_number(region.volume), unit=MILLILITER),
        *_measurements(QSM, region.chi),
        *([] if region.r2star is None else _measurements(R2STAR, region.r2star)),
    ]
    if region.name == maps.reference.name != WHOLE_BRAIN:
        relative = {"mean": maps.reference.mean, "sd": maps.reference.sd}
        measurements += [
            hd.sr.Measurement(
                name=RELATIVE_SUSCEPTIBILITY,
                value=_number(value * QSM.per_unit),
                unit=QSM.unit,
                derivation=DERIVATIONS[name],
            )
            for name, value in relative.items()
        ]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=identity.uid("region", region.name), identifier=plain(region.name)
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=segment,
            source_series=hd.sr.SourceSeriesForSegmentation(qsm_series),
        ),
        finding_category=category,
        finding_type=kind,
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=plain(f"qsm-node, recipe {recipe.name}"),
            version=version("qsm-node"),
            parameters=[f"recipe SHA-256: {recipe.digest()}", *describe_recipe(recipe)],
        ),
        measurements=measurements,
    )


def _measurements(quantity: Quantity, summary: Summary) -> list[hd.sr.Measurement]:
    return [
        hd.sr.Measurement(
            name=quantity.concept,
            value=_number(getattr(summary, name)),
            unit=quantity.unit,
            derivation=derivation,
        )
        for name, derivation in DERIVATIONS.items()
    ]


def _number(value: float) -> float:
    """Six significant digits and four decimals: more than any of these figures carries, and it fits a DS (16 bytes)."""
    return round(float(f"{value:.6g}"), 4) + 0.0  # + 0.0: no negative zero


def _image_library(source: Source, images: Sequence[Dataset]) -> hd.sr.ContainerContentItem:
    """TID 1600: the source images and the derived ones, a group for each; what an image says itself is not repeated."""
    seen = [(sop_class, sop_instance) for _, sop_class, sop_instance in source_images(source)]
    derived = [(i.SOPClassUID, i.SOPInstanceUID) for i in images]
    library = _container(codes.DCM.ImageLibrary)
    for purpose, members in ((codes.SCT.Source, seen), (codes.DCM.SourceOfMeasurement, derived)):
        group = _container(codes.DCM.ImageLibraryGroup)
        group.ContentSequence.append(
            hd.sr.CodeContentItem(codes.DCM.Modality, codes.cid29.MagneticResonance, "HAS ACQ CONTEXT")
        )
        group.ContentSequence.append(
            hd.sr.UIDRefContentItem(codes.DCM.FrameOfReferenceUID, images[0].FrameOfReferenceUID, "HAS ACQ CONTEXT")
        )
        for sop_class, sop_instance in members:
            group.ContentSequence.append(
                hd.sr.ImageContentItem(purpose, sop_class, sop_instance, relationship_type="CONTAINS")
            )
        library.ContentSequence.append(group)
    return library


def _statements(maps: Maps, recipe: Recipe, warnings: Sequence[str]) -> hd.sr.ContainerContentItem:
    """What a reader must know beside the numbers, in sentences."""
    container = _container(QUALITATIVE_EVALUATIONS)
    for sentence in statements(maps, recipe, warnings):
        container.ContentSequence.append(hd.sr.TextContentItem(codes.DCM.Comment, plain(sentence), "CONTAINS"))
    return container


def statements(maps: Maps, recipe: Recipe, warnings: Sequence[str]) -> tuple[str, ...]:
    """Purpose, unit, reference, geometry, quality and warnings as sentences."""
    voxel = " x ".join(f"{size:.4g}" for size in maps.geometry.voxel_size)
    grid = " x ".join(map(str, maps.geometry.shape))
    return (
        RESEARCH_ONLY,
        _zero(maps),
        f"Geometry unchanged: {grid} voxels of {voxel} mm, as acquired; no resampling, rotation or cropping.",
        f"Software qsm-node {version('qsm-node')}, recipe {recipe.name}, SHA-256 {recipe.digest()}.",
        *(f"Quality: {name} = {value:.6g}." for name, value in sorted(maps.quality.items())),
        *(f"Warning: {warning}" for warning in warnings),
    )


def _zero(maps: Maps) -> str:
    reference = maps.reference
    if not reference.mask.any():
        return "Susceptibility is in ppb without reference: its zero is arbitrary."
    return (
        f"Susceptibility is in ppb {zero(maps)}; before referencing that region had a mean of "
        f"{reference.mean * QSM.per_unit:.1f} ppb and an SD of {reference.sd * QSM.per_unit:.1f} ppb relative to the "
        "mean of the whole brain's reliable voxels."
    )


def _evidence(source: Source, *made: Dataset) -> list[Dataset]:
    """Every image the report refers to, as highdicom wants to hear of it: by UIDs, once each."""
    study = source.headers[0].StudyInstanceUID
    known = [(i.SeriesInstanceUID, i.SOPClassUID, i.SOPInstanceUID) for i in made] + source_images(source)
    evidence = [anonymous(made[0])]  # the first one lends the report its patient attributes
    for series, sop_class, sop_instance in known[1:]:
        item = Dataset()
        item.StudyInstanceUID, item.SeriesInstanceUID = study, series
        item.SOPClassUID, item.SOPInstanceUID = sop_class, sop_instance
        evidence.append(item)
    return evidence


def _container(name: Code) -> hd.sr.ContainerContentItem:
    item = hd.sr.ContainerContentItem(CodedConcept.from_code(name), relationship_type="CONTAINS")
    item.ContentSequence = hd.sr.ContentSequence()
    return item
