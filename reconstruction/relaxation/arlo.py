"""R2* by auto-regression on linear operations (ARLO), as fast as a linear fit and nearly as exact as a non-linear one.

Pei et al. 2015, doi:10.1002/mrm.25137; the noise floor is taken off as in Gudbjartsson & Patz 1995,
doi:10.1002/mrm.1910340618: Ã = √|S² − σ²|.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.relaxation._floor import noise_power
from reconstruction.relaxation.loglinear import R2STAR_CEILING, loglinear

EVEN = 1e-2
"""Echo spacings that differ by less than this fraction count as even (Simpson's rule needs even ones)."""


def arlo(magnitude: FloatArray, echo_times: tuple[float, ...], mask: BoolArray) -> FloatArray | None:
    """R2* in 1/s, float32 (x, y, z), 0 outside the mask; None for a single echo.

    magnitude: float32 (echo, x, y, z).  echo_times: s.  mask: bool (x, y, z).
    ARLO integrates over three echoes by Simpson's rule.  With two echoes, or with echoes unevenly spaced, the
    log-linear fit takes its place.
    """
    spacing = np.diff(echo_times)
    if spacing.size < 2 or np.ptp(spacing) > EVEN * spacing.mean():
        return loglinear(magnitude, echo_times, mask)
    variance = noise_power(magnitude, mask) / 2
    return _arlo(magnitude, float(spacing.mean()), mask, variance, R2STAR_CEILING)


@njit(parallel=True, cache=True)
def _arlo(magnitude: FloatArray, spacing: float, mask: BoolArray, variance: float, ceiling: float) -> FloatArray:
    """Least squares of ∫S = T2* (Sᵢ − Sᵢ₊₂), the noise that both sides share taken into account (equation 10)."""
    echoes, nx, ny, nz = magnitude.shape
    third = spacing / 3
    result = np.zeros((nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                area_area, area_drop, drop_drop = 0.0, 0.0, 0.0
                s1 = math.sqrt(abs(magnitude[0, x, y, z] ** 2 - variance))
                s2 = math.sqrt(abs(magnitude[1, x, y, z] ** 2 - variance))
                for e in range(2, echoes):
                    s0, s1, s2 = s1, s2, math.sqrt(abs(magnitude[e, x, y, z] ** 2 - variance))
                    area = third * (s0 + 4 * s1 + s2)
                    drop = s0 - s2
                    area_area += area * area
                    area_drop += area * drop
                    drop_drop += drop * drop
                below = area_area + third * area_drop
                if below > 0:
                    result[x, y, z] = min(ceiling, max(0.0, (area_drop + third * drop_drop) / below))
    return result
