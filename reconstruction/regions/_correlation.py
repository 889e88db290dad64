"""How alike two images are around each voxel, and which way it grows: squared correlation in a cube, its derivative.

Avants et al. 2008, "Symmetric diffeomorphic image registration with cross-correlation",
doi:10.1016/j.media.2007.06.004, with the derivative over all patches that hold a voxel in place of the one around it.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import FloatArray

RADIUS = 2
"""Voxels: half the patch in which contrasts are correlated."""

FEWEST = 0.25
"""Part of a patch that must have been acquired."""


Patches = tuple[FloatArray, FloatArray, FloatArray]
"""Around each voxel, (x, y · z): how many voxels of the patch count, and the image's mean and variance over these."""


@njit(parallel=True, cache=True)
def patches(image: FloatArray, counts: FloatArray) -> Patches:
    """Of an image (x, y, z) that many others are held against.  counts: 1 where a voxel counts, 0 elsewhere."""
    nx, ny, nz = image.shape
    sums = np.empty((3, nx, ny * nz), np.float32)
    for i in prange(nx):
        w, f = counts[i].reshape(-1), image[i].reshape(-1)
        sums[0, i] = _boxed(w, ny, nz)
        sums[1, i] = _boxed(w * f, ny, nz)
        sums[2, i] = _boxed(w * f * f, ny, nz)
    number, mean, variance = np.empty_like(sums[0]), np.empty_like(sums[0]), np.empty_like(sums[0])
    for i in prange(nx):
        n = _across(sums[0], i)
        per = 1 / np.maximum(n, np.float32(1))
        number[i] = n
        mean[i] = _across(sums[1], i) * per
        variance[i] = _across(sums[2], i) * per - mean[i] * mean[i]
    return number, mean, variance


@njit(parallel=True, cache=True)
def add_force(
    fixed: FloatArray,
    around: Patches,
    moving: FloatArray,
    counts: FloatArray,
    weight: np.float32,
    flat: np.float32,
    force: FloatArray,
) -> None:
    """Adds `weight` times the derivative of the correlation by a displacement of `moving` to `force` (3, x, y, z).

    fixed, moving: float32 (x, y, z).  around: the patches of `fixed`.  counts: 1 where a voxel counts, 0 elsewhere.
    flat: variance, in the images' units, that is added to both, so that flat patches say nothing.
    """
    nx, ny, nz = fixed.shape
    number, mean, variance = around
    sums = np.empty((3, nx, ny * nz), np.float32)
    for i in prange(nx):
        w, f, m = counts[i].reshape(-1), fixed[i].reshape(-1), moving[i].reshape(-1)
        wm = w * m
        sums[0, i] = _boxed(wm, ny, nz)
        sums[1, i] = _boxed(wm * m, ny, nz)
        sums[2, i] = _boxed(wm * f, ny, nz)
    # cc = s_fm |s_fm| / (s_ff s_mm) over a patch; d cc / d m(y) = f(y) a − m(y) b + c, summed over the patches round y.
    terms = np.empty((3, nx, ny * nz), np.float32)
    least = np.float32(FEWEST * (2 * RADIUS + 1) ** 3)
    for i in prange(nx):
        a, b, c = _across(sums[0], i), _across(sums[1], i), _across(sums[2], i)
        for v in range(ny * nz):
            n, mean_f = number[i, v], mean[i, v]
            if n < least:
                a[v] = b[v] = c[v] = 0
                continue
            per = np.float32(1) / n
            mean_m = a[v] * per
            mm = b[v] * per - mean_m * mean_m + flat
            fm = c[v] * per - mean_f * mean_m
            slope = np.float32(2) * abs(fm) / ((variance[i, v] + flat) * mm) * per
            a[v] = slope
            b[v] = slope * fm / mm
            c[v] = b[v] * mean_m - a[v] * mean_f
        terms[0, i], terms[1, i], terms[2, i] = _boxed(a, ny, nz), _boxed(b, ny, nz), _boxed(c, ny, nz)
    for i in prange(nx):
        a, b, c = _across(terms[0], i), _across(terms[1], i), _across(terms[2], i)
        before, after = moving[max(0, i - 1)], moving[min(nx - 1, i + 1)]
        here, half = moving[i], weight / np.float32(2)
        for j in range(ny):
            left, right = here[max(0, j - 1)], here[min(ny - 1, j + 1)]
            for k in range(nz):
                v = j * nz + k
                pull = counts[i, j, k] * half * (fixed[i, j, k] * a[v] - here[j, k] * b[v] + c[v])
                force[0, i, j, k] += pull * (after[j, k] - before[j, k])
                force[1, i, j, k] += pull * (right[k] - left[k])
                force[2, i, j, k] += pull * (here[j, min(nz - 1, k + 1)] - here[j, max(0, k - 1)])


@njit(cache=True)
def _boxed(plane: FloatArray, ny: int, nz: int) -> FloatArray:
    """Sums over 2 RADIUS + 1 neighbours along both axes of a plane (ny · nz); nothing lies outside."""
    wide = nz + 2 * RADIUS
    framed = np.zeros((ny + 2 * RADIUS, wide), np.float32)
    framed[RADIUS : RADIUS + ny, RADIUS : RADIUS + nz] = plane.reshape(ny, nz)
    down, along = np.zeros(ny * wide, np.float32), np.zeros(ny * wide - 2 * RADIUS, np.float32)
    for shift in range(2 * RADIUS + 1):
        _add(down, framed.reshape(-1)[shift * wide :])
    for shift in range(2 * RADIUS + 1):
        _add(along, down[shift:])
    boxed = np.empty((ny, nz), np.float32)
    for j in range(ny):
        boxed[j] = along[j * wide : j * wide + nz]
    return boxed.reshape(-1)


@njit(cache=True)
def _across(planes: FloatArray, i: int) -> FloatArray:
    """The sum of 2 RADIUS + 1 neighbouring planes."""
    total = planes[i].copy()
    for p in range(max(0, i - RADIUS), min(len(planes), i + RADIUS + 1)):
        if p != i:
            _add(total, planes[p])
    return total


@njit(cache=True)
def _add(total: FloatArray, part: FloatArray) -> None:
    for v in range(total.size):
        total[v] += part[v]
