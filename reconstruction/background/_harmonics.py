"""Solid harmonics: the fields of far sources and of the shim, which dipoles nearby would have to add up to slowly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.arrays import like, to_numpy

ENOUGH = 100_000
"""Voxels, spread evenly, that fit some ten unknowns as well as all would."""

Doubles = NDArray[np.float64]


def solid_harmonics(x: Doubles, y: Doubles, z: Doubles, order: int) -> Doubles:
    """The (order + 1)² real solid harmonics r^l Y_lm up to l = order at places (x, y, z); (place, function).

    Recursion: (l + 1 − m) R_{l+1,m} = (2l + 1) z R_{l,m} − (l + m) r² R_{l−1,m}, R_{m,m} = (x + iy)^m
    (Hobson 1931, The Theory of Spherical and Ellipsoidal Harmonics, § 60).
    """
    r_squared = x**2 + y**2 + z**2
    columns: list[Doubles] = []
    for m in range(order + 1):
        before, current = np.zeros_like(z, dtype=np.complex128), (x + 1j * y) ** m
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
    axes = _axes(mask, geometry)
    voxels = np.flatnonzero(mask)
    some = voxels[:: max(1, len(voxels) // ENOUGH)]
    x, y, z = (along[at] for along, at in zip(axes, np.unravel_index(some, mask.shape), strict=True))
    A = solid_harmonics(x, y, z, order)
    w = weight.reshape(-1)[some].astype(np.float64)
    normal = A.T @ (w[:, None] * A)
    normal += 1e-9 * np.trace(normal) / len(normal) * np.eye(len(normal))
    coefficients = np.linalg.solve(normal, A.T @ (w * volume.reshape(-1)[some]))
    # The sum is a polynomial of degree `order` along each axis, which is known from order + 1 places along each.
    nodes = np.linspace(-1, 1, order + 1)
    x, y, z = (place.ravel() for place in np.meshgrid(nodes, nodes, nodes, indexing="ij"))
    known = (solid_harmonics(x, y, z, order) @ coefficients).reshape(3 * (order + 1,))
    lines = (_between(nodes, along).astype(np.float32) for along in axes)
    fit = np.einsum("xa,yb,zc,abc->xyz", *lines, known.astype(np.float32), optimize=True)
    return like(np.where(mask, fit, np.float32(0)), field)


def _axes(mask: BoolArray, geometry: Geometry) -> list[Doubles]:
    """Where voxels lie along each axis: from the mask's middle, in units of its largest extent from there.

    So every harmonic is at most about 1.
    """
    axes, extent = [], max(geometry.voxel_size)
    for axis, size in enumerate(geometry.voxel_size):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        axes.append(size * (np.arange(mask.shape[axis]) - (occupied[0] + occupied[-1]) / 2))
        extent = max(extent, size * (occupied[-1] - occupied[0]) / 2)
    return [along / extent for along in axes]


def _between(nodes: Doubles, places: Doubles) -> Doubles:
    """What each node's value weighs at each place in the polynomial through all nodes (Lagrange); (place, node)."""
    return np.stack(
        [
            np.prod([(places - other) / (node - other) for other in nodes if other != node], axis=0)
            * np.ones_like(places)
            for node in nodes
        ],
        axis=1,
    )
