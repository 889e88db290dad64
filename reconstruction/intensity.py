"""All echoes together with the coils' shading taken out: the image on which tissue is told from bone and air."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.blocks import Steps, along, between, coarse, steps_of
from reconstruction.noise import noise_of_detail
from reconstruction.smoothing import smooth

SHADING_MM = 30.0
"""Standard deviation of the Gaussian that tells shading from anatomy: wider than a lobe, narrower than the head."""

BLOCKS = 8
"""To one standard deviation of that Gaussian: means over blocks and lines between them change it by less than 1 %."""

FOREGROUND = 0.1
"""Fraction of the bright signal above which a voxel counts as tissue (t of doi:10.1002/hbm.10062)."""

ABOVE_AIR = 1.5
"""Over the level of air's noise, which in the root sum of squares of E echoes is √(2E) times one channel's noise."""

NEAR = 1e-3
"""Share of tissue under the Gaussian below which a place is outside the head (some 100 mm from it)."""


SAMPLES_ALONG = 64
"""Along each axis at least, where a percentile is estimated: the 1 % beyond the 99th are still thousands of voxels."""


def percentile(volume: FloatArray, percent: float, where: BoolArray | None = None) -> float:
    """Of a volume (x, y, z), or of its voxels in the mask `where`, from an even grid of them; 0 for none.

    A large volume has millions of voxels and an image's levels do not need them all.
    """
    grid = tuple(slice(None, None, max(1, n // SAMPLES_ALONG)) for n in volume.shape)
    if where is None:
        return float(np.percentile(volume[grid], percent))
    sampled = volume[grid][where[grid]]
    if sampled.size < SAMPLES_ALONG:
        sampled = volume[where]
    return float(np.percentile(sampled, percent)) if sampled.size else 0.0


def even_intensity(magnitude: FloatArray, geometry: Geometry) -> FloatArray:
    """Root sum of squares over echoes divided by its own shading; 1 is the local mean of tissue.

    magnitude: float32 (echo, x, y, z).  Returns float32 (x, y, z); 0 where there is no tissue near.
    """
    combined = root_sum_of_squares(magnitude)
    bright = percentile(combined, 98)
    air = noise_of_detail(combined, combined > 0) * np.sqrt(2 * len(magnitude))
    steps = steps_of(geometry, SHADING_MM / BLOCKS)
    grid = coarse(geometry, steps)
    total, near = np.zeros((2, *grid.shape), np.float32)
    _sum_tissue(combined, max(FOREGROUND * bright, ABOVE_AIR * air), bright, steps, total, near)
    total, near = smooth(total, grid, SHADING_MM), smooth(near, grid, SHADING_MM)
    _divide(combined, total, near, np.float32(NEAR * np.prod(steps)), steps)
    return combined


def root_sum_of_squares(magnitude: FloatArray) -> FloatArray:
    """Over echoes (echo, x, y, z)."""
    combined = np.empty(magnitude.shape[1:], np.float32)
    _combine(magnitude, combined)
    return combined


@njit(parallel=True, cache=True)
def _combine(magnitude: FloatArray, combined: FloatArray) -> None:
    echoes, nx, ny, nz = magnitude.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                combined[x, y, z] = magnitude[0, x, y, z] ** 2
            for echo in range(1, echoes):
                for z in range(nz):
                    combined[x, y, z] += magnitude[echo, x, y, z] ** 2
            for z in range(nz):
                combined[x, y, z] = math.sqrt(combined[x, y, z])


@njit(parallel=True, cache=True)
def _sum_tissue(
    image: FloatArray, threshold: float, bright: float, steps: Steps, total: FloatArray, near: FloatArray
) -> None:
    """Over each block: the image, no brighter than `bright`, of the voxels above the threshold, and their number."""
    nx, ny, nz = image.shape
    for i in prange(total.shape[0]):
        for x in range(i * steps[0], min((i + 1) * steps[0], nx)):
            for y in range(ny):
                j = y // steps[1]
                for z in range(nz):
                    if image[x, y, z] > threshold:
                        k = z // steps[2]
                        total[i, j, k] += min(image[x, y, z], bright)
                        near[i, j, k] += 1


@njit(parallel=True, cache=True)
def _divide(image: FloatArray, total: FloatArray, near: FloatArray, least: np.float32, steps: Steps) -> None:
    """The image by the mean that `total` and `near` make, in place; 0 where there is less than `least`."""
    nx, ny, nz = image.shape
    for x in prange(nx):
        sums, counts = np.empty(total.shape[2], np.float32), np.empty(total.shape[2], np.float32)
        for y in range(ny):
            along(total, x, y, steps, sums)
            along(near, x, y, steps, counts)
            for z in range(nz):
                k, k1, w = between(z, steps[2], sums.size)
                share = np.float32(w)
                count = counts[k] + share * (counts[k1] - counts[k])
                shading = sums[k] + share * (sums[k1] - sums[k])
                image[x, y, z] = image[x, y, z] * count / shading if count > least else np.float32(0)
