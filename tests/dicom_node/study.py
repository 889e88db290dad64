"""A tiny two-echo study as files, and a physics that takes no time: for tests of what lies around the physics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from dicom_node.encode.series import file_meta
from reconstruction import Acquisition, Geometry, Maps, Recipe
from reconstruction.maps import Reference
from tests.dicom_node.encode import example

ECHO_TIMES = (4.0, 12.0)
"""ms."""


def image(component: str, echo: int, slice_index: int) -> Dataset:
    """One image of the example's scan, with pixels that tell it from every other."""
    dataset = example.header(slice_index)
    series = {"M": example.MAGNITUDE_SERIES, "P": example.PHASE_SERIES}[component]
    dataset.ImageType = ["ORIGINAL", "PRIMARY", component, "ND"]
    dataset.SeriesInstanceUID = series
    dataset.SeriesNumber = 7 if component == "M" else 8
    dataset.SOPInstanceUID = f"{series}.{echo * example.SHAPE[2] + slice_index + 1}"
    dataset.InstanceNumber = echo * example.SHAPE[2] + slice_index + 1
    dataset.StationName = "MR1"
    dataset.AcquisitionNumber = 1
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20260102", "102030.5"
    dataset.EchoTime = str(ECHO_TIMES[echo])
    dataset.EchoNumbers = echo + 1
    dataset.ImagingFrequency = "123.2"
    dataset.ImagedNucleus = "1H"
    dataset.MagneticFieldStrength = "3"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    if component == "P":
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "2", "-4096", "US"
    random = np.random.default_rng([echo, slice_index, component == "P"])
    dataset.PixelData = random.integers(0, 4096, (dataset.Rows, dataset.Columns), dtype="<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = file_meta(dataset)
    return dataset


def write_study(folder: Path) -> list[Path]:
    """Two echoes × seven slices × magnitude and phase, under names that say nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for component in ("M", "P"):
        for echo in range(len(ECHO_TIMES)):
            for slice_index in range(example.SHAPE[2]):
                dataset = image(component, echo, slice_index)
                path = folder / f"{(echo, slice_index, component)!r}"
                dcmwrite(path, dataset, enforce_file_format=True)
                paths.append(path)
    return paths


def instant_physics(
    acquisition: Acquisition, recipe: Recipe, on_stage: Callable[[str], None] | None = None, *_: object, **__: object
) -> Maps:
    """Maps that follow from every voxel of the acquisition, without any physics."""
    geometry: Geometry = acquisition.geometry
    for stage in recipe.steps:
        if on_stage:
            on_stage(stage)
    mask = np.ones(geometry.shape, bool)
    zero = np.zeros(geometry.shape, bool)
    zero[: geometry.shape[0] // 2] = True
    chi = (acquisition.phase * 0.05).mean(axis=0, dtype=np.float64).astype(np.float32)
    return Maps(
        geometry=geometry,
        chi=chi,
        r2star=acquisition.magnitude.mean(axis=0) / 100,
        field=acquisition.phase[0],
        local_field=acquisition.phase[-1],
        magnitude=acquisition.magnitude[0],
        brain_mask=mask,
        mask=mask,
        reference=Reference("csf", zero, 0.01, 0.02),
    )
