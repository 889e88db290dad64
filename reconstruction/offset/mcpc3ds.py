"""MCPC-3D-S: the phase at TE = 0, extrapolated from the first two echoes and smoothed, is taken off every echo.

Eckstein et al. 2018, doi:10.1002/mrm.26963.  What is smoothed over millimetres is looked for on blocks of voxels of
half that size; each voxel's own echo difference is continued from its block's, so that nothing is averaged over a wrap.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.blocks import Steps, between, coarse, steps_of
from reconstruction.intensity import even_intensity, percentile
from reconstruction.region_growing import settle_turns, unwrapped_in_space, wrap
from reconstruction.smoothing import smooth
from reconstruction.stage import Millimetres

FOREGROUND = 0.05
"""Fraction of the bright signal (99th percentile) above which a voxel has a phase worth unwrapping: three to five
times the noise floor of a typical multi-echo acquisition."""

TISSUE = 0.4
"""Part of the local mean above which a voxel is soft tissue; compact bone and marrow-free skull lie below."""

THICK_MM = 10.0
"""Thinner tissue has no say.  That is the scalp: its fat precesses 3.4 ppm away, so beyond the skull the echo
difference has another multiple of 2π, and its φ₀ is wrong by that multiple times TE₁/(TE₂ − TE₁)."""

BLOCKS = 2
"""To one standard deviation of the smoothing."""

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
    smoothing_mm: Millimetres = 4.0,
) -> FloatArray:
    """Takes the receivers' phase offset φ₀ off every echo.

    phase, magnitude: float32 (echo, x, y, z), radian and arbitrary unit.  echo_times: s.
    smoothing_mm: standard deviation of the Gaussian that smooths exp(iφ₀); the paper takes 7 mm once, here it is
    applied three times over.
    Returns float32 (echo, x, y, z), wrapped to [−π, π).  A single echo comes back unchanged: its offset cannot be
    told from its field here (see `receive_phase`).
    """
    if len(echo_times) < 2:
        return phase
    offset, steps = _offset_on_blocks(phase, magnitude, echo_times, geometry, smoothing_mm)
    corrected = np.empty_like(phase)
    _subtract(phase, offset, steps, corrected)
    return corrected


def phase_offset(
    phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...], geometry: Geometry, smoothing_mm: float
) -> FloatArray:
    """φ₀ in radian, wrapped, float32 (x, y, z), continued smoothly where there is no signal.

    The arguments are those of `mcpc3ds`.
    """
    offset, steps = _offset_on_blocks(phase, magnitude, echo_times, geometry, smoothing_mm)
    negative = np.zeros_like(phase[:1])
    _subtract(negative, offset, steps, negative)
    return -negative[0]


def _offset_on_blocks(
    phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...], geometry: Geometry, smoothing_mm: float
) -> tuple[FloatArray, Steps]:
    """φ₀ in radian, wrapped, and the voxels along each axis of the blocks that it is given on.

    With evenly spaced echoes the multiple of 2π of the echo difference cannot be told and does no harm: it adds the
    same constant frequency 1/(TE₂ − TE₁) to every echo.
    """
    steps = steps_of(geometry, smoothing_mm / BLOCKS)
    grid = coarse(geometry, steps)
    first, weight = np.zeros((2, *grid.shape), np.float32)
    _magnitudes(magnitude, steps, first, weight)
    tissue = weight > FOREGROUND**2 * percentile(weight, 99)
    tissue &= _thick(even_intensity(first[None], grid) > TISSUE, grid)
    unwrapped = unwrapped_in_space(_difference(phase[:2], magnitude[:2], tissue, steps), np.sqrt(weight), tissue)
    if len(echo_times) > 2:
        stretch = (echo_times[2] - echo_times[1]) / (echo_times[1] - echo_times[0])
        settle_turns(unwrapped, _difference(phase[1:3], magnitude[1:3], tissue, steps), stretch, weight, tissue)
    extrapolation = echo_times[0] / (echo_times[1] - echo_times[0])
    real, imaginary = _at_te_zero(phase, magnitude, unwrapped, tissue, extrapolation, steps)
    return _smooth_angle(real, imaginary, grid, smoothing_mm), steps


@njit(parallel=True, cache=True)
def _magnitudes(magnitude: FloatArray, steps: Steps, first: FloatArray, weight: FloatArray) -> None:
    """Over blocks: the mean of |S₁|, and that of |S₁ S₂|."""
    _, nx, ny, nz = magnitude.shape
    for i in prange(first.shape[0]):
        for j in range(first.shape[1]):
            y0, y1 = j * steps[1], min((j + 1) * steps[1], ny)
            x0, x1 = i * steps[0], min((i + 1) * steps[0], nx)
            one, product = np.zeros(nz, np.float32), np.zeros(nz, np.float32)
            for x in range(x0, x1):
                for y in range(y0, y1):
                    for z in range(nz):
                        early = magnitude[0, x, y, z]
                        one[z] += early
                        product[z] += early * magnitude[1, x, y, z]
            for k in range(first.shape[2]):
                z0, z1 = k * steps[2], min((k + 1) * steps[2], nz)
                count = np.float32((x1 - x0) * (y1 - y0) * (z1 - z0))
                first[i, j, k] = one[z0:z1].sum() / count
                weight[i, j, k] = product[z0:z1].sum() / count


@njit(parallel=True, cache=True)
def _difference(phase: FloatArray, magnitude: FloatArray, tissue: BoolArray, steps: Steps) -> FloatArray:
    """φ₂ − φ₁ over blocks of tissue: the angle of the Hermitian inner product S₁* S₂."""
    _, nx, ny, nz = phase.shape
    difference = np.zeros(tissue.shape, np.float32)
    for i in prange(tissue.shape[0]):
        for j in range(tissue.shape[1]):
            for k in range(tissue.shape[2]):
                if not tissue[i, j, k]:
                    continue
                real, imaginary = 0.0, 0.0
                for x in range(i * steps[0], min((i + 1) * steps[0], nx)):
                    for y in range(j * steps[1], min((j + 1) * steps[1], ny)):
                        for z in range(k * steps[2], min((k + 1) * steps[2], nz)):
                            angle = phase[1, x, y, z] - phase[0, x, y, z]
                            worth = magnitude[0, x, y, z] * magnitude[1, x, y, z]
                            real += worth * math.cos(angle)
                            imaginary += worth * math.sin(angle)
                difference[i, j, k] = math.atan2(imaginary, real)
    return difference


@njit(parallel=True, cache=True)
def _at_te_zero(
    phase: FloatArray,
    magnitude: FloatArray,
    unwrapped: FloatArray,
    tissue: BoolArray,
    extrapolation: float,
    steps: Steps,
) -> tuple[FloatArray, FloatArray]:
    """Σ |S₁ S₂| exp(iφ₀) over the voxels of each block of tissue, φ₀ = φ₁ − TE₁/(TE₂ − TE₁) (φ₂ − φ₁)."""
    shape = tissue.shape
    _, nx, ny, nz = phase.shape
    real, imaginary = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for i in prange(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                if not tissue[i, j, k]:
                    continue
                near = unwrapped[i, j, k]
                for x in range(i * steps[0], min((i + 1) * steps[0], nx)):
                    for y in range(j * steps[1], min((j + 1) * steps[1], ny)):
                        for z in range(k * steps[2], min((k + 1) * steps[2], nz)):
                            difference = near + wrap(phase[1, x, y, z] - phase[0, x, y, z] - near)
                            angle = phase[0, x, y, z] - extrapolation * difference
                            worth = magnitude[0, x, y, z] * magnitude[1, x, y, z]
                            real[i, j, k] += worth * math.cos(angle)
                            imaginary[i, j, k] += worth * math.sin(angle)
    return real, imaginary


def _thick(tissue: BoolArray, geometry: Geometry) -> BoolArray:
    """Opening with a box of THICK_MM; the edge of the volume is no edge of the tissue."""
    box = [1 + 2 * round(THICK_MM / (2 * v)) for v in geometry.voxel_size]
    core = ndimage.minimum_filter(tissue.view(np.uint8), box, mode="nearest")
    return np.asarray(ndimage.maximum_filter(core, box, mode="nearest"), bool)


def _smooth_angle(real: FloatArray, imaginary: FloatArray, geometry: Geometry, sigma_mm: float) -> FloatArray:
    """Argument of the smoothed real + i imaginary, what it missed smoothed in turn and added (twicing)."""
    smoothed = np.zeros_like(real)
    for _ in range(PASSES):
        cos, sin = np.cos(smoothed), np.sin(smoothed)
        rest = smooth(real * cos + imaginary * sin, geometry, sigma_mm)
        smoothed += np.arctan2(smooth(imaginary * cos - real * sin, geometry, sigma_mm), rest)
    return smoothed


@njit(parallel=True, cache=True)
def _subtract(phase: FloatArray, offset: FloatArray, steps: Steps, result: FloatArray) -> None:
    """φ − φ₀, wrapped; φ₀, given on blocks, is interpolated between their middles and goes on beyond the last."""
    echoes, nx, ny, nz = phase.shape
    for x in prange(nx):
        nodes, line = np.empty(offset.shape[2], np.float32), np.empty(nz, np.float32)
        i, i1, u = between(x, steps[0], offset.shape[0])
        for y in range(ny):
            j, j1, v = between(y, steps[1], offset.shape[1])
            one, two, both = np.float32((1 - u) * v), np.float32(u * (1 - v)), np.float32(u * v)
            for k in range(nodes.size):
                nearest = offset[i, j, k]
                beside = one * wrap(offset[i, j1, k] - nearest) + two * wrap(offset[i1, j, k] - nearest)
                nodes[k] = nearest + beside + both * wrap(offset[i1, j1, k] - nearest)
            for z in range(nz):
                k, k1, w = between(z, steps[2], nodes.size)
                line[z] = nodes[k] + np.float32(w) * wrap(nodes[k1] - nodes[k])
            for echo in range(echoes):
                for z in range(nz):
                    result[echo, x, y, z] = wrap(phase[echo, x, y, z] - line[z])
