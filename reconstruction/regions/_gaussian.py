"""Gaussian smoothing of several volumes at once; beyond an edge a volume goes on as at the edge."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import FloatArray

REACH = 3.0
"""Standard deviations to which a Gaussian is computed."""


def gaussian(images: FloatArray, sd: float, every: int = 1) -> FloatArray:
    """Images (n, x, y, z) smoothed with a Gaussian of `sd` voxels, of every so many voxels along each axis."""
    reach = int(REACH * sd + 0.5)
    if reach == 0:
        return np.ascontiguousarray(images[:, ::every, ::every, ::every], np.float32)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sd) ** 2)
    count, *shape = images.shape
    out = np.empty((count, *(-(-n // every) for n in shape)), np.float32)
    _smooth(np.ascontiguousarray(images, np.float32), np.asarray(weights / weights.sum(), np.float32), every, out)
    return out


@njit(parallel=True, cache=True)
def _smooth(images: FloatArray, kernel: FloatArray, every: int, out: FloatArray) -> None:
    """Plane by plane, each weight times all of a plane at once: what lies in one piece of memory is added fastest."""
    _, nx, ny, nz = images.shape
    thinned = out.shape[1]
    reach = kernel.size // 2
    wide = nz + 2 * reach
    for place in prange(out.shape[0] * thinned):
        n, i = place // thinned, place % thinned
        plane = np.zeros(ny * nz, np.float32)
        for w in range(kernel.size):
            _add(plane, kernel[w], images[n, min(max(i * every + w - reach, 0), nx - 1)].reshape(-1))
        framed = np.empty((ny + 2 * reach, wide), np.float32)
        for j in range(ny + 2 * reach):
            start = min(max(j - reach, 0), ny - 1) * nz
            for k in range(wide):
                framed[j, k] = plane[start + min(max(k - reach, 0), nz - 1)]
        along_y = np.zeros(ny * wide, np.float32)
        for w in range(kernel.size):
            _add(along_y, kernel[w], framed.reshape(-1)[w * wide :])
        along_z = np.zeros(ny * wide - 2 * reach, np.float32)
        for w in range(kernel.size):
            _add(along_z, kernel[w], along_y[w:])
        for j in range(out.shape[2]):
            for k in range(out.shape[3]):
                out[n, i, j, k] = along_z[j * every * wide + k * every]


@njit(cache=True)
def _add(total: FloatArray, weight: np.float32, part: FloatArray) -> None:
    for k in range(total.size):
        total[k] += weight * part[k]
