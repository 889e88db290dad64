"""The simulated head as Hitachi (Fujifilm) writes it: classic MR Image Storage, magnitude and phase in one series.

How sure each fact is: [M] measured on real files, [S] in a standard or in another reader's source, [?] not verified.

- ImageType says OTHER of magnitude and PHASE MAP of phase [S: MEDI], as its third value [?].
- Phase is signed, 12 bits in 16: −2048…2047 are −π…π, without Rescale [S: MEDI].
- The sign is the conjugate of Siemens' [S: MEDI alone].
- One series, magnitude and phase of an image after each other [?].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.simulation import header
from tests.simulation.head import SimulatedHead

SERIES = 80
IMAGE_TYPES = {"magnitude": "OTHER", "phase": "PHASE MAP"}
SMALLEST, LARGEST = -2048, 2047


def write_hitachi(
    head: SimulatedHead, folder: Path, *, seed: int | None = None, manufacturer: str = "Hitachi, Ltd."
) -> list[Path]:
    """Writes echoes × slices × {magnitude, phase} files.  manufacturer: newer systems say Fujifilm."""
    study = header.Study(head.seed if seed is None else seed)
    stored = {"magnitude": header.stored_magnitude(head).astype(np.int16) // 2, "phase": _stored_phase(head)}
    paths = []
    for echo in range(len(head.acquisition.echo_times)):
        for k in range(head.acquisition.geometry.shape[2]):
            for component, values in stored.items():
                number = len(paths) + 1
                d = study.dataset(SERIES, number)
                _describe(d, head, component, echo, manufacturer)
                header.add_plane(d, head, k)
                header.add_pixels(d, values[echo, :, :, k])
                paths.append(header.save(d, folder / f"{SERIES:04d}" / f"{number:05d}"))
    return paths


def _stored_phase(head: SimulatedHead) -> NDArray[np.int16]:
    turns = (np.pi - head.acquisition.phase) / (2 * np.pi)  # the conjugate: π → 0, −π → 1
    return np.clip(np.round(turns * (LARGEST - SMALLEST)) + SMALLEST, SMALLEST, LARGEST).astype(np.int16)


def _describe(d: Dataset, head: SimulatedHead, component: str, echo: int, manufacturer: str) -> None:
    header.describe_gradient_echo(d, head, echo)
    d.ImageType = ["ORIGINAL", "PRIMARY", IMAGE_TYPES[component]]
    d.Manufacturer = manufacturer
    d.ManufacturerModelName = "TRILLIUM OVAL"
    d.SoftwareVersions = "V7.0"
    d.SeriesDescription = d.ProtocolName = "QSM"
    d.WindowCenter, d.WindowWidth = ("500", "1000") if component == "magnitude" else ("0", "4096")
