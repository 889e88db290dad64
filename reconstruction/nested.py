"""From a fine grid to a coarse one and back, in any library's arrays: coarse voxels are blocks of fine ones.

What is smooth is found cheaply on the coarse grid, and the fine one begins with it (nested iteration: Hackbusch 1985,
Multi-Grid Methods and Applications, doi:10.1007/978-3-662-02427-0).
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.arrays import Array
from reconstruction.fourier import zeros_like
from reconstruction.pieces import box_of

Factors = tuple[int, int, int]
"""Fine voxels along x, y and z that make a coarse one."""

VoxelSize = tuple[float, float, float]

ONE = np.float32(1)


def times(voxel_size: VoxelSize, factors: Factors) -> VoxelSize:
    """The coarse grid's voxels."""
    x, y, z = (size * factor for size, factor in zip(voxel_size, factors, strict=True))
    return x, y, z


def from_the_mask(mask: BoolArray, factors: Factors) -> tuple[slice, slice, slice]:
    """The image from where whole blocks begin at the mask's: what is found then does not depend on where the mask lies.

    mask: bool (x, y, z), not empty.
    """
    x, y, z = (slice(part.start % factor, None) for part, factor in zip(box_of(mask), factors, strict=True))
    return x, y, z


def mean_of_blocks(volume: Array, factors: Factors, beyond: float = 0.0) -> Array:
    """The mean of each block; `beyond` is what lies behind the volume's end."""
    if factors == (1, 1, 1):
        return volume
    x, y, z = (-(-n // f) * f for n, f in zip(volume.shape, factors, strict=True))
    total = volume
    if (x, y, z) != volume.shape:
        total = array_namespace(volume).full_like(zeros_like(volume, (x, y, z)), beyond)
        total[: volume.shape[0], : volume.shape[1], : volume.shape[2]] = volume
    for axis, factor in enumerate(factors):
        parts = (total[_every(axis, first, factor)] for first in range(factor))
        total = sum(parts, start=next(parts))
    return total / math.prod(factors)


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
    if factors == (1, 1, 1):
        return volume
    if is_numpy_array(volume):
        x, y, z = (n * factor for n, factor in zip(volume.shape, factors, strict=True))
        fine = np.empty((x, y, z), volume.dtype)
        _between(volume, factors, fine)
        return fine
    xp = array_namespace(volume)
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        size = volume.shape[axis]
        first, last = _part(axis, slice(0, 1)), _part(axis, slice(size - 1, size))
        before = xp.concat((volume[first], volume[_part(axis, slice(0, size - 1))]), axis=axis)
        after = xp.concat((volume[_part(axis, slice(1, size))], volume[last]), axis=axis)
        shape = tuple(n * factor if other == axis else n for other, n in enumerate(volume.shape))
        out = zeros_like(volume, shape)
        for place in range(factor):
            off = (place + 0.5) / factor - 0.5  # of the block's middle, in blocks
            out[_every(axis, place, factor)] = (1 - abs(off)) * volume + abs(off) * (before if off < 0 else after)
        volume = out
    return volume


@njit(parallel=True, cache=True)
def _between(volume: FloatArray, factors: Factors, out: FloatArray) -> None:
    """All three axes in one pass over memory."""
    nx, ny, nz = volume.shape
    for i in prange(out.shape[0]):
        x, x_other, u = _neighbours(i, factors[0], nx)
        for j in range(out.shape[1]):
            y, y_other, v = _neighbours(j, factors[1], ny)
            for k in range(out.shape[2]):
                z, z_other, w = _neighbours(k, factors[2], nz)
                near = (ONE - v) * volume[x, y, z] + v * volume[x, y_other, z]
                far = (ONE - v) * volume[x_other, y, z] + v * volume[x_other, y_other, z]
                here = (ONE - u) * near + u * far
                near = (ONE - v) * volume[x, y, z_other] + v * volume[x, y_other, z_other]
                far = (ONE - v) * volume[x_other, y, z_other] + v * volume[x_other, y_other, z_other]
                out[i, j, k] = (ONE - w) * here + w * ((ONE - u) * near + u * far)


@njit(inline="always")
def _neighbours(fine: int, factor: int, blocks: int) -> tuple[int, int, np.float32]:
    """The block of a fine voxel, the one on its other side, and that one's weight."""
    block = fine // factor
    off = (fine % factor + 0.5) / factor - 0.5
    other = max(block - 1, 0) if off < 0 else min(block + 1, blocks - 1)
    return block, other, np.float32(abs(off))


def _every(axis: int, first: int, step: int) -> tuple[slice, ...]:
    return _part(axis, slice(first, None, step))


def _part(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if other == axis else slice(None) for other in range(3))
