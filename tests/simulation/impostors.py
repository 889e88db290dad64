"""What looks like the multi-echo phase that a QSM node wants and is none: small series, each as its vendor writes it.

All belong to the study of the same seed.  How sure each fact is stands with each writer: [M] measured on real files,
[S] in a standard or in another reader's source, [?] not verified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from reconstruction.acquisition import FloatArray
from tests.simulation import enhanced, header, siemens
from tests.simulation.frames import Component, add_frames
from tests.simulation.head import SimulatedHead
from tests.simulation.philips import RADIAN as MILLIRADIAN
from tests.simulation.scenes import slices_of

SLICES = 3
"""Slices of each series, from the middle: enough to be a volume."""

HERTZ = ("Hz", "Hertz")
FILTER_MM = 6.0
"""SD of the low pass that susceptibility weighting divides the signal by."""

Writer = Callable[[SimulatedHead, header.Study, Path], list[Path]]


def write_impostors(head: SimulatedHead, folder: Path, *, seed: int | None = None) -> dict[str, list[Path]]:
    """Writes a folder for each key of IMPOSTORS."""
    study = header.Study(head.seed if seed is None else seed)
    first = (head.acquisition.geometry.shape[2] - SLICES) // 2
    head = slices_of(head, slice(first, first + SLICES))
    return {name: write(head, study, folder / name) for name, write in IMPOSTORS.items()}


def _plane(study: header.Study, head: SimulatedHead, series: int, number: int, echo: int, k: int) -> Dataset:
    d = study.dataset(series, number)
    header.describe_gradient_echo(d, head, echo)
    header.add_plane(d, head, k)
    d.WindowCenter, d.WindowWidth = "0", "4096"
    return d


def _hertz(head: SimulatedHead) -> FloatArray:
    hertz: FloatArray = head.field * np.float32(1e-6 * head.acquisition.larmor_frequency)
    return hertz


# GE


def _ge_field_map(head: SimulatedHead, study: header.Study, folder: Path) -> list[Path]:
    """B0map: first the field in Hz, then the magnitude, in one series, (0043,102F) = 0 on both [M].

    ScanningSequence RM, ImageType OTHER, the first echo's time [S: dcm_qa_fmap]; the name of the sequence in
    (0019,xx9C) alone tells it [S: dcm2niix #501].
    """
    magnitude = header.stored_magnitude(head)[0]
    paths = []
    for stored in (np.round(_hertz(head)).astype(np.int16), magnitude.astype(np.int16)):
        for k in range(SLICES):
            number = len(paths) + 1
            d = _plane(study, head, 71, number, 0, k)
            d.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
            d.Manufacturer, d.ManufacturerModelName = "GE MEDICAL SYSTEMS", "SIGNA Architect"
            d.SoftwareVersions = ["27", "LX", "MR Software release:DV27.0_R01_1850.a"]
            d.SeriesDescription, d.ProtocolName = "B0map", "CV_Neuro_HH_Adv"
            d.ScanningSequence, d.SequenceVariant, d.ScanOptions = "RM", "NONE", "VB_GEMS"
            d.MRAcquisitionType, d.EchoTrainLength = "2D", 1
            names = d.private_block(0x0019, "GEMS_ACQU_01", create=True)
            names.add_new(0x9C, "LO", "3db0map")
            names.add_new(0x9E, "LO", "EFGRE3D")
            d.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", 0)
            header.add_pixels(d, stored[:, :, k], bits=16)
            paths.append(header.save(d, folder / f"{number:03d}.dcm"))
    return paths


# Philips


def _philips(d: Dataset) -> None:
    d.Manufacturer, d.ManufacturerModelName = "Philips", "Achieva dStream"
    d.SoftwareVersions = ["5.3.0", "5.3.0.3"]


def _philips_field_map(head: SimulatedHead, study: header.Study, folder: Path) -> list[Path]:
    """One enhanced object: magnitude, and frames of a field map whose unit, Hz, stands in their mapping only.

    FIELD_MAP, echo time 0, unit [M]; slope and intercept of ±500 Hz [S: dcm_qa_fmap]; component REAL [?].
    """
    slope, intercept = 1000 / 4095, -500.0
    field = header.stored_phase(_hertz(head)[None], slope, intercept, 1)
    image_type, map_type = ("ORIGINAL", "PRIMARY", "T1", "MIXED"), ("ORIGINAL", "PRIMARY", "FIELD_MAP", "NONE")
    d = enhanced.enhanced_mr(study, head, 801, image_type, "MIXED")
    _philips(d)
    d.SeriesDescription, d.ProtocolName, d.PulseSequenceName = "B0 NS", "WIP B0 NS", "T1FFE"
    first = _of_one_echo(head)
    magnitude = Component(
        "MAGNITUDE", header.stored_magnitude(first), (1, 0), (*image_type[:3], "NONE"), ("1", "no units"), (600, 1400)
    )
    add_frames(d, study, first, [magnitude, Component("REAL", field, (slope, intercept), map_type, HERTZ, (0, 1000))])
    for group in d.PerFrameFunctionalGroupsSequence:
        if group.MRImageFrameTypeSequence[0].ComplexImageComponent == "REAL":
            group.MREchoSequence[0].EffectiveEchoTime = 0.0
    return [header.save(d, folder / "801.dcm")]


def _philips_b0_classic(head: SimulatedHead, study: header.Study, folder: Path) -> list[Path]:
    """The same map as classic objects of release 11: B0 third in ImageType, where release 5 said "B0 MAP".

    ImageType [S: dcm2niix #455]; an echo time other than 0 and no unit but the mapping's [?].
    """
    slope, intercept = 1000 / 4095, -500.0
    stored = header.stored_phase(_hertz(head), slope, intercept, 1)
    paths = []
    for k in range(SLICES):
        d = _plane(study, head, 802, k + 1, 0, k)
        _philips(d)
        d.SeriesDescription = d.ProtocolName = "B0 map"
        d.ImageType = ["ORIGINAL", "PRIMARY", "B0", "B0", "UNSPECIFIED"]
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = header.decimal(slope), header.decimal(intercept), "US"
        code, mapping = Dataset(), Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = HERTZ[0], "UCUM", HERTZ[1]
        mapping.LUTExplanation, mapping.LUTLabel = "Field map", "Philips"
        mapping.MeasurementUnitsCodeSequence = [code]
        for element, value in ((0x9216, 0), (0x9211, 4095)):
            mapping.add(enhanced.private(0x0040, element, "US", value))
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope, intercept
        d.RealWorldValueMappingSequence = [mapping]
        header.add_pixels(d, stored[:, :, k])
        paths.append(header.save(d, folder / f"{k + 1:03d}.dcm"))
    return paths


def _philips_swi_phase(head: SimulatedHead, study: header.Study, folder: Path) -> list[Path]:
    """SWIp: the filtered phase of every echo, SW_P_FFE in ImageType [M]; in milliradian as phase is [?]."""
    stored = header.stored_phase(_filtered(head), 6284 / 4095, -3142, MILLIRADIAN)
    paths = []
    for echo in range(len(stored)):
        for k in range(SLICES):
            number = len(paths) + 1
            d = _plane(study, head, 803, number, echo, k)
            _philips(d)
            d.SeriesDescription = d.ProtocolName = "SWIp"
            d.ImageType = ["ORIGINAL", "PRIMARY", "SW_P_FFE", "P", "FFE"]
            d.RescaleSlope, d.RescaleIntercept, d.RescaleType = header.decimal(6284 / 4095), "-3142", "mrad"
            header.add_pixels(d, stored[echo, :, :, k])
            paths.append(header.save(d, folder / f"{number:03d}.dcm"))
    return paths


def _of_one_echo(head: SimulatedHead) -> SimulatedHead:
    acquisition = head.acquisition
    return replace(
        head,
        acquisition=replace(
            acquisition,
            magnitude=acquisition.magnitude[:1],
            phase=acquisition.phase[:1],
            echo_times=acquisition.echo_times[:1],
        ),
    )


# Siemens


def _siemens(d: Dataset, component: str, *words: str) -> None:
    d.ImageType = ["ORIGINAL", "PRIMARY", component, *words]
    d.Manufacturer, d.ManufacturerModelName = "SIEMENS", "Prisma"
    d.SoftwareVersions = "syngo MR E11"
    d.EchoTrainLength = 1


def _add_siemens_pixels(d: Dataset, component: str, plane: NDArray[np.uint16]) -> None:
    header.add_pixels(d, plane)
    if component == "P":
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = siemens.PHASE_SLOPE, siemens.PHASE_INTERCEPT, "US"


def _siemens_stored(phase: FloatArray) -> NDArray[np.uint16]:
    return header.stored_phase(phase, siemens.PHASE_SLOPE, siemens.PHASE_INTERCEPT, siemens.RADIAN)


def _siemens_swi_phase(head: SimulatedHead, study: header.Study, folder: Path) -> list[Path]:
    """The "Pha_Images" of susceptibility weighting: high pass filtered, SWI among the words after P [M]."""
    last = len(head.acquisition.echo_times) - 1
    stored = _siemens_stored(_filtered(head))
    paths = []
    for k in range(SLICES):
        d = _plane(study, head, 50, k + 1, last, k)
        d.EchoNumbers = 1
        _siemens(d, "P", "ND", "SWI")
        d.SeriesDescription, d.ProtocolName, d.SequenceName = "Pha_Images", "t2_swi_tra", "*swi3d1r"
        _add_siemens_pixels(d, "P", stored[last, :, :, k])
        paths.append(header.save(d, folder / f"{k + 1:03d}.dcm"))
    return paths


def _siemens_fmri(head: SimulatedHead, study: header.Study, folder: Path) -> list[Path]:
    """Multi-echo EPI with phase, two time points: echoes, magnitude and phase are all there [S: dcm2niix]."""
    stored = {"M": header.stored_magnitude(head), "P": _siemens_stored(head.acquisition.phase)}
    paths = []
    for series, component in ((51, "M"), (52, "P")):
        number = 0
        for repetition in (1, 2):
            for echo in range(len(head.acquisition.echo_times)):
                for k in range(SLICES):
                    number += 1
                    d = _plane(study, head, series, number, echo, k)
                    _siemens(d, component, "ND")
                    d.SeriesDescription, d.ProtocolName = "me_bold", "me_bold"
                    d.SequenceName = "epfid2d3_64"
                    d.ScanningSequence, d.SequenceVariant, d.MRAcquisitionType = "EP", "SK", "2D"
                    d.AcquisitionNumber = repetition
                    d.AcquisitionTime = f"1050{2 * repetition:02d}.000000"
                    _add_siemens_pixels(d, component, stored[component][echo, :, :, k])
                    paths.append(header.save(d, folder / f"{series}" / f"{number:03d}.dcm"))
    return paths


def _siemens_uncombined(head: SimulatedHead, study: header.Study, folder: Path) -> list[Path]:
    """Two coil elements saved apart within a series: only (0051,xx0F) of SIEMENS MR HEADER tells them [S: dicompare].

    Each element has a phase of its own, so that adding or averaging them is wrong.
    """
    acquisition = head.acquisition
    paths = []
    for series, component in ((53, "M"), (54, "P")):
        number = 0
        for coil, offset in (("H1", 0.0), ("H2", 2.0)):
            turned = np.angle(np.exp(1j * (acquisition.phase + offset))).astype(np.float32)
            stored = header.stored_magnitude(head) if component == "M" else _siemens_stored(turned)
            for echo in range(len(acquisition.echo_times)):
                for k in range(SLICES):
                    number += 1
                    d = _plane(study, head, series, number, echo, k)
                    _siemens(d, component, "ND")
                    d.SeriesDescription = d.ProtocolName = "gre_qsm_uncombined"
                    d.SequenceName = "*fl3d3r"
                    d.AcquisitionTime = header.series_time(53)
                    d.private_block(0x0051, "SIEMENS MR HEADER", create=True).add_new(0x0F, "LO", coil)
                    _add_siemens_pixels(d, component, stored[echo, :, :, k])
                    paths.append(header.save(d, folder / f"{series}" / f"{number:03d}.dcm"))
    return paths


def _filtered(head: SimulatedHead) -> FloatArray:
    """The phase that is left when the smooth part of the signal is divided out (Haacke 2004, doi:10.1002/mrm.20198)."""
    acquisition = head.acquisition
    signal = acquisition.magnitude * np.exp(1j * acquisition.phase)
    x, y, _ = acquisition.geometry.voxel_size
    sigma = (0, FILTER_MM / x, FILTER_MM / y, 0)
    smooth = ndimage.gaussian_filter(signal.real, sigma) + 1j * ndimage.gaussian_filter(signal.imag, sigma)
    return np.angle(signal * smooth.conj()).astype(np.float32)


IMPOSTORS: dict[str, Writer] = {
    "ge_field_map": _ge_field_map,
    "philips_field_map": _philips_field_map,
    "philips_b0_classic": _philips_b0_classic,
    "philips_swi_phase": _philips_swi_phase,
    "siemens_swi_phase": _siemens_swi_phase,
    "siemens_fmri": _siemens_fmri,
    "siemens_uncombined": _siemens_uncombined,
}
"""The phase difference of a field mapping and a derived map in Hz are among `distractors`."""
