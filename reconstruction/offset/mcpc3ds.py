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
from reconstruction.intensity import even_intensity, percentile
from reconstruction.region_growing import edge_costs, grow, settle_turns, wrap
from reconstruction.smoothing import smooth

Steps = tuple[int, int, int]

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
    offset, steps = _offset_on_blocks(phase, magnitude, echo_times, geometry, smoothing_mm)
    return _subtract(phase, np.cos(offset), np.sin(offset), steps)


def phase_offset(
    phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...], geometry: Geometry, smoothing_mm: float
) -> FloatArray:
    """φ₀ in radian, wrapped, float32 (x, y, z), continued smoothly where there is no signal.

    The arguments are those of `mcpc3ds`.
    """
    offset, steps = _offset_on_blocks(phase, magnitude, echo_times, geometry, smoothing_mm)
    return -_subtract(np.zeros_like(phase[:1]), np.cos(offset), np.sin(offset), steps)[0]


def _offset_on_blocks(
    phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...], geometry: Geometry, smoothing_mm: float
) -> tuple[FloatArray, tuple[int, int, int]]:
    """φ₀ in radian, wrapped, and the voxels along each axis of the blocks that it is given on.

    With evenly spaced echoes the multiple of 2π of the echo difference cannot be told and does no harm: it adds the
    same constant frequency 1/(TE₂ − TE₁) to every echo.
    """
    sx, sy, sz = (max(1, round(smoothing_mm / BLOCKS / v)) for v in geometry.voxel_size)
    steps = (sx, sy, sz)
    first, weight, difference = _blocks(phase[0], phase[1], magnitude[0], magnitude[1], steps)
    voxel_size = (geometry.voxel_size[0] * sx, geometry.voxel_size[1] * sy, geometry.voxel_size[2] * sz)
    coarse = Geometry((weight.shape[0], weight.shape[1], weight.shape[2]), voxel_size, geometry.b0_direction)
    tissue = weight > FOREGROUND**2 * percentile(weight, 99)
    tissue &= _thick(even_intensity(first[None], coarse) > TISSUE, coarse)
    unwrapped, _ = grow(difference, edge_costs(difference, np.sqrt(weight), tissue), tissue)
    if len(echo_times) > 2:
        stretch = (echo_times[2] - echo_times[1]) / (echo_times[1] - echo_times[0])
        _, _, later = _blocks(phase[1], phase[2], magnitude[1], magnitude[2], steps)
        settle_turns(unwrapped, later, stretch, weight, tissue)
    extrapolation = echo_times[0] / (echo_times[1] - echo_times[0])
    real, imaginary = _at_te_zero(phase, magnitude, unwrapped, tissue, extrapolation, steps)
    return _smooth_angle(real, imaginary, coarse, smoothing_mm), steps


@njit(parallel=True, cache=True)
def _blocks(
    early: FloatArray, late: FloatArray, early_magnitude: FloatArray, late_magnitude: FloatArray, steps: Steps
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Over blocks: the mean of |S₁|, that of the Hermitian inner product S₁* S₂ by magnitude, and by phase φ₂ − φ₁."""
    shape = _blocks_of(early.shape, steps)
    first, weight, difference = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for i in prange(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                total, worth, real, imaginary, count = 0.0, 0.0, 0.0, 0.0, 0
                for x in range(i * steps[0], min((i + 1) * steps[0], early.shape[0])):
                    for y in range(j * steps[1], min((j + 1) * steps[1], early.shape[1])):
                        for z in range(k * steps[2], min((k + 1) * steps[2], early.shape[2])):
                            angle = late[x, y, z] - early[x, y, z]
                            product = early_magnitude[x, y, z] * late_magnitude[x, y, z]
                            real += product * math.cos(angle)
                            imaginary += product * math.sin(angle)
                            total += early_magnitude[x, y, z]
                            worth += product
                            count += 1
                first[i, j, k] = total / count
                weight[i, j, k] = worth / count
                difference[i, j, k] = math.atan2(imaginary, real)
    return first, weight, difference


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


@njit(cache=True, inline="always")
def _blocks_of(shape: Steps, steps: Steps) -> Steps:
    """How many blocks cover the volume; the last of an axis may be smaller."""
    return (
        (shape[0] + steps[0] - 1) // steps[0],
        (shape[1] + steps[1] - 1) // steps[1],
        (shape[2] + steps[2] - 1) // steps[2],
    )


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
def _subtract(phase: FloatArray, real: FloatArray, imaginary: FloatArray, steps: Steps) -> FloatArray:
    """φ − φ₀, wrapped; exp(iφ₀), given on blocks, is interpolated between their middles and goes on beyond the last."""
    echoes, nx, ny, nz = phase.shape
    result = np.empty_like(phase)
    for x in prange(nx):
        i, u = _between(x, steps[0], real.shape[0])
        i1 = min(i + 1, real.shape[0] - 1)
        for y in range(ny):
            j, v = _between(y, steps[1], real.shape[1])
            j1 = min(j + 1, real.shape[1] - 1)
            for z in range(nz):
                k, w = _between(z, steps[2], real.shape[2])
                k1 = min(k + 1, real.shape[2] - 1)
                total_real, total_imaginary = 0.0, 0.0
                for a, share_x in ((i, 1 - u), (i1, u)):
                    for b, share_y in ((j, 1 - v), (j1, v)):
                        for c, share_z in ((k, 1 - w), (k1, w)):
                            share = share_x * share_y * share_z
                            total_real += share * real[a, b, c]
                            total_imaginary += share * imaginary[a, b, c]
                offset = math.atan2(total_imaginary, total_real)
                for echo in range(echoes):
                    result[echo, x, y, z] = wrap(phase[echo, x, y, z] - offset)
    return result


@njit(cache=True, inline="always")
def _between(voxel: int, step: int, blocks: int) -> tuple[int, float]:
    """The block whose middle lies before a voxel, and the part of the way to the next one's."""
    place = min(max((voxel + 0.5) / step - 0.5, 0.0), blocks - 1.0)
    block = int(place)
    return block, place - block
