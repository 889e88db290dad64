"""The simulated head as Philips writes it: magnitude and phase in one series, phase in milliradian.

The attributes follow an Ingenia of software 5.7 (classic and enhanced export of one scan).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.simulation import enhanced, header
from tests.simulation.enhanced import EnhancedFrame, private
from tests.simulation.head import SimulatedHead
from tests.simulation.tissue import READOUT_TAIL

SERIES = 2001
PHASE_SLOPE, PHASE_INTERCEPT = 6284 / 4095, -3142
"""12 bit phase in milliradian: 1.53455… and −3142."""
RADIAN = 1e-3
MAGNITUDE_SLOPE = 1.29157509157509
IMAGE_TYPE_INDEX = {"M": 0, "P": 3}
"""Philips' number for magnitude and phase in its private dimension."""


def write_philips(head: SimulatedHead, folder: Path, *, seed: int | None = None) -> list[Path]:
    """Writes classic MR Image Storage files of one series: all magnitude, then all phase; echoes within each slice."""
    study = header.Study(head.seed if seed is None else seed)
    echoes, slices = len(head.acquisition.echo_times), head.acquisition.geometry.shape[2]
    paths = []
    number = 0
    for letter, stored in _stored(head).items():
        for k in range(slices):
            for echo in range(echoes):
                number += 1
                d = study.dataset(SERIES, number)
                _describe(d)
                _describe_image(d, head, letter, echo)
                header.add_plane(d, head, k)
                header.add_pixels(d, stored[echo, :, :, k])
                d[0x2001100A].value = str(k + 1)
                paths.append(header.save(d, folder / f"{SERIES}_{number:04d}.dcm"))
    return paths


def write_philips_enhanced(head: SimulatedHead, folder: Path, *, seed: int | None = None) -> list[Path]:
    """Writes one Enhanced MR object, of the same series as the classic export of the same seed."""
    study = header.Study(head.seed if seed is None else seed)
    echoes, slices = len(head.acquisition.echo_times), head.acquisition.geometry.shape[2]
    d = enhanced.enhanced_mr(study, head, SERIES, ("ORIGINAL", "PRIMARY", "T1", "MIXED"), "MIXED")
    d.SOPInstanceUID = study.uid("enhanced", SERIES)
    _describe(d)
    d.PulseSequenceName = "T1FFE"
    kind = enhanced.pointer(0x20051011, 0x2005140F, "Private ImageTypeMR")
    kind.DimensionIndexPrivateCreator = "Philips MR Imaging DD 001"
    kind.FunctionalGroupPrivateCreator = "Philips MR Imaging DD 005"
    enhanced.add_dimensions(
        d,
        study,
        (
            enhanced.pointer(enhanced.STACK_ID, enhanced.FRAME_CONTENT, "Stack ID"),
            enhanced.pointer(enhanced.IN_STACK_POSITION, enhanced.FRAME_CONTENT, "In-Stack Position Number"),
            kind,
            enhanced.pointer(enhanced.EFFECTIVE_ECHO_TIME, enhanced.MR_ECHO, "Effective Echo Time"),
        ),
    )
    groups, planes = [], []
    for letter, stored in _stored(head).items():
        for k in range(slices):
            for echo in range(echoes):
                groups.append(_frame(d, head, letter, k, echo))
                planes.append(stored[echo, :, :, k])
    d.PerFrameFunctionalGroupsSequence = groups
    header.add_pixels(d, np.stack(planes))
    return [header.save(d, folder / f"{SERIES}_enhanced.dcm")]


def _stored(head: SimulatedHead) -> dict[str, NDArray[np.uint16]]:
    return {
        "M": header.stored_magnitude(head),
        "P": header.stored_phase(head.acquisition.phase, PHASE_SLOPE, PHASE_INTERCEPT, RADIAN),
    }


def _describe(d: Dataset) -> None:
    """Equipment and series."""
    d.Manufacturer = "Philips"
    d.ManufacturerModelName = "Ingenia Elition X"
    d.SoftwareVersions = ["5.7.1", "5.7.1.1"]
    d.SeriesDescription = "QSM mFFE"
    d.ProtocolName = "WIP QSM mFFE"


def _describe_image(d: Dataset, head: SimulatedHead, letter: str, echo: int) -> None:
    """The MR image module of a classic object with Philips' private elements."""
    acquisition = head.acquisition
    x, y, slices = acquisition.geometry.shape
    d.ImageType = ["ORIGINAL", "PRIMARY", "M_FFE" if letter == "M" else "PHASE MAP", letter, "FFE"]
    d.ScanningSequence = "GR"
    d.SequenceVariant = "SP"
    d.ScanOptions = "FC"
    d.MRAcquisitionType = "3D"
    d.RepetitionTime = header.decimal(1e3 * (acquisition.echo_times[-1] + READOUT_TAIL))
    d.EchoTime = header.decimal(header.echo_time_ms(acquisition.echo_times[echo]))
    d.EchoNumbers = echo + 1
    d.EchoTrainLength = len(acquisition.echo_times)
    d.NumberOfAverages = 1
    d.ImagingFrequency = header.decimal(header.imaging_frequency_mhz(head))
    d.ImagedNucleus = "1H"
    d.MagneticFieldStrength = header.decimal(header.nominal_field_strength(head))
    d.NumberOfPhaseEncodingSteps = x
    d.PercentSampling = d.PercentPhaseFieldOfView = "100"
    d.PixelBandwidth = "280"
    d.FlipAngle = "15"
    d.AcquisitionMatrix = [x, 0, 0, y]
    d.InPlanePhaseEncodingDirection = "COL"
    d.AcquisitionNumber = SERIES // 100
    d.TemporalPositionIdentifier = 1
    d.NumberOfTemporalPositions = 1
    d.LossyImageCompression = "00"
    slope, intercept, kind, window = _rescale(letter, "mrad", "normalized")
    d.RescaleSlope, d.RescaleIntercept, d.RescaleType = header.decimal(slope), header.decimal(intercept), kind
    d.WindowCenter, d.WindowWidth = window
    d.RealWorldValueMappingSequence = [_real_world(letter)]
    d.add(private(0x2001, 0x0010, "LO", "Philips Imaging DD 001"))
    d.add(private(0x2001, 0x100A, "IS", "0"))
    d.add(private(0x2001, 0x1014, "SL", len(acquisition.echo_times)))
    d.add(private(0x2001, 0x1018, "SL", slices))
    d.add(private(0x2001, 0x1020, "LO", "T1FFE"))
    _add_private_scale(d, letter)


def _frame(d: Dataset, head: SimulatedHead, letter: str, k: int, echo: int) -> Dataset:
    slope, intercept, kind, window = _rescale(letter, "US", "US")
    frame = EnhancedFrame(
        slice_index=k,
        echo=echo,
        component="MAGNITUDE" if letter == "M" else "PHASE",
        frame_type=("ORIGINAL", "PRIMARY", "T1", letter),
        index=(1, k + 1, IMAGE_TYPE_INDEX[letter], echo + 1),
        rescale=(slope, intercept, kind),
        window=window,
    )
    groups = enhanced.per_frame(d, head, frame)
    groups.RealWorldValueMappingSequence = [_real_world(letter)]
    vendor = Dataset()
    _add_private_scale(vendor, letter)
    groups.add(private(0x2005, 0x0014, "LO", "Philips MR Imaging DD 005"))
    groups.add(private(0x2005, 0x140F, "SQ", [vendor]))
    return groups


def _rescale(letter: str, phase_type: str, magnitude_type: str) -> tuple[float, float, str, tuple[int, int]]:
    """Slope, intercept, Rescale Type and window."""
    if letter == "P":
        return PHASE_SLOPE, PHASE_INTERCEPT, phase_type, (0, 6284)
    return MAGNITUDE_SLOPE, 0, magnitude_type, (900, 1600)


def _real_world(letter: str) -> Dataset:
    """The only place where the enhanced object says that its phase is in milliradian."""
    slope, intercept, _, _ = _rescale(letter, "", "")
    value, meaning = ("mrad", "milliradian") if letter == "P" else ("1", "no units")
    unit, mapping = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = value, "UCUM", meaning
    mapping.LUTExplanation = f"Real World Value Mapping for {'mrad' if letter == 'P' else 'normalized'}"
    mapping.LUTLabel = "Philips"
    mapping.MeasurementUnitsCodeSequence = [unit]
    mapping.add(private(0x0040, 0x9216, "US", 0))
    mapping.add(private(0x0040, 0x9211, "US", 4095))
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = float(intercept), float(slope)
    return mapping


def _add_private_scale(d: Dataset, letter: str) -> None:
    """The private "scale slope" (2005,100E), which has nothing to do with phase, and the private image type."""
    d.add(private(0x2005, 0x0010, "LO", "Philips MR Imaging DD 001"))
    d.add(private(0x2005, 0x100D, "FL", 0.0))
    d.add(private(0x2005, 0x100E, "FL", 1.0 if letter == "P" else 2.38e-4))
    d.add(private(0x2005, 0x1011, "CS", letter))
