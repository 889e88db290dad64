"""Forward differences with periodic ends, their exact adjoint, and the spectrum of the two in a row."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.arrays import Array
from reconstruction.fourier import Shape, frequencies, zeros_like


def forward(volume: FloatArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    """∇: differences to the next voxel along x, y, z per mm; (3, x, y, z)."""
    xp = array_namespace(volume)
    out: FloatArray = zeros_like(volume, (3, *volume.shape))
    if is_numpy_array(volume):
        _forward(volume, np.array(voxel_size, volume.dtype), out)
        return out
    for axis, step in enumerate(voxel_size):
        out[axis, ...] = (xp.roll(volume, -1, axis=axis) - volume) / step
    return out


@njit(parallel=True, cache=True)
def _forward(volume: FloatArray, size: FloatArray, out: FloatArray) -> None:
    nx, ny, nz = volume.shape
    for i in prange(nx):
        after_i = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            after_j = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                after_k = k + 1 if k + 1 < nz else 0
                here = volume[i, j, k]
                out[0, i, j, k] = (volume[after_i, j, k] - here) / size[0]
                out[1, i, j, k] = (volume[i, after_j, k] - here) / size[1]
                out[2, i, j, k] = (volume[i, j, after_k] - here) / size[2]


def squares_within(inside: BoolArray, volume: FloatArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    """|∇|² at each voxel, of those differences of which both voxels are inside; here the ends are not periodic."""
    xp = array_namespace(volume)
    if is_numpy_array(volume):
        found: FloatArray = np.empty_like(volume)
        _squares_within(inside, volume, np.array(voxel_size, volume.dtype), found)
        return found
    found = xp.zeros_like(volume)
    for axis, step in enumerate(voxel_size):
        here, after = (
            tuple(part if other == axis else slice(None) for other in range(3))
            for part in (slice(None, -1), slice(1, None))
        )
        change = (volume[after] - volume[here]) / step
        found[here] += xp.where(inside[here] & inside[after], change * change, 0.0)
    return found


@njit(parallel=True, cache=True)
def _squares_within(inside: BoolArray, volume: FloatArray, size: FloatArray, found: FloatArray) -> None:
    nx, ny, nz = volume.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = volume.dtype.type(0)
                if inside[i, j, k]:
                    if i + 1 < nx and inside[i + 1, j, k]:
                        total += ((volume[i + 1, j, k] - volume[i, j, k]) / size[0]) ** 2
                    if j + 1 < ny and inside[i, j + 1, k]:
                        total += ((volume[i, j + 1, k] - volume[i, j, k]) / size[1]) ** 2
                    if k + 1 < nz and inside[i, j, k + 1]:
                        total += ((volume[i, j, k + 1] - volume[i, j, k]) / size[2]) ** 2
                found[i, j, k] = total


def adjoint(vectors: FloatArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    """∇ᵀ (minus the divergence) of vectors (3, x, y, z): ⟨∇u, v⟩ = ⟨u, ∇ᵀv⟩."""
    xp = array_namespace(vectors)
    out: FloatArray = zeros_like(vectors, vectors.shape[1:])
    for axis, step in enumerate(voxel_size):
        along = vectors[axis, ...]
        out += (xp.roll(along, 1, axis=axis) - along) / step
    return out


def spectrum(shape: Shape, voxel_size: tuple[float, float, float], of: Array | None = None) -> FloatArray:
    """The half spectrum of ∇ᵀ∇ (minus the Laplacian), 1/mm²: Σ (2 sin(π k h) / h)² over the axes.

    of: an array whose library and device it shall have; NumPy's without.
    """
    axes = frequencies(shape, voxel_size, of)
    xp = array_namespace(*axes)
    along_x, along_y, along_z = ((2 * xp.sin(np.pi * h * k) / h) ** 2 for k, h in zip(axes, voxel_size, strict=True))
    out: FloatArray = along_x + along_y + along_z
    return out
