"""Forward differences with periodic ends, their exact adjoint, and the spectrum of the two in a row."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import FloatArray
from reconstruction.fourier import Shape, frequencies


def forward(volume: FloatArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    """∇: differences to the next voxel along x, y, z per mm; (3, x, y, z)."""
    out = np.empty((3, *volume.shape), dtype=volume.dtype)
    for axis, step in enumerate(voxel_size):
        np.subtract(np.roll(volume, -1, axis), volume, out=out[axis])
        out[axis] /= step
    return out


def adjoint(vectors: FloatArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    """∇ᵀ (minus the divergence) of vectors (3, x, y, z): ⟨∇u, v⟩ = ⟨u, ∇ᵀv⟩."""
    out = np.zeros(vectors.shape[1:], dtype=vectors.dtype)
    for axis, step in enumerate(voxel_size):
        out += (np.roll(vectors[axis], 1, axis) - vectors[axis]) / step
    return out


def spectrum(shape: Shape, voxel_size: tuple[float, float, float]) -> FloatArray:
    """The half spectrum of ∇ᵀ∇ (minus the Laplacian), 1/mm²: Σ (2 sin(π k h) / h)² over the axes."""
    along_x, along_y, along_z = (
        (2 * np.sin(np.pi * k * np.float32(h)) / np.float32(h)) ** 2
        for k, h in zip(frequencies(shape, voxel_size), voxel_size, strict=True)
    )
    out: FloatArray = along_x + along_y + along_z
    return out
