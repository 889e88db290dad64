"""report.json: every figure of the report and how it came about, for programs.  It names no patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    EnhancedMRImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ParametricMapStorage,
    PseudoColorSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.convert.source import Source
from dicom_node.encode.figures import asymmetries
from dicom_node.encode.identity import source_images
from dicom_node.encode.quantity import ALWAYS, CHOSEN, QSM, Quantity, shortcomings
from dicom_node.encode.ranges import Comparison
from dicom_node.identity import RESEARCH_ONLY
from reconstruction import Acquisition, Maps, Recipe

if TYPE_CHECKING:
    from dicom_node.encode import Encoded

KINDS = (
    *(quantity.label.lower() for quantity in (*ALWAYS, *CHOSEN.values())),
    "parametric",
    "enhanced",
    "seg",
    "sr",
    "page",
    "pdf",
    "window",
    "colours",
)
"""Of outputs, in sending order: images before what refers to them."""

KIND_OF_CLASS = {
    ParametricMapStorage: "parametric",
    EnhancedMRImageStorage: "enhanced",
    SegmentationStorage: "seg",
    Comprehensive3DSRStorage: "sr",
    SecondaryCaptureImageStorage: "page",
    EncapsulatedPDFStorage: "pdf",
    GrayscaleSoftcopyPresentationStateStorage: "window",
    PseudoColorSoftcopyPresentationStateStorage: "colours",
}


def record(
    acquisition: Acquisition,
    maps: Maps,
    source: Source,
    recipe: Recipe,
    encoded: Encoded,
    outputs: Mapping[str, Dataset],
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """Plain data for JSON.  outputs: file name → dataset.

    timings: seconds by stage.
    """
    header = source.headers[0]
    images = source_images(source)
    return {
        "purpose": RESEARCH_ONLY,
        "software": {"name": "qsm-node", "version": version("qsm-node")},
        "recipe": recipe.as_mapping() | {"digest": recipe.digest()},
        "acquisition": {
            "encoding": source.encoding,
            "echo_times_s": list(acquisition.echo_times),
            "larmor_frequency_hz": acquisition.larmor_frequency,
            "shape": list(maps.geometry.shape),
            "voxel_size_mm": list(maps.geometry.voxel_size),
            "b0_direction": list(maps.geometry.b0_direction),
        },
        "source": {
            "study_instance_uid": str(header.StudyInstanceUID),
            "series_instance_uids": sorted({series for series, _, _ in images}),
            "sop_instance_uids": sorted(sop_instance for _, _, sop_instance in images),
            "lossy": source.lossy,
            "phase_override": source.override.applied(),
            "mask": source.mask,
        },
        "grade": {"grade": maps.grade, "grounds": list(maps.grounds)},
        "units": {"chi": "ppb", "r2star": "1/s", "volume": "mm3"},
        "reference": {
            "name": maps.reference.name,
            "mean_relative_to_whole_brain": maps.reference.mean * QSM.per_unit,
            "sd": maps.reference.sd * QSM.per_unit,
        },
        "regions": {region.name: region.figures() for region in encoded.regions},
        "asymmetries": {found.structure: asdict(found) for found in asymmetries(encoded.regions)},
        "atlas": _atlas(maps, recipe),
        "reference_ranges": _reference_ranges(encoded.comparison),
        "quality": dict(maps.quality),
        "warnings": list(encoded.warnings),
        "timings_s": dict(timings),
        "outputs": [_output(name, dataset) for name, dataset in outputs.items()],
    }


def warnings(maps: Maps, source: Source, made: Sequence[Quantity], chosen: Sequence[str]) -> tuple[str, ...]:
    """Those of the conversion, of the physics and of the encoding, in that order; see `quantity.shortcomings`."""
    return (*source.warnings, *maps.warnings, *shortcomings(maps, made, chosen))


def _atlas(maps: Maps, recipe: Recipe) -> dict[str, Any] | None:
    if maps.regions is None:
        return None
    found = {"trusted": maps.regions.trusted, "reason": maps.regions.reason, "match": dict(maps.regions.match)}
    return found | {"sha256": recipe.atlas}


def _reference_ranges(comparison: Comparison | None) -> dict[str, Any] | None:
    """It names no age: that is the patient's."""
    if comparison is None:
        return None
    return {
        "name": comparison.ranges.name,
        "source": comparison.ranges.source,
        "sha256": comparison.ranges.digest(),
        "withheld": comparison.withheld,
        "expected": {name: asdict(expectation) for name, expectation in comparison.expected.items()},
    }


def _output(name: str, dataset: Dataset) -> dict[str, str]:
    return {
        "file": name,
        "sop_class_uid": str(dataset.SOPClassUID),
        "sop_instance_uid": str(dataset.SOPInstanceUID),
        "series_instance_uid": str(dataset.SeriesInstanceUID),
        "series_description": str(dataset.SeriesDescription),
    }


def names(datasets: Sequence[Dataset]) -> dict[str, Dataset]:
    """A file name for each output; sorted by name they are in sending order, images before what refers to them."""
    named = {}
    counted: Counter[str] = Counter()
    for dataset in datasets:
        kind = KIND_OF_CLASS.get(dataset.SOPClassUID) or str(dataset.ImageType[3]).lower()
        counted[kind] += 1
        named[f"{KINDS.index(kind) + 1:02d}-{kind}-{counted[kind]:04d}.dcm"] = dataset
    return named
