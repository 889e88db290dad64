"""Susceptibility-weighted imaging: the magnitude, made darker where the phase says that there is a vein.

Haacke et al. 2004, doi:10.1002/mrm.20198; of several echoes each is weighted by its own phase and the mean is taken
(Denk & Rauscher 2010, J Magn Reson Imaging 31:185).
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.region_growing import TWO_PI
from reconstruction.stage import Millimetres
from reconstruction.weighting._high_pass import high_pass


def swi(
    magnitude: FloatArray,
    local_field: FloatArray,
    echo_times: tuple[float, ...],
    mask: BoolArray,
    geometry: Geometry,
    *,
    power: float = 4.0,
    high_pass_mm: Millimetres = 4.0,
    diamagnetic: bool = False,
) -> FloatArray:
    """Mean over the echoes of |S| times the phase mask to a power, unit of the magnitude, float32 (x, y, z).

    magnitude: float32 (echo, x, y, z).  local_field: Hz, float32 (x, y, z), the background removed.  echo_times: s.
    mask: bool (x, y, z), where the field is known; outside it nothing is darkened.
    power: how often the mask is multiplied; the paper takes 4.  high_pass_mm: standard deviation of the Gaussian whose
    mean is taken off the field; the paper's filter of 64 × 64 on 512 × 512 lets what is narrower than 4 mm pass.  0
    keeps the whole local field.  diamagnetic: darken calcifications instead of veins.
    The phase of a vein depends on its direction, and round a bleed it has both signs; `tswi` has neither fault.
    """
    field = high_pass(local_field, mask, geometry, high_pass_mm)
    total = np.zeros(magnitude.shape[1:], np.float32)
    for image, time in zip(magnitude, echo_times, strict=True):
        phase = np.float32(TWO_PI * time * (-1 if diamagnetic else 1)) * field
        total += image * phase_mask(phase) ** np.float32(power)
    return total / np.float32(len(echo_times))


def phase_mask(phase: FloatArray) -> FloatArray:
    """1 for φ ≤ 0, falling to 0 at φ = π (the paper's negative mask: its phase has the opposite sign)."""
    return np.clip(1 - phase / np.float32(np.pi), np.float32(0), np.float32(1))
