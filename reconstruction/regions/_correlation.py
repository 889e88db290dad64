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


@njit(parallel=True, cache=True)
def add_force(
    fixed: FloatArray, moving: FloatArray, counts: FloatArray, weight: np.float32, flat: np.float32, force: FloatArray
) -> None:
    """Adds `weight` times the derivative of the correlation by a displacement of `moving` to `force` (3, x, y, z).

    fixed, moving: float32 (x, y, z).  counts: 1 where a voxel counts, 0 elsewhere.  flat: variance, in the images'
    units, that is added to both, so that flat patches say nothing.
    """
    nx, ny, nz = fixed.shape
    # cc = s_fm |s_fm| / (s_ff s_mm) over a patch; d cc / d m(y) = f(y) a − m(y) b + c, summed over the patches round y.
    a, b, c = np.empty_like(fixed), np.empty_like(fixed), np.empty_like(fixed)
    least = FEWEST * (2 * RADIUS + 1) ** 3
    for i in prange(nx):
        sums = np.zeros((6, ny, nz), np.float32)
        low, high = max(0, i - RADIUS), min(nx, i + RADIUS + 1)
        for p in range(low, high):
            for j in range(ny):
                for k in range(nz):
                    w, f, m = counts[p, j, k], fixed[p, j, k], moving[p, j, k]
                    wf, wm = w * f, w * m
                    sums[0, j, k] += w
                    sums[1, j, k] += wf
                    sums[2, j, k] += wm
                    sums[3, j, k] += wf * f
                    sums[4, j, k] += wm * m
                    sums[5, j, k] += wf * m
        _box(sums)
        for j in range(ny):
            for k in range(nz):
                n = sums[0, j, k]
                if n < least:
                    a[i, j, k] = b[i, j, k] = c[i, j, k] = 0
                    continue
                mean_f, mean_m = sums[1, j, k] / n, sums[2, j, k] / n
                ff = sums[3, j, k] / n - mean_f * mean_f + flat
                mm = sums[4, j, k] / n - mean_m * mean_m + flat
                fm = sums[5, j, k] / n - mean_f * mean_m
                slope = 2 * abs(fm) / (ff * mm)
                a[i, j, k] = slope / n
                b[i, j, k] = slope * fm / mm / n
                c[i, j, k] = b[i, j, k] * mean_m - a[i, j, k] * mean_f
    for i in prange(nx):
        sums = np.zeros((3, ny, nz), np.float32)
        for p in range(max(0, i - RADIUS), min(nx, i + RADIUS + 1)):
            sums[0] += a[p]
            sums[1] += b[p]
            sums[2] += c[p]
        _box(sums)
        before, after = max(0, i - 1), min(nx - 1, i + 1)
        for j in range(ny):
            for k in range(nz):
                w = counts[i, j, k] * weight
                if w == 0:
                    continue
                pull = w * (fixed[i, j, k] * sums[0, j, k] - moving[i, j, k] * sums[1, j, k] + sums[2, j, k])
                force[0, i, j, k] += pull * (moving[after, j, k] - moving[before, j, k]) / 2
                force[1, i, j, k] += pull * (moving[i, min(ny - 1, j + 1), k] - moving[i, max(0, j - 1), k]) / 2
                force[2, i, j, k] += pull * (moving[i, j, min(nz - 1, k + 1)] - moving[i, j, max(0, k - 1)]) / 2


@njit(cache=True)
def _box(sums: FloatArray) -> None:
    """Sums over 2 RADIUS + 1 neighbours along the last two axes, in place; nothing lies outside."""
    _, ny, nz = sums.shape
    wide = np.zeros((ny, nz), np.float32)
    for field in sums:
        wide[:] = 0
        for j in range(ny):
            for q in range(max(0, j - RADIUS), min(ny, j + RADIUS + 1)):
                for k in range(nz):
                    wide[j, k] += field[q, k]
        field[:] = 0
        for j in range(ny):
            for s in range(-RADIUS, RADIUS + 1):
                for k in range(max(0, -s), min(nz, nz - s)):
                    field[j, k] += wide[j, k + s]
