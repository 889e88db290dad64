"""Gaussian smoothing in mm as a dense matrix for each axis, or as two narrow ones: as fast as the matrix product."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import FloatArray, Geometry

SUPPORT = 4.0
"""The kernel is cut off at this many standard deviations, where it has fallen to 3 × 10⁻⁴."""

NODES, MARGIN = 0.5, 3.0
"""Standard deviations between two nodes, and how far beyond the volume there are any: both err by less than 10⁻⁵."""

NARROW = 1 / 3
"""Nodes to a voxel, below which it is worth going by them."""


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


def gaussian_factors(size: int, sigma: float) -> tuple[FloatArray, FloatArray] | None:
    """float32 (nodes, size) and (size, nodes), whose product smooths as `gaussian_matrix` does; None where it saves
    nothing.  sigma: voxels.

    A Gaussian of a Gaussian is a wider Gaussian: the first matrix takes a volume to nodes, the second brings it back.
    """
    step = NODES * sigma
    count = int((size + 2 * MARGIN * sigma) / max(step, NODES)) + 1
    if count > NARROW * size:
        return None
    nodes = (size - 1) / 2 + step * (np.arange(count) - (count - 1) / 2)
    away = np.subtract.outer(nodes, np.arange(size)) / sigma
    to_nodes = np.exp(-(away**2))
    total = sigma * np.sqrt(2 * np.pi) * np.sqrt(np.pi / 2) / NODES
    return np.asarray(to_nodes / total, np.float32), np.asarray(to_nodes.T, np.float32)


def smooth(volume: FloatArray, geometry: Geometry, sigma_mm: float) -> FloatArray:
    """Smooths with a Gaussian; what lies outside the volume counts as 0.

    volume: float32 (x, y, z).  sigma_mm: standard deviation in mm.  For a mean over known voxels only, divide by the
    smoothed weights (normalised convolution, Knutsson & Westin 1993, doi:10.1109/CVPR.1993.341081).
    """
    back = []
    for axis, voxel in enumerate(geometry.voxel_size):
        size, sigma = volume.shape[axis], sigma_mm / voxel
        if (factors := gaussian_factors(size, sigma)) is None:
            volume = _along(axis, gaussian_matrix(size, sigma), volume)
        else:
            volume = _along(axis, factors[0], volume)
            back.append((axis, factors[1]))
    for axis, matrix in back:
        volume = _along(axis, matrix, volume)
    return np.ascontiguousarray(volume)


def _along(axis: int, matrix: FloatArray, volume: FloatArray) -> FloatArray:
    """The matrix product with every line of voxels along an axis: one large one, over which threads wait least."""
    nx, ny, nz = volume.shape
    if axis == 0:
        return (matrix @ volume.reshape(nx, ny * nz)).reshape(-1, ny, nz)
    if axis == 1:
        return (matrix @ volume.transpose(1, 0, 2).reshape(ny, nx * nz)).reshape(-1, nx, nz).transpose(1, 0, 2)
    return (volume.reshape(nx * ny, nz) @ matrix.T).reshape(nx, ny, -1)
