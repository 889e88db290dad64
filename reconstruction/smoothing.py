"""Gaussian smoothing in mm as one dense matrix for each axis: exact, and as fast as the matrix product."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import FloatArray, Geometry

SUPPORT = 4.0
"""The kernel is cut off at this many standard deviations, where it has fallen to 3 × 10⁻⁴."""


def gaussian_matrix(size: int, sigma: float) -> FloatArray:
    """float32 (size, size): row i holds the Gaussian weights around voxel i.  sigma: voxels; 0 gives the identity.

    The weights around a voxel sum to 1 where the whole kernel lies within the volume, however narrow it is.
    """
    if sigma <= 0:
        return np.eye(size, dtype=np.float32)
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    reach = int(SUPPORT * sigma)
    total = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).sum()
    weights = np.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= reach)
    return np.asarray(weights / total, np.float32)


def smooth(volume: FloatArray, geometry: Geometry, sigma_mm: float) -> FloatArray:
    """Smooths with a Gaussian; what lies outside the volume counts as 0.

    volume: float32 (x, y, z).  sigma_mm: standard deviation in mm.  For a mean over known voxels only, divide by the
    smoothed weights (normalised convolution, Knutsson & Westin 1993, doi:10.1109/CVPR.1993.341081).
    """
    nx, ny, nz = volume.shape
    along_x, along_y, along_z = (
        gaussian_matrix(n, sigma_mm / v) for n, v in zip(volume.shape, geometry.voxel_size, strict=True)
    )
    smoothed = (along_x @ volume.reshape(nx, ny * nz)).reshape(nx, ny, nz)
    smoothed = np.matmul(along_y, smoothed)
    return np.asarray((smoothed.reshape(nx * ny, nz) @ along_z.T).reshape(nx, ny, nz), np.float32)
