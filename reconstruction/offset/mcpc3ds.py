"""MCPC-3D-S: the phase at TE = 0, extrapolated from the first two echoes and smoothed, is taken off every echo.

Eckstein et al. 2018, doi:10.1002/mrm.26963.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.intensity import even_intensity
from reconstruction.region_growing import edge_costs, grow, settle_turns, wrap
from reconstruction.smoothing import smooth

FOREGROUND = 0.05
"""Fraction of the bright signal (99th percentile) above which a voxel has a phase worth unwrapping: three to five
times the noise floor of a typical multi-echo acquisition."""

TISSUE = 0.4
"""Part of the local mean above which a voxel is soft tissue; compact bone and marrow-free skull lie below."""

THICK_MM = 10.0
"""Thinner tissue has no say.  That is the scalp: its fat precesses 3.4 ppm away, so beyond the skull the echo
difference has another multiple of 2π, and its φ₀ is wrong by that multiple times TE₁/(TE₂ − TE₁)."""

PASSES = 3
"""Smoothing once flattens the offset's curvature and bends it at the rim of the head, by 0.02 to 0.1 rad; smoothing
what was missed and adding it (Tukey's twicing) takes most of that back (Bühlmann & Yu 2003,
doi:10.1198/016214503000125)."""


def mcpc3ds(
    phase: FloatArray,
    magnitude: FloatArray,
    echo_times: tuple[float, ...],
    geometry: Geometry,
    *,
    smoothing_mm: float = 4.0,
) -> FloatArray:
    """Takes the receivers' phase offset φ₀ off every echo.

    phase, magnitude: float32 (echo, x, y, z), radian and arbitrary unit.  echo_times: s.
    smoothing_mm: standard deviation of the Gaussian that smooths exp(iφ₀); the paper takes 7 mm once, here it is
    applied three times over.
    Returns float32 (echo, x, y, z), wrapped to [−π, π).  A single echo comes back unchanged: its offset cannot be
    told from its field.
    """
    if len(echo_times) < 2:
        return phase
    offset = phase_offset(phase, magnitude, echo_times, geometry, smoothing_mm)
    return _subtract(phase, offset)


def phase_offset(
    phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...], geometry: Geometry, smoothing_mm: float
) -> FloatArray:
    """φ₀ in radian, wrapped, float32 (x, y, z), continued smoothly where there is no signal.

    The arguments are those of `mcpc3ds`.  With evenly spaced echoes the multiple of 2π of the echo difference cannot be
    told and does no harm: it adds the same constant frequency 1/(TE₂ − TE₁) to every echo.
    """
    weight = magnitude[0] * magnitude[1]  # |S₁* S₂|, the magnitude of the Hermitian inner product
    tissue = weight > FOREGROUND**2 * np.percentile(weight, 99)
    tissue &= _thick(even_intensity(magnitude[:1], geometry) > TISSUE, geometry)
    difference = _difference(phase[0], phase[1])
    unwrapped, _ = grow(difference, edge_costs(difference, np.sqrt(weight), tissue), tissue)
    if len(echo_times) > 2:
        stretch = (echo_times[2] - echo_times[1]) / (echo_times[1] - echo_times[0])
        settle_turns(unwrapped, _difference(phase[1], phase[2]), stretch, weight, tissue)
    extrapolation = echo_times[0] / (echo_times[1] - echo_times[0])
    offset = phase[0] - np.float32(extrapolation) * unwrapped
    return _smooth_angle(offset, np.where(tissue, weight, np.float32(0)), geometry, smoothing_mm)


def _thick(tissue: BoolArray, geometry: Geometry) -> BoolArray:
    """Opening with a box of THICK_MM; the edge of the volume is no edge of the tissue."""
    box = [1 + 2 * round(THICK_MM / (2 * v)) for v in geometry.voxel_size]
    core = ndimage.minimum_filter(tissue.view(np.uint8), box, mode="nearest")
    return np.asarray(ndimage.maximum_filter(core, box, mode="nearest"), bool)


@njit(parallel=True, cache=True)
def _difference(early: FloatArray, late: FloatArray) -> FloatArray:
    """φ₂ − φ₁, wrapped: the phase of the Hermitian inner product."""
    result = np.empty_like(early)
    for x in prange(early.shape[0]):
        for y in range(early.shape[1]):
            for z in range(early.shape[2]):
                result[x, y, z] = wrap(late[x, y, z] - early[x, y, z])
    return result


def _smooth_angle(angle: FloatArray, weight: FloatArray, geometry: Geometry, sigma_mm: float) -> FloatArray:
    """Argument of the smoothed weight · exp(i angle), what it missed smoothed in turn and added (twicing)."""
    smoothed = np.zeros_like(angle)
    for _ in range(PASSES):
        real, imaginary = _phasor(weight, angle, smoothed)
        _add_argument(smoothed, smooth(real, geometry, sigma_mm), smooth(imaginary, geometry, sigma_mm))
    return smoothed


@njit(parallel=True, cache=True)
def _phasor(weight: FloatArray, angle: FloatArray, known: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Real and imaginary part of weight · exp(i(angle − known))."""
    real, imaginary = np.empty_like(weight), np.empty_like(weight)
    for x in prange(weight.shape[0]):
        for y in range(weight.shape[1]):
            for z in range(weight.shape[2]):
                rest = angle[x, y, z] - known[x, y, z]
                real[x, y, z] = weight[x, y, z] * math.cos(rest)
                imaginary[x, y, z] = weight[x, y, z] * math.sin(rest)
    return real, imaginary


@njit(parallel=True, cache=True)
def _add_argument(total: FloatArray, real: FloatArray, imaginary: FloatArray) -> None:
    for x in prange(total.shape[0]):
        for y in range(total.shape[1]):
            for z in range(total.shape[2]):
                total[x, y, z] += math.atan2(imaginary[x, y, z], real[x, y, z])


@njit(parallel=True, cache=True)
def _subtract(phase: FloatArray, offset: FloatArray) -> FloatArray:
    result = np.empty_like(phase)
    for x in prange(phase.shape[1]):
        for echo in range(phase.shape[0]):
            for y in range(phase.shape[2]):
                for z in range(phase.shape[3]):
                    result[echo, x, y, z] = wrap(phase[echo, x, y, z] - offset[x, y, z])
    return result
