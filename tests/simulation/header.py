"""What every object of a simulated study says alike: an invented patient, the study, the grid of the patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from reconstruction.acquisition import GYROMAGNETIC_RATIO, FloatArray
from tests.simulation.head import SimulatedHead
from tests.simulation.tissue import READOUT_TAIL

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
DATE = "20240229"


@dataclass(frozen=True)
class Study:
    """One invented examination; equal seeds give equal UIDs."""

    seed: int = 1

    def uid(self, *parts: object) -> UID:
        """A UID that this study's seed and `parts` determine."""
        return generate_uid(entropy_srcs=["simulated head", str(self.seed), *(str(part) for part in parts)])

    def dataset(self, series_number: int, instance_number: int, sop_class: UID = MRImageStorage) -> Dataset:
        """Patient, study, series, frame of reference, equipment and SOP common modules."""
        d = Dataset()
        d.SpecificCharacterSet = "ISO_IR 192"
        d.SOPClassUID = sop_class
        d.SOPInstanceUID = self.uid("instance", series_number, instance_number)
        d.PatientName = f"Simulated^Head {self.seed}"
        d.PatientID = f"SIM-{self.seed:04d}"
        d.PatientBirthDate = "19700101"
        d.PatientSex = "O"
        d.PatientAge = "054Y"
        d.PatientWeight = "70"
        d.StudyInstanceUID = self.uid("study")
        d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = DATE
        d.StudyTime = "101500"
        d.SeriesTime = d.AcquisitionTime = d.ContentTime = series_time(series_number)
        d.StudyID = "1"
        d.AccessionNumber = f"SIM{self.seed:05d}"
        d.ReferringPhysicianName = None
        d.StudyDescription = "Simulated brain"
        d.Modality = "MR"
        d.SeriesInstanceUID = self.uid("series", series_number)
        d.SeriesNumber = series_number
        d.InstanceNumber = instance_number
        d.PatientPosition = "HFS"
        d.BodyPartExamined = "BRAIN"
        d.FrameOfReferenceUID = self.uid("frame of reference")
        d.PositionReferenceIndicator = None
        d.InstitutionName = "Simulated"
        d.DeviceSerialNumber = "0"
        return d


def series_time(series_number: int) -> str:
    """When a series began, DICOM TM."""
    return f"10{20 + series_number % 40:02d}00.000000"


def echo_time_ms(seconds: float) -> float:
    return round(1e3 * seconds, 4)


def imaging_frequency_mhz(head: SimulatedHead) -> float:
    return round(head.acquisition.larmor_frequency * 1e-6, 6)


def nominal_field_strength(head: SimulatedHead) -> float:
    """What the badge says (3 T where the magnet has 2.895)."""
    tesla = head.acquisition.larmor_frequency / GYROMAGNETIC_RATIO
    return float(min((0.55, 1.0, 1.5, 3.0, 7.0), key=lambda badge: abs(badge - tesla)))


def position(head: SimulatedHead, slice_index: int) -> list[float]:
    """ImagePositionPatient of a slice, mm."""
    corner = head.affine @ [0, 0, slice_index, 1]
    return [float(c) for c in RAS_TO_LPS @ corner[:3]]


def orientation(head: SimulatedHead) -> list[float]:
    """ImageOrientationPatient: along a row (x), then down a column (y)."""
    axes = RAS_TO_LPS @ head.affine[:3, :3] / head.acquisition.geometry.voxel_size
    return [float(c) for c in (*axes[:, 0], *axes[:, 1])]


def add_plane(d: Dataset, head: SimulatedHead, slice_index: int) -> None:
    """The image plane module of a classic object, with the spacing between slices beside it."""
    x, y, z = head.acquisition.geometry.voxel_size
    normal = np.cross(orientation(head)[:3], orientation(head)[3:])
    d.ImagePositionPatient = [decimal(c) for c in position(head, slice_index)]
    d.ImageOrientationPatient = [decimal(c) for c in orientation(head)]
    d.PixelSpacing = [decimal(y), decimal(x)]
    d.SliceThickness = decimal(z)
    d.SpacingBetweenSlices = decimal(z)
    d.SliceLocation = decimal(float(normal @ position(head, slice_index)))


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters."""
    return str(format_number_as_ds(float(value) + 0.0))


def describe_gradient_echo(d: Dataset, head: SimulatedHead, echo: int) -> None:
    """The MR image module of a classic object: what every vendor says of a 3D multi-echo gradient echo."""
    acquisition = head.acquisition
    x, y, _ = acquisition.geometry.shape
    d.ScanningSequence, d.SequenceVariant, d.ScanOptions = "GR", "SP", None
    d.MRAcquisitionType = "3D"
    d.RepetitionTime = decimal(1e3 * (acquisition.echo_times[-1] + READOUT_TAIL))
    d.EchoTime = decimal(echo_time_ms(acquisition.echo_times[echo]))
    d.EchoNumbers = echo + 1
    d.EchoTrainLength = len(acquisition.echo_times)
    d.NumberOfAverages = 1
    d.ImagingFrequency = decimal(imaging_frequency_mhz(head))
    d.ImagedNucleus = "1H"
    d.MagneticFieldStrength = decimal(nominal_field_strength(head))
    d.NumberOfPhaseEncodingSteps = x
    d.PercentSampling = d.PercentPhaseFieldOfView = "100"
    d.PixelBandwidth = "280"
    d.FlipAngle = "15"
    d.AcquisitionMatrix = [y, 0, 0, x]
    d.InPlanePhaseEncodingDirection = "ROW"
    d.AcquisitionNumber = 1
    d.LossyImageCompression = "00"


def add_pixels(d: Dataset, stored: NDArray[np.uint16] | NDArray[np.int16], bits: int = 12) -> None:
    """stored: (x, y), or (frame, x, y) for an enhanced object; written row by row, signed where it is signed."""
    rows_first = np.ascontiguousarray(np.swapaxes(stored, -1, -2))
    if rows_first.ndim == 3:
        d.NumberOfFrames = rows_first.shape[0]
    d.SamplesPerPixel = 1
    d.PhotometricInterpretation = "MONOCHROME2"
    d.Rows, d.Columns = rows_first.shape[-2:]
    d.BitsAllocated = 16
    d.BitsStored = bits
    d.HighBit = bits - 1
    d.PixelRepresentation = int(stored.dtype.kind == "i")
    d.PixelData = rows_first.astype(f"<{stored.dtype.kind}2").tobytes()


def stored_magnitude(head: SimulatedHead) -> NDArray[np.uint16]:
    """12 bit (echo, x, y, z), one scale for all echoes; the brightest tenth of a per mille saturates."""
    return np.clip(np.round(head.acquisition.magnitude * magnitude_scale(head)), 0, 4095).astype(np.uint16)


def magnitude_scale(head: SimulatedHead) -> float:
    """Stored units of 12 bits in one unit of the head's magnitude."""
    return float(4000 / np.percentile(head.acquisition.magnitude[0], 99.99))


def stored_phase(phase: FloatArray, slope: float, intercept: float, radian: float) -> NDArray[np.uint16]:
    """12 bit such that (stored · slope + intercept) · radian is the phase; what rounds beyond the range saturates."""
    return np.clip(np.round((phase / radian - intercept) / slope), 0, 4095).astype(np.uint16)


def save(d: Dataset, path: Path) -> Path:
    """Writes a Part 10 file, explicit VR little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = d.SOPClassUID
    meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    FileDataset(str(path), d, file_meta=meta, preamble=bytes(128)).save_as(path, enforce_file_format=True)
    return path
