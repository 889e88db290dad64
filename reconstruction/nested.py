"""From a fine grid to a coarse one and back, in any library's arrays: coarse voxels are blocks of fine ones.

What is smooth is found cheaply on the coarse grid, and the fine one begins with it (nested iteration: Hackbusch 1985,
Multi-Grid Methods and Applications, doi:10.1007/978-3-662-02427-0).
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from reconstruction.acquisition import FloatArray
from reconstruction.arrays import Array, like
from reconstruction.fourier import zeros_like

Factors = tuple[int, int, int]
"""Fine voxels along x, y and z that make a coarse one."""

VoxelSize = tuple[float, float, float]


def times(voxel_size: VoxelSize, factors: Factors) -> VoxelSize:
    """The coarse grid's voxels."""
    x, y, z = (size * factor for size, factor in zip(voxel_size, factors, strict=True))
    return x, y, z


def mean_of_blocks(volume: Array, factors: Factors, beyond: float = 0.0) -> Array:
    """The mean of each block; `beyond` is what lies behind the volume's end."""
    if factors == (1, 1, 1):
        return volume
    xp = array_namespace(volume)
    shape = [-(-n // f) for n, f in zip(volume.shape, factors, strict=True)]
    x, y, z = (n * f for n, f in zip(shape, factors, strict=True))
    whole = xp.full_like(zeros_like(volume, (x, y, z)), beyond)
    whole[: volume.shape[0], : volume.shape[1], : volume.shape[2]] = volume
    blocks = xp.reshape(whole, (shape[0], factors[0], shape[1], factors[1], shape[2], factors[2]))
    mean: Array = xp.mean(blocks, axis=(1, 3, 5))
    return mean


def weighted_means(volume: FloatArray, weight: FloatArray, factors: Factors) -> tuple[FloatArray, FloatArray]:
    """Each block's mean by weight, 0 where nothing weighs, and its mean weight."""
    if factors == (1, 1, 1):
        return volume, weight
    xp = array_namespace(volume)
    share = mean_of_blocks(weight, factors)
    mean: FloatArray = mean_of_blocks(weight * volume, factors) / xp.where(share > 0, share, 1.0)
    return mean, share


def between_blocks(volume: FloatArray, factors: Factors) -> FloatArray:
    """On straight lines between the blocks' middles; beyond the last middle as there."""
    xp = array_namespace(volume)
    for axis, factor in enumerate(factors):
        if factor > 1:
            size = volume.shape[axis]
            place = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
            before = np.minimum(place.astype(np.int64), max(size - 2, 0))
            along = tuple(-1 if other == axis else 1 for other in range(3))
            part = xp.reshape(like((place - before).astype(np.float32), volume), along)
            first, second = (
                xp.take(volume, like(index, volume), axis=axis) for index in (before, np.minimum(before + 1, size - 1))
            )
            volume = first + part * (second - first)
    return volume
