"""Forward differences with periodic ends, their exact adjoint, and the spectrum of the two in a row."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from reconstruction.acquisition import FloatArray
from reconstruction.arrays import Array
from reconstruction.fourier import Shape, frequencies, zeros_like


def forward(volume: FloatArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    """∇: differences to the next voxel along x, y, z per mm; (3, x, y, z)."""
    xp = array_namespace(volume)
    out: FloatArray = zeros_like(volume, (3, *volume.shape))
    for axis, step in enumerate(voxel_size):
        out[axis, ...] = (xp.roll(volume, -1, axis=axis) - volume) / step
    return out


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
