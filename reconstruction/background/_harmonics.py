"""Solid harmonics: the fields of far sources and of the shim, which dipoles nearby would have to add up to slowly."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.arrays import like, to_numpy

ENOUGH = 100_000
"""Voxels, spread evenly, that fit some ten unknowns as well as all would."""


def solid_harmonics(mask: BoolArray, geometry: Geometry, order: int) -> FloatArray:
    """The (order + 1)² real solid harmonics r^l Y_lm up to l = order at the mask's voxels; (voxel, function).

    Lengths are in units of the mask's largest extent from its middle, so that every function is at most about 1.
    Recursion: (l + 1 − m) R_{l+1,m} = (2l + 1) z R_{l,m} − (l + m) r² R_{l−1,m}, R_{m,m} = (x + iy)^m
    (Hobson 1931, The Theory of Spherical and Ellipsoidal Harmonics, § 60).
    """
    axes, extent = [], max(geometry.voxel_size)
    for axis, size in enumerate(geometry.voxel_size):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        axes.append(size * (np.arange(mask.shape[axis]) - (occupied[0] + occupied[-1]) / 2))
        extent = max(extent, size * (occupied[-1] - occupied[0]) / 2)
    x, y, z = (
        np.broadcast_to((along / extent).astype(np.float32), mask.shape)[mask]
        for along in np.meshgrid(*axes, indexing="ij", sparse=True)
    )
    r_squared = x**2 + y**2 + z**2
    columns: list[np.ndarray] = []
    for m in range(order + 1):
        before, current = np.zeros_like(z, dtype=np.complex64), ((x + 1j * y) ** m).astype(np.complex64)
        for degree in range(m, order + 1):
            columns.append(current.real)
            if m:
                columns.append(current.imag)
            following = ((2 * degree + 1) * z * current - (degree + m) * r_squared * before) / (degree + 1 - m)
            before, current = current, following
    return np.stack(columns, axis=1)


def fit_harmonics(field: FloatArray, weight: FloatArray, mask: BoolArray, geometry: Geometry, order: int) -> FloatArray:
    """The solid harmonics up to `order` nearest to `field` in the mask, least squares weighted; 0 outside.

    field, weight: float32 (x, y, z); weight ≥ 0 multiplies the squared misfit.  The few unknowns are found on the CPU.
    """
    volume, weight, mask = to_numpy(field), to_numpy(weight), to_numpy(mask)
    A = solid_harmonics(mask, geometry, order)
    every = max(1, len(A) // ENOUGH)
    some = A[::every].astype(np.float64)
    w = weight[mask][::every].astype(np.float64)
    normal = some.T @ (w[:, None] * some)
    normal += 1e-9 * np.trace(normal) / len(normal) * np.eye(len(normal))
    coefficients = np.linalg.solve(normal, some.T @ (w * volume[mask][::every]))
    out = np.zeros_like(volume)
    out[mask] = A @ coefficients.astype(np.float32)
    return like(out, field)
