"""The Euclidean distance to what lies outside a mask, exactly, one axis after the other.

Felzenszwalb & Huttenlocher 2012, "Distance transforms of sampled functions", doi:10.4086/toc.2012.v008a019: along a
line the squared distance is the lower envelope of a parabola over each of its voxels.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray

FAR = np.float32(np.inf)


def depth(inside: BoolArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    """mm from each voxel's centre to that of the nearest one outside, float32 (x, y, z), 0 outside; infinite where
    nothing is outside.  What lies beyond the volume does not count."""
    squares = np.empty(inside.shape, np.float32)
    dx, dy, dz = voxel_size
    _along_z(np.ascontiguousarray(inside), dz, squares)
    _along_y(squares, dy)
    _along_y(squares.swapaxes(0, 1), dx)
    return np.sqrt(squares, out=squares)


@njit(parallel=True, cache=True)
def _along_z(inside: BoolArray, step: float, squares: FloatArray) -> None:
    nx, ny, nz = inside.shape
    for x in prange(nx):
        for y in range(ny):
            away = FAR
            for z in range(nz):
                away = away + np.float32(1) if inside[x, y, z] else np.float32(0)
                squares[x, y, z] = away
            away = FAR
            for back in range(nz):
                z = nz - 1 - back
                away = away + np.float32(1) if inside[x, y, z] else np.float32(0)
                nearest = min(away, squares[x, y, z]) * step
                squares[x, y, z] = nearest * nearest


@njit(parallel=True, cache=True)
def _along_y(squares: FloatArray, step: float) -> None:
    """squares: of the distance so far; made the least of it and of the way along y, in place."""
    nx, ny, nz = squares.shape
    square = step * step
    for x in prange(nx):
        site, height, begins = np.empty(ny, np.int64), np.empty(ny), np.empty(ny)
        for z in range(nz):
            count = 0
            for y in range(ny):
                if squares[x, y, z] == FAR:
                    continue
                own = squares[x, y, z] + square * y * y
                start = -math.inf
                while count:
                    other = site[count - 1]
                    start = (own - height[count - 1] - square * other * other) / (2 * square * (y - other))
                    if start > begins[count - 1]:
                        break
                    count -= 1
                site[count], height[count] = y, squares[x, y, z]
                begins[count] = start if count else -math.inf
                count += 1
            at = 0
            for y in range(ny if count else 0):
                while at + 1 < count and begins[at + 1] < y:
                    at += 1
                squares[x, y, z] = height[at] + square * (y - site[at]) ** 2
