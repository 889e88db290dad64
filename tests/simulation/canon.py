"""The simulated head as Canon writes it: an Enhanced MR object of magnitude and one of phase; classic without a marker.

How sure each fact is: [M] measured on real files, [S] in a standard or in another reader's source, [?] not verified.

- Nothing in a classic object tells magnitude from phase; the enhanced one has ComplexImageComponent [M, on magnitude].
- Manufacturer CANON_MEC, GDC (distortion correction) in ImageType [S: dcm_qa_canon_61].
- Scale and sign of the phase [?]: here radian, as a Real World Value Mapping says, and not conjugated.  Without the
  mapping nothing says what the numbers mean, and a reader must not guess.
- That each component is a series [?].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tests.simulation import enhanced, header
from tests.simulation.frames import Component, add_frames
from tests.simulation.generic import RADIAN
from tests.simulation.head import SimulatedHead

MAGNITUDE_SERIES, PHASE_SERIES = 4000, 4001
PHASE_SLOPE, PHASE_INTERCEPT = 2 * np.pi / 4096, -np.pi
IMAGE_TYPE = ("ORIGINAL", "PRIMARY", "GDC", "NONE")


def write_canon(head: SimulatedHead, folder: Path, *, seed: int | None = None, unit: bool = True) -> list[Path]:
    """Writes two enhanced objects.  unit: False leaves out the Real World Value Mapping that gives the phase's."""
    study = header.Study(head.seed if seed is None else seed)
    phase = header.stored_phase(head.acquisition.phase, PHASE_SLOPE, PHASE_INTERCEPT, 1)
    scale = (PHASE_SLOPE, PHASE_INTERCEPT) if unit else (1, 0)
    paths = []
    for series, component in (
        (
            MAGNITUDE_SERIES,
            Component("MAGNITUDE", header.stored_magnitude(head), (1, 0), IMAGE_TYPE, None, (600, 1400)),
        ),
        (PHASE_SERIES, Component("PHASE", phase, scale, IMAGE_TYPE, RADIAN if unit else None, (0, 6))),
    ):
        d = enhanced.enhanced_mr(study, head, series, IMAGE_TYPE, component.name)
        d.AcquisitionDateTime = f"{header.DATE}{header.series_time(MAGNITUDE_SERIES)}"
        _describe(d)
        d.PulseSequenceName = "FE3D_ME"
        add_frames(d, study, head, [component])
        paths.append(header.save(d, folder / f"{series}.dcm"))
    return paths


def write_canon_classic(head: SimulatedHead, folder: Path, *, seed: int | None = None) -> list[Path]:
    """Writes the classic export: the phase looks to every header like a second magnitude."""
    study = header.Study(head.seed if seed is None else seed)
    phase = header.stored_phase(head.acquisition.phase, PHASE_SLOPE, PHASE_INTERCEPT, 1)
    paths = []
    for series, stored in ((MAGNITUDE_SERIES, header.stored_magnitude(head)), (PHASE_SERIES, phase)):
        for echo in range(len(head.acquisition.echo_times)):
            for k in range(head.acquisition.geometry.shape[2]):
                number = echo * head.acquisition.geometry.shape[2] + k + 1
                d = study.dataset(series, number)
                d.SOPInstanceUID = study.uid("classic", series, number)
                d.AcquisitionTime = header.series_time(MAGNITUDE_SERIES)
                header.describe_gradient_echo(d, head, echo)
                _describe(d)
                d.ImageType = ["ORIGINAL", "PRIMARY", "GDC"]
                header.add_plane(d, head, k)
                header.add_pixels(d, stored[echo, :, :, k])
                d.WindowCenter, d.WindowWidth = "2048", "4096"
                paths.append(header.save(d, folder / f"{series}" / f"{number:05d}.dcm"))
    return paths


def _describe(d: Dataset) -> None:
    """Equipment and series."""
    d.Manufacturer = "CANON_MEC"
    d.ManufacturerModelName = "Galan 3T"
    d.SoftwareVersions = "V6.1SP3002*"
    d.SeriesDescription = d.ProtocolName = "QSM_FE3D"
