"""R2* by a non-linear fit of the squared magnitude, the noise floor part of the model.

Feng et al. 2013, doi:10.1002/mrm.24607: a fit that knows what noise adds to each echo keeps the late, dark echoes,
which else pull R2* down.  Here the second moment is fitted, E|S|² = A² exp(−2 TE R2*) + 2σ², true at any signal.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.relaxation._floor import noise_power
from reconstruction.relaxation.loglinear import R2STAR_CEILING, loglinear

ITERATIONS = 30
"""From the log-linear fit fewer than ten are needed where there is signal."""

CONVERGED = 1e-3
"""1/s."""

DAMPING = 1e-3
"""Levenberg's λ at the start, relative to the normal matrix's diagonal (Marquardt 1963, doi:10.1137/0111030)."""

LEAST = 1e-6
"""Share of the power that counts as nothing; keeps weights finite where there is no noise."""


def nonlinear(magnitude: FloatArray, echo_times: tuple[float, ...], mask: BoolArray) -> FloatArray | None:
    """R2* in 1/s, float32 (x, y, z), 0 outside the mask; None for a single echo.

    magnitude: float32 (echo, x, y, z).  echo_times: s, evenly spaced or not.  mask: bool (x, y, z).
    Voxels with signal that is no more than noise in every echo decay faster than can be seen and get the ceiling.
    """
    start = loglinear(magnitude, echo_times, mask)
    if start is None:
        return None
    times = np.asarray(echo_times, np.float64)
    return _fit(magnitude, times, mask, start, noise_power(magnitude, mask), R2STAR_CEILING)


@njit(parallel=True, cache=True)
def _fit(
    magnitude: FloatArray, times: np.ndarray, mask: BoolArray, start: FloatArray, floor: float, ceiling: float
) -> FloatArray:
    """Levenberg-Marquardt over the power P = A² and R2*, each echo weighted by 1/Var|S|² at the fit."""
    echoes, nx, ny, nz = magnitude.shape
    result = np.zeros((nx, ny, nz), np.float32)
    for x in prange(nx):
        square = np.empty(echoes)
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                brightest = 0.0
                for e in range(echoes):
                    square[e] = float(magnitude[e, x, y, z]) ** 2
                    brightest = max(brightest, square[e])
                if brightest <= 0:
                    continue
                if brightest <= floor:
                    result[x, y, z] = ceiling
                    continue
                result[x, y, z] = _decay(square, times, float(start[x, y, z]), floor, ceiling)
    return result


@njit(cache=True)
def _decay(square: np.ndarray, times: np.ndarray, start: float, floor: float, ceiling: float) -> float:
    """R2* of one voxel.  square: |S|² of its echoes, of which the brightest is above the floor."""
    weight = np.empty(square.size)
    rate, damping = start, DAMPING
    power = max(square[0] - floor, LEAST * square.max()) * math.exp(2 * times[0] * rate)
    for _ in range(ITERATIONS):
        pp, pr, rr, p, r = 0.0, 0.0, 0.0, 0.0, 0.0
        for e in range(square.size):
            decay = math.exp(-2 * times[e] * rate)
            weight[e] = 1 / (power * decay + floor / 2 + LEAST * power)  # Var|S|² = 4σ² (A² + σ²)
            slope = -2 * times[e] * power * decay
            error = square[e] - floor - power * decay
            pp += weight[e] * decay * decay
            pr += weight[e] * decay * slope
            rr += weight[e] * slope * slope
            p += weight[e] * decay * error
            r += weight[e] * slope * error
        pp, rr = pp * (1 + damping), rr * (1 + damping)
        determinant = pp * rr - pr * pr
        if determinant <= 0:
            break
        new_power = max(power + (rr * p - pr * r) / determinant, LEAST * power)
        new_rate = min(ceiling, max(0.0, rate + (pp * r - pr * p) / determinant))
        if _misfit(square, weight, times, new_power, new_rate, floor) > _misfit(
            square, weight, times, power, rate, floor
        ):
            damping *= 10
            continue
        change = abs(new_rate - rate)
        power, rate, damping = new_power, new_rate, damping / 10
        if change < CONVERGED:
            break
    return rate


@njit(cache=True)
def _misfit(
    square: np.ndarray, weight: np.ndarray, times: np.ndarray, power: float, rate: float, floor: float
) -> float:
    total = 0.0
    for e in range(square.size):
        total += weight[e] * (square[e] - floor - power * math.exp(-2 * times[e] * rate)) ** 2
    return total
