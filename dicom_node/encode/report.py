"""The report: TID 1500 Measurement Report as Comprehensive 3D SR (PS3.3 A.35.13, PS3.16 TID 1500).

It says what the QSM consensus asks of a report (doi:10.1002/mrm.30006): the unit, the reference region with its mean
and SD relative to the whole brain, software and version, algorithm and parameters of every step, changes of geometry.
Each region is a group of TID 1411 that points at its segment, each structure with two sides has a group of TID 1501 for
left minus right besides.  Its own words are ASCII, and so right in every character set that a patient's name may need;
a site's own words stand as they are where that set has them.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_node.convert.header import tag
from dicom_node.convert.source import Source
from dicom_node.encode.anatomy import laterality, structure
from dicom_node.encode.figures import Asymmetry, Region, Summary, asymmetries
from dicom_node.encode.identity import (
    DEVICE_UID,
    LOCAL_SCHEME,
    SOFTWARE,
    VERSION,
    Identity,
    describe_recipe,
    inherit_patient_and_study,
    processing_equipment,
    source_images,
    stamp,
    written,
)
from dicom_node.encode.quality import encode_quality
from dicom_node.encode.quantity import PPB, QSM, R2STAR, Quantity
from dicom_node.encode.ranges import Comparison, Expectation
from dicom_node.encode.segmentation import anonymous
from dicom_node.encode.series import file_meta, reference
from dicom_node.encode.statements import statements
from dicom_node.regions import WHOLE_BRAIN
from reconstruction import Maps, Recipe

REPORT_NUMBER = 4
"""Its place among the outputs' series numbers."""

BRAIN_MRI = Code("24590-2", "LN", "MR Brain")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
"""TID 1500, row 12."""

ENGLISH = Code("en", "RFC5646", "English")

RELATIVE_SUSCEPTIBILITY = Code("1001", LOCAL_SCHEME, "Unreferenced susceptibility relative to whole-brain mean")
LEFT_MINUS_RIGHT = Code("1002", LOCAL_SCHEME, "Left minus right difference of means")
VOLUME_ASYMMETRY = Code("1003", LOCAL_SCHEME, "Left minus right volume relative to the mean of both")
EXPECTED = Code("1004", LOCAL_SCHEME, "Mean expected at the age of the patient")
TABULATED = Code("1006", LOCAL_SCHEME, "Value of a table at the age of the patient, without a range")
GRADES = {
    "good": Code("2001", LOCAL_SCHEME, "Good: no ground for doubt was found"),
    "review": Code("2002", LOCAL_SCHEME, "Review: somebody should look before the figures are used"),
    "failed": Code("2003", LOCAL_SCHEME, "Failed: the figures should not be used"),
}

DERIVATIONS = {
    "mean": codes.SCT.Mean,
    "sd": codes.SCT.StandardDeviation,
    "median": codes.SCT.Median,
    "p5": codes.cid226._5thPercentileValueOfPopulation,
    "p95": codes.cid226._95thPercentileValueOfPopulation,
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
    comparison: Comparison | None,
    number: int,
    when: datetime.datetime,
) -> Dataset:
    """The report over `regions`, segment n of `segmentation` being region n; images: those that were measured."""
    header = source.headers[0]
    identity = Identity.of(source, recipe)
    qsm_series = next(i.SeriesInstanceUID for i in images if i.ImageType[3] == QSM.label)
    algorithm = _algorithm(recipe, source)
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_observer()),
        procedure_reported=BRAIN_MRI,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=[
            *(
                _group(maps, region, place, segmentation, qsm_series, identity, algorithm, comparison, header)
                for place, region in enumerate(regions, 1)
            ),
            *(_sides(asymmetry, identity, header) for asymmetry in asymmetries(regions)),
            *encode_quality(maps, identity),
        ],
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
            CodedConcept.from_code(ENGLISH)
        ),
    )[0]
    # highdicom copies and searches all content and evidence that a document is begun with, which takes longer than all
    # else: what is of any length is put in afterwards.
    measurements = content.ContentSequence.pop()
    document = hd.sr.Comprehensive3DSR(
        evidence=[anonymous(images[0])],
        content=content,
        series_instance_uid=identity.uid("report", "series", *rests_on(comparison)),
        series_number=number,
        sop_instance_uid=identity.uid("report", "instance", *rests_on(comparison)),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name="qsm-node",
        software_versions=VERSION,
        series_description="QSM report",
        is_complete=True,
        is_final=True,
        is_verified=False,
        coding_schemes=[CodingSchemeIdentificationItem(LOCAL_SCHEME, name=SOFTWARE, responsible_organization=SOFTWARE)],
    )
    said = [written(sentence, header) for sentence in statements(maps, recipe, warnings, comparison)]
    evaluations = _evaluations(maps, said)
    document.ContentSequence.extend([_image_library(source, images), measurements, evaluations])
    document.CurrentRequestedProcedureEvidenceSequence = [_evidence(source, *images, segmentation)]
    inherit_patient_and_study(document, header)
    stamp(document, when)
    document.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
    document.file_meta = file_meta(document)
    return document


def _observer() -> hd.sr.ObserverContext:
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=DEVICE_UID, name="qsm-node", manufacturer_name=SOFTWARE, model_name=f"qsm-node {VERSION}"
        ),
    )


def _algorithm(recipe: Recipe, source: Source) -> hd.sr.AlgorithmIdentification:
    """TID 4019, the same items for every region."""
    return hd.sr.AlgorithmIdentification(
        name=written(f"qsm-node, recipe {recipe.name}", source.headers[0]),
        version=VERSION,
        parameters=[f"recipe SHA-256: {recipe.digest()}", *describe_recipe(recipe, source)],
    )


def _group(
    maps: Maps,
    region: Region,
    segment: int,
    segmentation: Dataset,
    qsm_series: str,
    identity: Identity,
    algorithm: hd.sr.AlgorithmIdentification,
    comparison: Comparison | None,
    header: Dataset,
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411: the figures of one region, which is one segment."""
    what, side = structure(region.name), laterality(region.name)
    expected = comparison.expected.get(region.name) if comparison else None
    measurements = [
        hd.sr.Measurement(name=codes.SCT.Volume, value=_number(region.volume), unit=codes.UCUM.CubicMillimeter),
        *_measurements(QSM, region.chi, _properties(comparison, expected, header)),
        *([] if region.r2star is None else _measurements(R2STAR, region.r2star)),
    ]
    if expected is not None:
        measurements.append(_measurement(QSM, expected.mean, TABULATED if expected.low is None else EXPECTED))
    if region.name == maps.reference.name != WHOLE_BRAIN:
        relative = {"mean": maps.reference.mean, "sd": maps.reference.sd}
        measurements += [
            hd.sr.Measurement(
                name=RELATIVE_SUSCEPTIBILITY,
                value=_number(value * QSM.per_unit),
                unit=PPB,
                derivation=DERIVATIONS[name],
            )
            for name, value in relative.items()
        ]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=identity.uid("region", region.name), identifier=written(region.name, header)
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=segment,
            source_series=hd.sr.SourceSeriesForSegmentation(qsm_series),
        ),
        finding_category=what.category,
        finding_type=what.kind,
        finding_sites=None if side is None else [hd.sr.FindingSite(what.kind, side)],
        algorithm_id=algorithm,
        measurements=measurements,
    )


def _sides(asymmetry: Asymmetry, identity: Identity, header: Dataset) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501: left minus right of one structure."""
    what = structure(asymmetry.structure)
    measurements = [
        _measurement(QSM, asymmetry.chi, LEFT_MINUS_RIGHT),
        hd.sr.Measurement(name=VOLUME_ASYMMETRY, value=_number(asymmetry.volume), unit=codes.UCUM.Percent),
    ]
    if asymmetry.r2star is not None:
        measurements.insert(1, _measurement(R2STAR, asymmetry.r2star, LEFT_MINUS_RIGHT))
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=identity.uid("asymmetry", asymmetry.structure),
            identifier=written(f"{asymmetry.structure} asymmetry", header),
        ),
        finding_category=what.category,
        finding_type=what.kind,
        measurements=measurements,
    )


def _measurements(
    quantity: Quantity, summary: Summary, properties: hd.sr.MeasurementProperties | None = None
) -> list[hd.sr.Measurement]:
    """properties: of the mean."""
    return [
        _measurement(quantity, getattr(summary, name), derivation, properties if name == "mean" else None)
        for name, derivation in DERIVATIONS.items()
    ]


def _measurement(
    quantity: Quantity, value: float, derivation: Code, properties: hd.sr.MeasurementProperties | None = None
) -> hd.sr.Measurement:
    return hd.sr.Measurement(
        name=quantity.concept,
        value=_number(value),
        unit=quantity.unit or codes.UCUM.NoUnits,
        derivation=derivation,
        properties=properties,
    )


def _properties(
    comparison: Comparison | None, expected: Expectation | None, header: Dataset
) -> hd.sr.MeasurementProperties | None:
    """The reference range of a mean (TID 310, TID 312), where the table has one."""
    if comparison is None or expected is None or expected.low is None or expected.high is None:
        return None
    bounds = {
        codes.cid223.NormalRangeLowerLimit: expected.low,
        codes.cid223.NormalRangeUpperLimit: expected.high,
    }
    return hd.sr.MeasurementProperties(
        normal_range_properties=hd.sr.NormalRangeProperties(
            [
                hd.sr.NumContentItem(name, _number(value), PPB, relationship_type="HAS PROPERTIES")
                for name, value in bounds.items()
            ],
            description=written(f"{comparison.ranges.name}, at the age of {comparison.age:.0f} years", header),
            authority=written(comparison.ranges.source, header),
        )
    )


def rests_on(comparison: Comparison | None) -> tuple[str, ...]:
    """What the UIDs of the report and the page follow from beside sources and recipe: the table of reference ranges."""
    return () if comparison is None else (comparison.ranges.digest(),)


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
        sop_class, sop_instance = members[0]
        like = hd.sr.ImageContentItem(purpose, sop_class, sop_instance, relationship_type="CONTAINS")
        items = list(group.ContentSequence)
        for sop_class, sop_instance in members:
            item = Dataset(dict(like.items()))  # there are thousands of them, alike but for what they refer to
            item.pop("ReferencedSOPSequence")
            item.ReferencedSOPSequence = [reference(sop_class, sop_instance)]
            items.append(item)
        group.add_new(tag("ContentSequence"), "SQ", items)
        library.ContentSequence.append(group)
    return library


def _evaluations(maps: Maps, sentences: Sequence[str]) -> hd.sr.ContainerContentItem:
    """The grade as a code, and what a reader must know beside the numbers, in sentences."""
    container = _container(QUALITATIVE_EVALUATIONS)
    grade = CodedConcept.from_code(GRADES[maps.grade])
    container.ContentSequence.append(hd.sr.CodeContentItem(codes.DCM.QualityAssessment, grade, "CONTAINS"))
    for sentence in sentences:
        container.ContentSequence.append(hd.sr.TextContentItem(codes.DCM.Comment, sentence, "CONTAINS"))
    return container


def _evidence(source: Source, *made: Dataset) -> Dataset:
    """Every image the report refers to, once each, by series: an item of the evidence sequence (PS3.3 C.17.2)."""
    known = [(i.SeriesInstanceUID, i.SOPClassUID, i.SOPInstanceUID) for i in made] + source_images(source)
    by_series: dict[str, list[Dataset]] = {}
    for series, sop_class, sop_instance in known:
        by_series.setdefault(series, []).append(reference(sop_class, sop_instance))
    study = Dataset()
    study.StudyInstanceUID = source.headers[0].StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for series, instances in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID = series
        item.ReferencedSOPSequence = instances
        study.ReferencedSeriesSequence.append(item)
    return study


def _container(name: Code) -> hd.sr.ContainerContentItem:
    item = hd.sr.ContainerContentItem(CodedConcept.from_code(name), relationship_type="CONTAINS")
    item.ContentSequence = hd.sr.ContentSequence()
    return item
