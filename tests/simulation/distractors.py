"""What else an examination holds and a QSM node must leave alone: one small object or series of each kind.

All belong to the study of the same seed, so that only their own attributes tell them from the gradient echo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from tests.simulation import header
from tests.simulation.head import SimulatedHead
from tests.simulation.siemens import PHASE_INTERCEPT, PHASE_SLOPE

SLICES = 3
"""Slices of each foreign series: enough to be a series."""


def write_distractors(head: SimulatedHead, folder: Path, *, seed: int | None = None) -> dict[str, list[Path]]:
    """Writes "localizer", "t1", "diffusion", "phase_difference", "field_map_hz", "minimum_intensity" and "capture"."""
    study = header.Study(head.seed if seed is None else seed)
    writers = {
        "localizer": (1, _localizer),
        "t1": (2, _t1),
        "diffusion": (3, _diffusion),
        "phase_difference": (4, _phase_difference),
        "field_map_hz": (14, _field_map_hz),
        "minimum_intensity": (15, _minimum_intensity),
    }
    magnitude = header.stored_magnitude(head)[0]
    written = {}
    for name, (series, describe) in writers.items():
        paths = []
        for k in range(SLICES):
            d = study.dataset(series, k + 1)
            _image(d, head, k)
            header.add_pixels(d, magnitude[:, :, k])
            describe(d, head)
            paths.append(header.save(d, folder / name / f"IM{k + 1:05d}.dcm"))
        written[name] = paths
    written["capture"] = [_capture(study, head, folder / "capture" / "IM00001.dcm")]
    return written


def _image(d: Dataset, head: SimulatedHead, k: int) -> None:
    """A single-echo gradient echo's plane: what all of them share before they differ."""
    header.add_plane(d, head, k)
    d.Manufacturer = "SIEMENS"
    d.ManufacturerModelName = "Prisma"
    d.SoftwareVersions = "syngo MR E11"
    d.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    d.ScanningSequence, d.SequenceVariant, d.ScanOptions = "GR", ["SP", "OSP"], None
    d.MRAcquisitionType = "2D"
    d.RepetitionTime, d.EchoTime, d.FlipAngle = "8.6", "4", "20"
    d.EchoNumbers, d.EchoTrainLength = 1, 1
    d.ImagingFrequency = header.decimal(header.imaging_frequency_mhz(head))
    d.ImagedNucleus = "1H"
    d.MagneticFieldStrength = header.decimal(header.nominal_field_strength(head))
    d.WindowCenter, d.WindowWidth = "600", "1400"
    d.AcquisitionNumber = 1


def _localizer(d: Dataset, head: SimulatedHead) -> None:
    d.SeriesDescription = d.ProtocolName = "localizer"
    d.SequenceName = "*fl2d1"
    d.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]


def _t1(d: Dataset, head: SimulatedHead) -> None:
    """MPRAGE: a gradient echo with inversion, magnitude alone."""
    d.SeriesDescription = d.ProtocolName = "t1_mprage_sag"
    d.SequenceName = "*tfl3d1_16ns"
    d.ScanningSequence, d.SequenceVariant, d.ScanOptions = ["GR", "IR"], ["SP", "MP"], "IR"
    d.MRAcquisitionType = "3D"
    d.RepetitionTime, d.EchoTime, d.InversionTime, d.FlipAngle = "2300", "2.98", "900", "9"
    d.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]


def _diffusion(d: Dataset, head: SimulatedHead) -> None:
    d.SeriesDescription = d.ProtocolName = "ep2d_diff_mddw"
    d.SequenceName = "*ep_b1000#1"
    d.ScanningSequence, d.SequenceVariant, d.ScanOptions = "EP", ["SK", "SP"], ["PFP", "FS"]
    d.RepetitionTime, d.EchoTime, d.FlipAngle = "7800", "89", "90"
    d.EchoTrainLength = 80
    d.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND", "NORM"]


def _phase_difference(d: Dataset, head: SimulatedHead) -> None:
    """What Siemens' gre_field_mapping gives: one phase image for two echoes, which says the second's echo time."""
    acquisition = head.acquisition
    k = int(d.InstanceNumber) - 1
    difference = np.angle(np.exp(1j * (acquisition.phase[-1, :, :, k] - acquisition.phase[0, :, :, k])))
    header.add_pixels(d, header.stored_phase(difference.astype(np.float32), PHASE_SLOPE, PHASE_INTERCEPT, np.pi / 4096))
    d.SeriesDescription = d.ProtocolName = "gre_field_mapping"
    d.SequenceName = "*fm2d2r"
    d.RepetitionTime, d.EchoTime, d.FlipAngle = "488", "7.38", "60"
    d.EchoNumbers = 2
    d.ImageType = ["ORIGINAL", "PRIMARY", "P", "ND"]
    d.RescaleSlope, d.RescaleIntercept, d.RescaleType = PHASE_SLOPE, PHASE_INTERCEPT, "US"
    d.WindowCenter, d.WindowWidth = "0", "8192"


def _field_map_hz(d: Dataset, head: SimulatedHead) -> None:
    """A vendor's field map in Hz: echo time 0 and a unit of its own."""
    k = int(d.InstanceNumber) - 1
    hertz = head.field[:, :, k] * 1e-6 * head.acquisition.larmor_frequency
    header.add_pixels(d, np.clip(np.round(hertz + 2048), 0, 4095).astype(np.uint16))
    d.Manufacturer, d.ManufacturerModelName, d.SoftwareVersions = "Philips", "Ingenia Elition X", "5.7.1"
    d.SeriesDescription = d.ProtocolName = "B0 map"
    d.ImageType = ["DERIVED", "PRIMARY", "B0", "B0", "UNSPECIFIED"]
    d.EchoTime = "0"
    d.RescaleSlope, d.RescaleIntercept, d.RescaleType = "1", "-2048", "Hz"
    d.WindowCenter, d.WindowWidth = "0", "400"


def _minimum_intensity(d: Dataset, head: SimulatedHead) -> None:
    """Susceptibility weighting: the projection that the scanner derives from the same echoes."""
    d.SeriesDescription = d.ProtocolName = "mIP_Images(SW)"
    d.SequenceName = "*swi3d1r"
    d.MRAcquisitionType = "3D"
    d.RepetitionTime, d.EchoTime, d.FlipAngle = "28", "20", "15"
    d.ImageType = ["DERIVED", "PRIMARY", "MNIP", "SWI", "NORM"]


def _capture(study: header.Study, head: SimulatedHead, path: Path) -> Path:
    """A screen that somebody saved: the middle slice as 8 bit, no geometry."""
    d = study.dataset(99, 1, SecondaryCaptureImageStorage)
    for name in ("FrameOfReferenceUID", "PositionReferenceIndicator", "AcquisitionDate", "AcquisitionTime"):
        delattr(d, name)
    middle = head.acquisition.magnitude[0, :, :, head.acquisition.geometry.shape[2] // 2]
    screen = np.clip(middle / np.percentile(middle, 99) * 255, 0, 255).astype(np.uint8).T
    d.ConversionType = "WSD"
    d.ImageType = ["DERIVED", "SECONDARY"]
    d.SeriesDescription = "Screen"
    d.PatientOrientation = None
    d.Manufacturer = "Simulated"
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = screen.shape
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8, 8, 7, 0
    d.BurnedInAnnotation = "NO"
    pixels = screen.tobytes()
    d.PixelData = pixels + bytes(len(pixels) % 2)
    d["PixelData"].VR = "OB"
    return header.save(d, path)
