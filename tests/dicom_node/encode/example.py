"""A small acquisition's headers and maps, made by hand: what encoding needs, with known answers."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from dicom_node.convert.source import Reference, Source
from dicom_node.settings import Output
from reconstruction import Geometry, Maps, Recipe, Step
from reconstruction.maps import Reference as Zero
from reconstruction.maps import Regions

SHAPE = (12, 16, 7)
VOXEL_SIZE = (0.5, 0.75, 2.5)
"""x, y, z: all different, so that nothing can be exchanged unnoticed."""

STUDY, MAGNITUDE_SERIES, PHASE_SERIES, SPACE = "1.2.3", "1.2.3.4", "1.2.3.5", "1.2.3.6"

ROW = np.array([0.9848077530, 0.1736481777, 0.0])
COLUMN = np.array([-0.1710100717, 0.9698463104, 0.1736481777])
NORMAL = np.cross(ROW, COLUMN)

CREATED = 1_700_000_000.0

PLAIN = Output(objects=())
"""Series, segmentation and report, and nothing besides."""
EVERYTHING = Output(
    maps=("t2star", "field", "local_field", "chi_para", "chi_dia"),
    objects=("page", "pdf", "presentation", "colour", "parametric", "enhanced"),
    reference_ranges="hallgren_sourander_1958",
)

NUCLEI = (
    "left_caudate",
    "right_caudate",
    "left_globus_pallidus_external",
    "right_globus_pallidus_external",
    "left_red_nucleus",
    "right_red_nucleus",
    "left_a structure of the site's own",
    "white_matter",
)


IODS = {
    "MRImage",
    "EnhancedMRImage",
    "ParametricMap",
    "Segmentation",
    "Comprehensive3DSR",
    "SCImage",
    "EncapsulatedPDF",
    "GrayscaleSoftcopyPresentationState",
    "PseudoColorSoftcopyPresentationState",
}
"""As dciodvfy names what it takes an object for."""


def recipe(**settings: float) -> Recipe:
    return Recipe("default", {"mask": Step("magnitude", {"threshold": 0.1} | settings), "inversion": Step("tv", {})})


def header(slice_index: int = 0) -> Dataset:
    """A slice of the first echo's magnitude, as a Siemens scanner writes it."""
    position = np.array([-10.25, -20.5, 33.125]) + slice_index * VOXEL_SIZE[2] * NORMAL
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = f"{MAGNITUDE_SERIES}.{slice_index + 1}"
    dataset.Modality = "MR"
    dataset.Manufacturer = "SIEMENS"
    dataset.PatientName = "Müller^Jörg"
    dataset.PatientID = "0815"
    dataset.PatientBirthDate = "19620323"
    dataset.PatientSex = "M"
    dataset.StudyInstanceUID = STUDY
    dataset.StudyDate, dataset.StudyTime = "20260102", "101112"
    dataset.StudyID, dataset.AccessionNumber = "17", "A123"
    dataset.ReferringPhysicianName = ""
    dataset.ProcedureCodeSequence = []
    dataset.SeriesInstanceUID = MAGNITUDE_SERIES
    dataset.SeriesNumber = 7
    dataset.FrameOfReferenceUID = SPACE
    dataset.ImagePositionPatient = [f"{p:.9g}" for p in position]
    dataset.ImageOrientationPatient = [f"{c:.10g}" for c in (*ROW, *COLUMN)]
    dataset.PixelSpacing = [str(VOXEL_SIZE[1]), str(VOXEL_SIZE[0])]
    dataset.SliceThickness = "2.50"
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.MRAcquisitionType = "GR", "SP", "3D"
    dataset.EchoTime, dataset.RepetitionTime = "4", "35"
    dataset.ImagingFrequency = "123.2"
    dataset.Rows, dataset.Columns = SHAPE[1], SHAPE[0]
    return dataset


def affine() -> NDArray[np.float64]:
    """Voxel → patient RAS of the headers above."""
    lps = np.eye(4)
    lps[:3, :3] = np.column_stack([ROW * VOXEL_SIZE[0], COLUMN * VOXEL_SIZE[1], NORMAL * VOXEL_SIZE[2]])
    lps[:3, 3] = (-10.25, -20.5, 33.125)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def source(headers: tuple[Dataset, ...] | None = None, *, lossy: bool = False) -> Source:
    """Two echoes, magnitude and phase in a series each, one file for each image."""
    headers = headers or tuple(header(i) for i in range(SHAPE[2]))
    references = tuple(
        tuple(
            Reference(MRImageStorage, f"{series}.{echo * SHAPE[2] + i + 1}", series, None)
            for series in (MAGNITUDE_SERIES, PHASE_SERIES)
            for echo in (0, 1)
        )
        for i in range(SHAPE[2])
    )
    return Source(headers, references, affine(), "siemens", lossy, ("the source is small",))


def enhanced_source() -> Source:
    """The same in one enhanced object: a frame for each image."""
    references = tuple(
        tuple(Reference(EnhancedMRImageStorage, "1.2.3.4.99", MAGNITUDE_SERIES, 4 * i + k + 1) for k in range(4))
        for i in range(SHAPE[2])
    )
    plain = source()
    return Source(plain.headers, references, plain.affine, "siemens_enhanced", False, ())


def maps(*, r2star: bool = True, chi: NDArray[np.float32] | None = None, reference: str = "csf") -> Maps:
    """χ grows by 1 ppb from voxel to voxel, so that each voxel is told from its neighbours."""
    count = int(np.prod(SHAPE))
    if chi is None:
        chi = ((np.arange(count).reshape(SHAPE) - count // 2) * 1e-3).astype(np.float32)
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1, 1:-1] = True
    zero = np.zeros(SHAPE, bool)
    zero[4:7, 5:8, 2:4] = True
    field = np.linspace(-1, 1, count, dtype=np.float32).reshape(SHAPE)
    return Maps(
        geometry=Geometry(SHAPE, VOXEL_SIZE, (0.0, 0.6, 0.8)),
        chi=np.where(mask, chi, 0).astype(np.float32),
        r2star=np.where(mask, 20 + 10 * field, 0).astype(np.float32) if r2star else None,
        field=field,
        local_field=np.where(mask, field, 0).astype(np.float32),
        magnitude=np.abs(field) + 1,
        brain_mask=mask,
        mask=mask,
        reference=Zero(reference, mask if reference == "whole_brain" else zero, 0.0125, 0.025),
        timings={"inversion": 1.5},
        quality={"snr": 42.0},
        warnings=("a map made by hand",),
    )


def whole_maps(*, trusted: bool = True) -> Maps:
    """The same with everything that maps may hold."""
    given = maps()
    labels = np.zeros(SHAPE, np.uint8)
    for place in range(len(NUCLEI)):
        # Each nucleus one column of voxels wide, from left (high column indices) to right, of growing length.
        labels[9 - place, 4 : 7 + place, 2:5] = place + 1
    found = Regions(NUCLEI, labels, {"correlation": 0.93}, True)
    lost = Regions((), np.zeros_like(labels), {"correlation": 0.31}, False, "the correlation is 0.31, below 0.6")
    return dataclasses.replace(
        given,
        regions=found if trusted else lost,
        quality={**given.quality, "regions.correlation": 0.93},
        swi=given.magnitude * 0.75,
        swi_projection=given.magnitude * 0.5,
        chi_para=np.maximum(given.chi, 0),
        chi_dia=np.minimum(given.chi, 0),
        grade="review",
        grounds=("the field of the sinuses is weak",),
    )


def save(datasets: list[Dataset], folder: Path) -> list[Path]:
    paths = []
    for number, dataset in enumerate(datasets):
        path = folder / f"{number:03d}.dcm"
        dcmwrite(path, dataset, enforce_file_format=True)
        paths.append(path)
    return paths


def dciodvfy_errors(command: Path, path: Path) -> list[str]:
    """The validator's errors on one file, in its words; it must have looked at the object, too."""
    found = subprocess.run([command, path], capture_output=True, text=True, errors="replace", check=False)
    lines = (found.stdout + found.stderr).splitlines()
    assert any(line in IODS for line in lines), lines
    return [line for line in lines if line.startswith("Error")]
