"""The simulated head as United Imaging writes it: classic MR Image Storage, a series of magnitude and one of phase.

How sure each fact is: [M] measured on real files, [S] in a standard or in another reader's source, [?] not verified.

- ImageType says M or P third, then words of its own (UCA, IF) [S: dcm_qa_uih]; ComplexImageComponent (0008,9208) stands
  in classic objects too [M].
- EchoNumbers is empty, ImagingFrequency is in Hz instead of MHz [M].
- Phase: the smallest to the largest value that the bits can hold, unsigned, is −π to π, without Rescale [S: MEDI].
- The sign is the conjugate of Siemens' [S: MEDI alone].
- That magnitude and phase have a series each, and 12 bits [?].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tests.simulation import header
from tests.simulation.head import SimulatedHead

MAGNITUDE_SERIES, PHASE_SERIES = 301, 302
LARGEST = 4095
"""What 12 bits hold: 0 is −π, LARGEST is π."""


def write_united_imaging(head: SimulatedHead, folder: Path, *, seed: int | None = None) -> list[Path]:
    """Writes echoes × slices × {magnitude, phase} files, slices within each echo."""
    study = header.Study(head.seed if seed is None else seed)
    acquisition = head.acquisition
    echoes, slices = len(acquisition.echo_times), acquisition.geometry.shape[2]
    phase = header.stored_phase(-acquisition.phase, 2 * np.pi / LARGEST, -np.pi, 1)
    paths = []
    for component, stored, series in (
        ("MAGNITUDE", header.stored_magnitude(head), MAGNITUDE_SERIES),
        ("PHASE", phase, PHASE_SERIES),
    ):
        for echo in range(echoes):
            for k in range(slices):
                number = echo * slices + k + 1
                d = study.dataset(series, number)
                d.AcquisitionTime = header.series_time(MAGNITUDE_SERIES)
                _describe(d, head, component, echo)
                header.add_plane(d, head, k)
                header.add_pixels(d, stored[echo, :, :, k])
                paths.append(header.save(d, folder / f"{series}" / f"{number:08d}.dcm"))
    return paths


def _describe(d: Dataset, head: SimulatedHead, component: str, echo: int) -> None:
    header.describe_gradient_echo(d, head, echo)
    d.ImageType = ["ORIGINAL", "PRIMARY", component[0], "UCA", "IF"]
    d.ComplexImageComponent = component
    d.Manufacturer = "UIH"
    d.ManufacturerModelName = "uMR 790"
    d.SoftwareVersions = "R002"
    d.SeriesDescription = "gre_qsm_tra" + ("_Phase" if component == "PHASE" else "")
    d.ProtocolName = "gre_qsm_tra"
    d.SequenceName = "gre_fq"
    d.EchoNumbers = None
    d.ImagingFrequency = header.decimal(round(head.acquisition.larmor_frequency))
    d.WindowCenter, d.WindowWidth = ("600", "1400") if component == "MAGNITUDE" else ("2048", "4096")
