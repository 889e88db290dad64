"""Trilinear values between voxels; beyond an edge an image goes on as at the edge."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction.acquisition import FloatArray


def resliced(
    images: FloatArray, matrix: NDArray[np.float64], offset: NDArray[np.float64], shape: tuple[int, ...]
) -> FloatArray:
    """Images (n, x, y, z) on another grid: voxel i of (n, *shape) is taken from matrix i + offset."""
    out = np.empty((len(images), *shape), np.float32)
    # Numba compiles anew for each layout of an array in memory.
    images = np.ascontiguousarray(images, np.float32)
    _reslice(images, np.ascontiguousarray(matrix, np.float64), np.ascontiguousarray(offset, np.float64), out)
    return out


def sampled(images: FloatArray, at: FloatArray) -> FloatArray:
    """Images (n, x, y, z) at voxels `at` (3, u, v, w)."""
    out = np.empty((len(images), *at.shape[1:]), np.float32)
    _sample(np.ascontiguousarray(images, np.float32), np.ascontiguousarray(at, np.float32), out)
    return out


@njit(parallel=True, cache=True)
def _reslice(images: FloatArray, matrix: NDArray[np.float64], offset: NDArray[np.float64], out: FloatArray) -> None:
    for i in prange(out.shape[1]):
        for j in range(out.shape[2]):
            start = matrix[:, 0] * i + matrix[:, 1] * j + offset
            for k in range(out.shape[3]):
                x = np.float32(start[0] + matrix[0, 2] * k)
                y = np.float32(start[1] + matrix[1, 2] * k)
                z = np.float32(start[2] + matrix[2, 2] * k)
                _between(images, x, y, z, out[:, i, j, k])


@njit(parallel=True, cache=True)
def _sample(images: FloatArray, at: FloatArray, out: FloatArray) -> None:
    for i in prange(out.shape[1]):
        for j in range(out.shape[2]):
            for k in range(out.shape[3]):
                _between(images, at[0, i, j, k], at[1, i, j, k], at[2, i, j, k], out[:, i, j, k])


@njit(cache=True, inline="always")
def _between(images: FloatArray, x: np.float32, y: np.float32, z: np.float32, out: FloatArray) -> None:
    nx, ny, nz = images.shape[1:]
    one = np.float32(1)
    x = np.float32(min(max(x, np.float32(0)), np.float32(nx - 1)))
    y = np.float32(min(max(y, np.float32(0)), np.float32(ny - 1)))
    z = np.float32(min(max(z, np.float32(0)), np.float32(nz - 1)))
    p, q, r = int(x), int(y), int(z)
    s, t, u = min(p + 1, nx - 1), min(q + 1, ny - 1), min(r + 1, nz - 1)
    a, b, c = x - np.float32(p), y - np.float32(q), z - np.float32(r)
    for n in range(len(images)):
        image = images[n]
        low = (one - b) * ((one - c) * image[p, q, r] + c * image[p, q, u])
        low += b * ((one - c) * image[p, t, r] + c * image[p, t, u])
        high = (one - b) * ((one - c) * image[s, q, r] + c * image[s, q, u])
        high += b * ((one - c) * image[s, t, r] + c * image[s, t, u])
        out[n] = (one - a) * low + a * high
