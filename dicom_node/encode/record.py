"""report.json: every figure of the report and how it came about, for programs.  It names no patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.convert.source import Source
from dicom_node.encode.figures import regions
from dicom_node.encode.identity import RESEARCH_ONLY, source_images
from dicom_node.encode.quantity import QSM, clipped
from reconstruction import Acquisition, Maps, Recipe

OUTPUT_ORDER = {"qsm": 1, "r2star": 2, "seg": 3, "sr": 4}


def record(
    acquisition: Acquisition,
    maps: Maps,
    source: Source,
    recipe: Recipe,
    outputs: Mapping[str, Dataset],
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """Plain data for JSON.  outputs: file name → dataset.  timings: seconds by stage."""
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
        },
        "units": {"chi": "ppb", "r2star": "1/s", "volume": "ml"},
        "reference": {
            "name": maps.reference.name,
            "mean_relative_to_whole_brain": maps.reference.mean * QSM.per_unit,
            "sd": maps.reference.sd * QSM.per_unit,
        },
        "regions": {region.name: region.figures() for region in regions(maps)},
        "quality": dict(maps.quality),
        "warnings": warnings(maps, source),
        "timings_s": dict(timings),
        "outputs": [_output(name, dataset) for name, dataset in outputs.items()],
    }


def warnings(maps: Maps, source: Source) -> list[str]:
    """Those of the conversion, of the physics and of the encoding, in that order."""
    return [*source.warnings, *maps.warnings, *clipped(maps)]


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
    for dataset in datasets:
        kind = str(dataset.ImageType[3]).lower() if dataset.Modality == "MR" else str(dataset.Modality).lower()
        named[f"{OUTPUT_ORDER[kind]}-{kind}-{int(dataset.InstanceNumber):04d}.dcm"] = dataset
    return named
