"""The simulated head as the standard alone has it: one Enhanced MR object of a manufacturer that nobody knows.

ComplexImageComponent (0008,9208) tells the components of the frames, the Real World Value Mapping their unit, radian
[S: PS3.3 C.8.13.3.1.1 and C.7.6.16.2.11]; φ = φ₀ + 2π Δf TE, as this project has it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.simulation import enhanced, header
from tests.simulation.frames import Component, add_frames
from tests.simulation.head import SimulatedHead

SERIES = 120
PHASE_SLOPE, PHASE_INTERCEPT = 2 * np.pi / 4096, -np.pi
RADIAN = ("rad", "radian")


def write_generic(head: SimulatedHead, folder: Path, *, seed: int | None = None, cartesian: bool = False) -> list[Path]:
    """Writes one file: magnitude and phase or, by `cartesian`, real and imaginary part."""
    study = header.Study(head.seed if seed is None else seed)
    d = enhanced.enhanced_mr(study, head, SERIES, ("ORIGINAL", "PRIMARY", "T2_STAR", "NONE"), "MIXED")
    d.Manufacturer = "Nobody Knows"
    d.ManufacturerModelName = "Nameless"
    d.SoftwareVersions = "1"
    d.SeriesDescription = d.ProtocolName = "multi-echo GRE"
    d.PulseSequenceName = "gre"
    if cartesian:
        add_frames(d, study, head, _cartesian(head), bits=16)
    else:
        add_frames(d, study, head, _polar(head))
    return [header.save(d, folder / f"{SERIES:04d}.dcm")]


def _polar(head: SimulatedHead) -> tuple[Component, Component]:
    frame_type = ("ORIGINAL", "PRIMARY", "T2_STAR", "NONE")
    phase = header.stored_phase(head.acquisition.phase, PHASE_SLOPE, PHASE_INTERCEPT, 1)
    return (
        Component("MAGNITUDE", header.stored_magnitude(head), (1, 0), frame_type, ("1", "no units"), (600, 1400)),
        Component("PHASE", phase, (PHASE_SLOPE, PHASE_INTERCEPT), frame_type, RADIAN, (0, 6)),
    )


def _cartesian(head: SimulatedHead) -> tuple[Component, Component]:
    acquisition = head.acquisition
    signal = header.magnitude_scale(head) * acquisition.magnitude * np.exp(1j * acquisition.phase)
    frame_type = ("ORIGINAL", "PRIMARY", "T2_STAR", "NONE")
    real, imaginary = (
        Component(name, np.round(part).astype(np.int16), (1, 0), frame_type, ("1", "no units"), (0, 4000))
        for name, part in (("REAL", signal.real), ("IMAGINARY", signal.imag))
    )
    return real, imaginary
