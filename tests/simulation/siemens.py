"""The simulated head as a Siemens scanner's classic MR Image Storage files: one series of magnitude, one of phase."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tests.simulation import header
from tests.simulation.head import SimulatedHead
from tests.simulation.tissue import READOUT_TAIL

PHASE_SLOPE, PHASE_INTERCEPT = 2, -4096
RADIAN = np.pi / 4096
"""12 bit phase: stored · 2 − 4096, of which 4096 is π."""

MAGNITUDE_SERIES, PHASE_SERIES = 5, 6


def write_siemens(
    head: SimulatedHead,
    folder: Path,
    *,
    seed: int | None = None,
    rescale: bool = True,
    interoperability: bool = False,
) -> list[Path]:
    """Writes echoes × slices × {magnitude, phase} files; returns them in the order in which a scanner sends them.

    seed: decides patient and UIDs (the head's own unless given).  rescale: False leaves Rescale Slope and Intercept out
    of the phase, as some exports do.  interoperability: what XA writes as "interoperability" export: a series for each
    echo, DIS2D and MFSPLIT in Image Type, Echo Numbers empty.
    """
    study = header.Study(head.seed if seed is None else seed)
    acquisition = head.acquisition
    magnitude = header.stored_magnitude(head)
    phase = header.stored_phase(acquisition.phase, PHASE_SLOPE, PHASE_INTERCEPT, RADIAN)
    echoes, slices = len(acquisition.echo_times), acquisition.geometry.shape[2]
    paths = []
    for component, stored, first in (("M", magnitude, MAGNITUDE_SERIES), ("P", phase, PHASE_SERIES)):
        for echo in range(echoes):
            series = first + 2 * echo if interoperability else first
            for k in range(slices):
                number = k + 1 if interoperability else echo * slices + k + 1
                d = study.dataset(series, number)
                _describe(d, head, component, echo, interoperability)
                header.add_plane(d, head, k)
                header.add_pixels(d, stored[echo, :, :, k])
                if component == "P" and rescale:
                    d.RescaleSlope, d.RescaleIntercept, d.RescaleType = PHASE_SLOPE, PHASE_INTERCEPT, "US"
                d.WindowCenter, d.WindowWidth = ("600", "1400") if component == "M" else ("0", "8192")
                if component == "P" and not rescale:
                    d.WindowCenter, d.WindowWidth = "2048", "4096"
                paths.append(header.save(d, folder / f"{series:04d}" / f"IM{number:05d}.dcm"))
    return paths


def _describe(d: Dataset, head: SimulatedHead, component: str, echo: int, interoperability: bool) -> None:
    """Equipment, series and MR image modules as VE11 and, by `interoperability`, XA fill them."""
    acquisition = head.acquisition
    x, y, _ = acquisition.geometry.shape
    d.ImageType = ["ORIGINAL", "PRIMARY", component, *(("DIS2D", "MFSPLIT") if interoperability else ("ND",))]
    d.Manufacturer = "SIEMENS" if not interoperability else "Siemens Healthineers"
    d.ManufacturerModelName = "Prisma"
    d.SoftwareVersions = "syngo MR E11" if not interoperability else "syngo MR XA30"
    d.SeriesDescription = "gre_qsm" + ("_Pha" if interoperability and component == "P" else "")
    d.ProtocolName = "gre_qsm"
    d.ScanningSequence = "GR"
    d.SequenceVariant = ["SP", "OSP"]
    d.ScanOptions = None
    d.MRAcquisitionType = "3D"
    d.SequenceName = f"*fl3d{len(acquisition.echo_times)}r"
    d.RepetitionTime = header.decimal(1e3 * (acquisition.echo_times[-1] + READOUT_TAIL))
    d.EchoTime = header.decimal(header.echo_time_ms(acquisition.echo_times[echo]))
    d.EchoNumbers = None if interoperability else echo + 1
    d.EchoTrainLength = 1
    d.NumberOfAverages = 1
    d.ImagingFrequency = header.decimal(header.imaging_frequency_mhz(head))
    d.ImagedNucleus = "1H"
    d.MagneticFieldStrength = header.decimal(header.nominal_field_strength(head))
    d.NumberOfPhaseEncodingSteps = x
    d.PercentSampling = d.PercentPhaseFieldOfView = "100"
    d.PixelBandwidth = "280"
    d.FlipAngle = "15"
    d.AcquisitionMatrix = [y, 0, 0, x]
    d.InPlanePhaseEncodingDirection = "ROW"
    d.TransmitCoilName = "Body"
    d.AcquisitionNumber = 1
    d.LossyImageCompression = "00"
