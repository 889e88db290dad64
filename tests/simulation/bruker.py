"""The simulated head as Bruker's ParaVision writes it: an Enhanced MR object of the real part, one of the imaginary.

How sure each fact is: [M] measured on real files, [S] in a standard or in another reader's source, [?] not verified.

- Real and imaginary part are reconstructions of their own, so series of their own [S: MEDI].
- The complex image may carry (−1)^(x+y+z), a k-space that was not shifted [S: MEDI, which undoes it].
- Each object is scaled to its bits and says so in Rescale [?]; ComplexImageComponent [?]; the sign, here not conjugated
  [?].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.simulation import enhanced, header
from tests.simulation.frames import Component, add_frames
from tests.simulation.head import SimulatedHead

REAL_SERIES, IMAGINARY_SERIES = 60002, 60003
"""Experiment 6, processings 2 and 3."""
IMAGE_TYPE = ("ORIGINAL", "PRIMARY", "OTHER", "NONE")
LARGEST = 32767


def write_bruker(head: SimulatedHead, folder: Path, *, seed: int | None = None, chopped: bool = False) -> list[Path]:
    """Writes two files.  chopped: neighbours along every axis have opposite signs."""
    study = header.Study(head.seed if seed is None else seed)
    signal = head.acquisition.magnitude * np.exp(1j * head.acquisition.phase)
    if chopped:
        signal *= np.where(np.indices(signal.shape[1:]).sum(0) % 2, -1, 1)
    paths = []
    for series, name, part in ((REAL_SERIES, "REAL", signal.real), (IMAGINARY_SERIES, "IMAGINARY", signal.imag)):
        slope = float(np.abs(part).max() / LARGEST)
        stored = np.round(part / slope).astype(np.int16)
        d = enhanced.enhanced_mr(study, head, series, IMAGE_TYPE, name)
        d.AcquisitionDateTime = f"{header.DATE}{header.series_time(REAL_SERIES)}"
        d.Manufacturer = "Bruker BioSpin MRI GmbH"
        d.ManufacturerModelName = "Biospec 94/20"
        d.SoftwareVersions = "ParaVision 6.0.1"
        d.SeriesDescription = d.ProtocolName = "MGE"
        d.PulseSequenceName = "Bruker:MGE"
        add_frames(d, study, head, [Component(name, stored, (slope, 0), IMAGE_TYPE, None, (0, 20000))], bits=16)
        paths.append(header.save(d, folder / f"MRIm_{series}.dcm"))
    return paths
