"""The field from all echoes by a non-linear fit of the complex signal, with its noise and its misfit.

Liu et al. 2013, doi:10.1002/mrm.24272: fitting mₑ exp(iφₑ) and not φₑ weights each echo by what its phase is worth,
and a single echo that was unwrapped wrongly does no harm.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from reconstruction import quality
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.noise import excess_noise, noise_of_real_part
from reconstruction.region_growing import TWO_PI

ITERATIONS = 8
"""Gauss-Newton from the linear fit converges quadratically; the paper's data need fewer than 5."""

CONVERGED = 1e-4
"""Hz; a tenth of a part per billion at 1 T."""


def complex_fit(
    unwrapped: FloatArray,
    magnitude: FloatArray,
    echo_times: tuple[float, ...],
    mask: BoolArray,
    *,
    free_offset: bool = False,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fits mₑ exp(i(φ₀ + 2π f TEₑ)) to each voxel's echoes.

    unwrapped, magnitude: float32 (echo, x, y, z), radian and arbitrary unit.  echo_times: s.  mask: bool (x, y, z).
    free_offset: fit φ₀ too, from two echoes on.  Only where the offset was not removed before: it costs a factor of two
    to three in noise, more with two echoes.
    Returns float32 (x, y, z), 0 outside the mask:
    field f in Hz; its standard deviation in Hz (Cramér-Rao bound); the normalised residual, the root of the reduced
    χ² of the fit: 1 where noise alone is at work, larger with flow, dephasing within the voxel or a wrong model, and
    1 throughout when there are no more echoes than unknowns.
    """
    times = np.asarray(echo_times, np.float64)
    free_offset = free_offset and times.size > 1
    field, misfit, information = _fit(unwrapped, magnitude, times, mask, free_offset)
    freedom = times.size - 1 - int(free_offset)
    sigma = noise_of_real_part(misfit, freedom, magnitude[0], mask)
    quality.figure("combine.misfit", excess_noise(sigma, magnitude, mask))
    deviation, residual = uncertainty(misfit, information, mask, sigma, freedom, times)
    return field, deviation, residual


def uncertainty(
    misfit: FloatArray, information: FloatArray, mask: BoolArray, sigma: float, freedom: int, times: np.ndarray
) -> tuple[FloatArray, FloatArray]:
    """The field's standard deviation in Hz and the normalised residual, both float32 (x, y, z), 0 outside the mask.

    misfit: Σ over echoes of the squared distance between signal and fit.  information: Fisher's, of 2πf, times σ².
    """
    deviation, residual = np.zeros_like(misfit), np.zeros_like(misfit)
    share = 1 / (freedom * sigma**2) if freedom > 0 and sigma > 0 else math.inf
    _judge(misfit, information, mask, sigma / TWO_PI, share, unknown_field(times), deviation, residual)
    return deviation, residual


@njit(parallel=True, cache=True)
def _judge(
    misfit: FloatArray,
    information: FloatArray,
    mask: BoolArray,
    sigma: float,
    share: float,
    unknown: float,
    deviation: FloatArray,
    residual: FloatArray,
) -> None:
    nx, ny, nz = mask.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if mask[x, y, z]:
                    known = information[x, y, z]
                    deviation[x, y, z] = sigma / math.sqrt(known) if known > 0 else unknown
                    residual[x, y, z] = math.sqrt(share * misfit[x, y, z]) if share < math.inf else 1.0


def unknown_field(times: np.ndarray) -> float:
    """Hz: the standard deviation of a frequency of which nothing is known, uniform within ±1/(2 TE₁)."""
    return float(1 / times[0] / math.sqrt(12))


@njit(parallel=True, cache=True)
def _fit(
    unwrapped: FloatArray, magnitude: FloatArray, times: np.ndarray, mask: BoolArray, free_offset: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Field in Hz, misfit Σ|mₑ(exp(irₑ) − 1)|² and Fisher information Σ mₑ²(TEₑ − T̄)² · σ² of 2πf."""
    echoes, nx, ny, nz = unwrapped.shape
    field = np.zeros((nx, ny, nz), np.float32)
    misfit = np.zeros((nx, ny, nz), np.float32)
    information = np.zeros((nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                total, first, second, phase0, phase1 = 0.0, 0.0, 0.0, 0.0, 0.0
                for e in range(echoes):
                    weight = magnitude[e, x, y, z] ** 2
                    total += weight
                    first += weight * times[e]
                    second += weight * times[e] ** 2
                    phase0 += weight * unwrapped[e, x, y, z]
                    phase1 += weight * unwrapped[e, x, y, z] * times[e]
                if second <= 0:
                    continue
                centre = first / total if free_offset else 0.0
                spread = second - total * centre * centre
                if spread <= 0:
                    continue
                omega = (phase1 - centre * phase0) / spread
                offset = (phase0 - omega * first) / total if free_offset else 0.0
                for _ in range(ITERATIONS):
                    slope, level = 0.0, 0.0
                    for e in range(echoes):
                        angle = np.float32(unwrapped[e, x, y, z] - offset - omega * times[e])
                        error = math.sin(angle) * magnitude[e, x, y, z] ** 2
                        slope += error * (times[e] - centre)
                        level += error
                    change = slope / spread
                    omega += change
                    if free_offset:
                        offset += level / total - change * centre
                    if abs(change) < TWO_PI * CONVERGED:
                        break
                error = 0.0
                for e in range(echoes):
                    half = np.float32(0.5 * (unwrapped[e, x, y, z] - offset - omega * times[e]))
                    error += (2 * magnitude[e, x, y, z] * math.sin(half)) ** 2
                field[x, y, z] = omega / TWO_PI
                misfit[x, y, z] = error
                information[x, y, z] = spread
    return field, misfit, information
