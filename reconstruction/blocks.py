"""Volumes on blocks of voxels: what varies over many millimetres is looked for there, and brought back by
interpolation between the blocks' middles."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import FloatArray, Geometry

Steps = tuple[int, int, int]
"""Voxels of a block along x, y and z."""


def steps_of(geometry: Geometry, size_mm: float) -> Steps:
    """Those of the blocks nearest to `size_mm` along each axis."""
    sx, sy, sz = (max(1, round(size_mm / v)) for v in geometry.voxel_size)
    return sx, sy, sz


def coarse(geometry: Geometry, steps: Steps) -> Geometry:
    """The grid of the blocks that cover a volume; the last along an axis may reach beyond it."""
    nx, ny, nz = (-(-n // step) for n, step in zip(geometry.shape, steps, strict=True))
    dx, dy, dz = (v * step for v, step in zip(geometry.voxel_size, steps, strict=True))
    return Geometry((nx, ny, nz), (dx, dy, dz), geometry.b0_direction)


def means(volume: FloatArray, steps: Steps) -> FloatArray:
    """Of the voxels of each block that the volume has."""
    if steps == (1, 1, 1):
        return volume
    found = np.zeros([-(-n // step) for n, step in zip(volume.shape, steps, strict=True)], np.float32)
    _add_up(volume, steps, found)
    for axis, (n, step) in enumerate(zip(volume.shape, steps, strict=True)):
        counts = np.minimum(step, n - step * np.arange(found.shape[axis])).astype(np.float32)
        found /= counts.reshape([-1 if other == axis else 1 for other in range(3)])
    return found


@njit(parallel=True, cache=True)
def _add_up(volume: FloatArray, steps: Steps, total: FloatArray) -> None:
    nx, ny, nz = volume.shape
    for i in prange(total.shape[0]):
        for j in range(total.shape[1]):
            line = np.zeros(nz, np.float32)
            for x in range(i * steps[0], min((i + 1) * steps[0], nx)):
                for y in range(j * steps[1], min((j + 1) * steps[1], ny)):
                    line += volume[x, y]
            for z in range(nz):
                total[i, j, z // steps[2]] += line[z]


@njit(cache=True, inline="always")
def between(voxel: int, step: int, blocks: int) -> tuple[int, int, float]:
    """The blocks whose middles lie before and behind a voxel, and the part of the way to the second; beyond the last
    middle a volume goes on as there."""
    place = min(max((voxel + 0.5) / step - 0.5, 0.0), blocks - 1.0)
    block = int(place)
    return block, min(block + 1, blocks - 1), place - block


@njit(cache=True)
def along(blocks: FloatArray, x: int, y: int, steps: Steps, line: FloatArray) -> None:
    """Writes what lies at (x, y) between blocks (x, y, z) to `line` (z), still on the blocks along z."""
    i, i1, u = between(x, steps[0], blocks.shape[0])
    j, j1, v = between(y, steps[1], blocks.shape[1])
    a, b = np.float32((1 - u) * (1 - v)), np.float32((1 - u) * v)
    c, d = np.float32(u * (1 - v)), np.float32(u * v)
    for k in range(blocks.shape[2]):
        line[k] = a * blocks[i, j, k] + b * blocks[i, j1, k] + c * blocks[i1, j, k] + d * blocks[i1, j1, k]
