"""ROMEO: the first echo is unwrapped in space along the most reliable path, the later echoes in time from it.

Dymerska et al. 2021, doi:10.1002/mrm.28563.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.region_growing import TWO_PI, edge_costs, grow, wrap


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
    Returns float32 (echo, x, y, z), congruent with the phase modulo 2π, 0 outside the mask.
    """
    later, ratio = (phase[1], echo_times[0] / echo_times[1]) if len(echo_times) > 1 else (None, 1.0)
    unwrapped = np.zeros_like(phase)
    unwrapped[0], _ = grow(phase[0], edge_costs(phase[0], magnitude[0], mask, later, ratio), mask)
    if len(echo_times) > 1:
        _anchor(unwrapped[0], phase[1], ratio, magnitude[0] * magnitude[1], mask)
    times = np.asarray(echo_times)
    if temporal:
        _follow_in_time(phase, times, mask, unwrapped)
        return unwrapped
    for echo in range(1, len(echo_times)):
        single, _ = grow(phase[echo], edge_costs(phase[echo], magnitude[echo], mask), mask)
        predicted = unwrapped[echo - 1] * (times[echo] / times[echo - 1])
        turns = np.rint(np.median((predicted - single)[mask]) / TWO_PI) if mask.any() else 0.0
        unwrapped[echo] = np.where(mask, single + np.float32(TWO_PI * turns), np.float32(0))
    return unwrapped


CANDIDATE_TURNS = (0, -1, 1)
"""Multiples of 2π tried for the whole first echo: a shim is never further from the centre frequency."""

CLEARLY_BETTER = 0.5
"""A turn other than the one nearest the centre frequency must halve the misfit in time to be believed."""


def _anchor(first: FloatArray, second: FloatArray, ratio: float, weight: FloatArray, mask: BoolArray) -> None:
    """Fixes the global multiple of 2π of the first echo by what the second one says, in place.

    With TE₂ / TE₁ an integer the second echo cannot tell, and the median nearest to 0 Hz stays.
    """
    voxels = np.flatnonzero(mask)
    voxels = voxels[:: max(1, voxels.size // 20000)]
    if not voxels.size:
        return
    early, late, certain = first.ravel()[voxels], second.ravel()[voxels], weight.ravel()[voxels]

    def misfit(turns: int) -> float:
        error = late - (early + TWO_PI * turns) / ratio
        return float(np.sum(certain * np.abs(error - TWO_PI * np.rint(error / TWO_PI))))

    nearest = misfit(0)
    best = min(CANDIDATE_TURNS, key=misfit)
    if misfit(best) < CLEARLY_BETTER * nearest:
        first[mask] += np.float32(TWO_PI * best)


@njit(parallel=True, cache=True)
def _follow_in_time(phase: FloatArray, times: np.ndarray, mask: BoolArray, unwrapped: FloatArray) -> None:
    """φ̂ₑ = φ̂ₑ₋₁ TEₑ / TEₑ₋₁ predicts each later echo; φₑ is brought within π of it."""
    echoes, nx, ny, nz = phase.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                for echo in range(1, echoes):
                    predicted = unwrapped[echo - 1, x, y, z] * (times[echo] / times[echo - 1])
                    unwrapped[echo, x, y, z] = predicted + wrap(phase[echo, x, y, z] - predicted)
