"""R2* as the slope of the logarithm of the magnitude, its noise floor taken off, each echo weighted by its variance.

Bonny et al. 1996, doi:10.1002/mrm.1910360216, for the weights; Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618,
for the floor: E|S|² = A² + 2σ².
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.relaxation._floor import noise_power

R2STAR_CEILING = 1000.0
"""1/s; above every tissue of the head (pallidum at 7 T: about 90; a clot or calcification: a few hundred)."""


def loglinear(magnitude: FloatArray, echo_times: tuple[float, ...], mask: BoolArray) -> FloatArray | None:
    """R2* in 1/s, float32 (x, y, z), 0 outside the mask; None for a single echo.

    magnitude: float32 (echo, x, y, z).  echo_times: s, evenly spaced or not.  mask: bool (x, y, z).
    """
    if len(echo_times) < 2:
        return None
    floor = noise_power(magnitude, mask)
    return _loglinear(magnitude, np.asarray(echo_times, np.float64), mask, floor, R2STAR_CEILING)


@njit(parallel=True, cache=True)
def _loglinear(magnitude: FloatArray, times: np.ndarray, mask: BoolArray, floor: float, ceiling: float) -> FloatArray:
    """Slope of log A over TE; an echo without signal above the floor has weight 0."""
    echoes, nx, ny, nz = magnitude.shape
    result = np.zeros((nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                w, wt, wtt, wl, wlt = 0.0, 0.0, 0.0, 0.0, 0.0
                for e in range(echoes):
                    power = float(magnitude[e, x, y, z]) ** 2 - floor  # A²
                    if power <= 0:
                        continue
                    weight = power * power / (power + floor / 2)  # Var log A = σ² (A² + σ²) / A⁴
                    logarithm = 0.5 * np.log(power)
                    w += weight
                    wt += weight * times[e]
                    wtt += weight * times[e] ** 2
                    wl += weight * logarithm
                    wlt += weight * logarithm * times[e]
                spread = w * wtt - wt * wt
                if spread > 1e-12 * w * wtt:
                    result[x, y, z] = min(ceiling, max(0.0, (wl * wt - w * wlt) / spread))
    return result
