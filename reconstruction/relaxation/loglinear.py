"""R2* as the slope of the logarithm of the magnitude, weighted by the squared magnitude.

The weights give each logarithm its variance σ²/S² (Bonny et al. 1996, doi:10.1002/mrm.1910360614).
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray

R2STAR_CEILING = 1000.0
"""1/s; above every tissue of the head (pallidum at 7 T: about 90; a clot or calcification: a few hundred)."""


def loglinear(magnitude: FloatArray, echo_times: tuple[float, ...], mask: BoolArray) -> FloatArray | None:
    """R2* in 1/s, float32 (x, y, z), 0 outside the mask; None for a single echo.

    magnitude: float32 (echo, x, y, z).  echo_times: s, evenly spaced or not.  mask: bool (x, y, z).
    """
    if len(echo_times) < 2:
        return None
    return _loglinear(magnitude, np.asarray(echo_times, np.float64), mask, R2STAR_CEILING)


@njit(parallel=True, cache=True)
def _loglinear(magnitude: FloatArray, times: np.ndarray, mask: BoolArray, ceiling: float) -> FloatArray:
    """Slope of log S over TE; an echo without signal has weight 0."""
    echoes, nx, ny, nz = magnitude.shape
    result = np.zeros((nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                w, wt, wtt, wl, wlt = 0.0, 0.0, 0.0, 0.0, 0.0
                for e in range(echoes):
                    signal = magnitude[e, x, y, z]
                    if signal <= 0:
                        continue
                    weight = float(signal) ** 2
                    logarithm = np.log(signal)
                    w += weight
                    wt += weight * times[e]
                    wtt += weight * times[e] ** 2
                    wl += weight * logarithm
                    wlt += weight * logarithm * times[e]
                spread = w * wtt - wt * wt
                if spread > 1e-12 * w * wtt:
                    result[x, y, z] = min(ceiling, max(0.0, (wl * wt - w * wlt) / spread))
    return result
