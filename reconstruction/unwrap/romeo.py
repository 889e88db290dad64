"""ROMEO: the first echo is unwrapped in space along the most reliable path, the later echoes in time from it.

Dymerska et al. 2021, doi:10.1002/mrm.28563.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.region_growing import TWO_PI, settle_turns, unwrapped_in_space, wrap


def romeo(
    phase: FloatArray,
    magnitude: FloatArray,
    echo_times: tuple[float, ...],
    mask: BoolArray,
    geometry: Geometry,
    *,
    temporal: bool = True,
) -> FloatArray:
    """Unwraps every echo inside the mask.

    phase, magnitude: float32 (echo, x, y, z), radian and arbitrary unit.  echo_times: s.  mask: bool (x, y, z).
    temporal: later echoes follow in time from the one before (needs a phase offset near 0: the stage before removes
    it); otherwise every echo is unwrapped in space on its own and only its global multiple of 2π follows from time.
    Returns float32 (echo, x, y, z), congruent with the phase modulo 2π, 0 outside the mask.  It takes the place of the
    phase, which is used up: all echoes twice would be most of the memory that a study needs.
    """
    later, ratio = (phase[1], echo_times[0] / echo_times[1]) if len(echo_times) > 1 else (None, 1.0)
    first = unwrapped_in_space(phase[0], magnitude[0], mask, later, ratio)
    if len(echo_times) > 1:
        settle_turns(first, phase[1], echo_times[1] / echo_times[0], magnitude[0] * magnitude[1], mask)
    phase[0] = first
    times = np.asarray(echo_times)
    if temporal:
        _follow_in_time(phase, times, mask)
        return phase
    for echo in range(1, len(echo_times)):
        single = unwrapped_in_space(phase[echo], magnitude[echo], mask)
        predicted = phase[echo - 1] * (times[echo] / times[echo - 1])
        turns = np.rint(np.median((predicted - single)[mask]) / TWO_PI) if mask.any() else 0.0
        phase[echo] = np.where(mask, single + np.float32(TWO_PI * turns), np.float32(0))
    return phase


@njit(parallel=True, cache=True)
def _follow_in_time(phase: FloatArray, times: np.ndarray, mask: BoolArray) -> None:
    """φ̂ₑ = φ̂ₑ₋₁ TEₑ / TEₑ₋₁ predicts each later echo; φₑ is brought within π of it, in place."""
    echoes, nx, ny, nz = phase.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    for echo in range(1, echoes):
                        phase[echo, x, y, z] = 0
                    continue
                for echo in range(1, echoes):
                    predicted = phase[echo - 1, x, y, z] * (times[echo] / times[echo - 1])
                    phase[echo, x, y, z] = predicted + wrap(phase[echo, x, y, z] - predicted)
