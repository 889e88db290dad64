"""Small brains made of spheres, whose fields are known on paper: no operator of the package is used to make them."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry

AXIAL = (0.0, 0.0, 1.0)
OBLIQUE = (0.0, -0.5, float(np.sqrt(3) / 2))


def places(geometry: Geometry) -> np.ndarray:
    """mm from the middle of the grid, (3, x, y, z)."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(geometry.shape, geometry.voxel_size, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def ball(geometry: Geometry, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> BoolArray:
    """The voxels whose middle lies within radius (mm) of centre (mm from the grid's middle)."""
    offset = places(geometry) - np.reshape(centre, (3, 1, 1, 1))
    inside: BoolArray = (offset**2).sum(axis=0) < radius**2
    return inside


def softened_ball(geometry: Geometry, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> FloatArray:
    """The share of each voxel within a sphere, from 3³ points."""
    total = np.zeros(geometry.shape, np.float32)
    steps = (np.arange(3) - 1) / 3
    for shift in np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3):
        total += ball(geometry, radius, tuple(np.array(centre) + shift * geometry.voxel_size))
    return total / 27


def field_of_sphere(geometry: Geometry, radius: float, chi: float, centre: tuple[float, float, float]) -> FloatArray:
    """ppm outside a sphere of χ (ppm): χ/3 (R/r)³ (3 cos² − 1); 0 inside (Lorentz-corrected).

    Schenck 1996, doi:10.1118/1.597854.
    """
    offset = places(geometry) - np.reshape(centre, (3, 1, 1, 1))
    r = np.maximum(np.sqrt((offset**2).sum(axis=0)), 1e-6)
    cosine = np.tensordot(geometry.b0_direction, offset, 1) / r
    outside = chi / 3 * (radius / r) ** 3 * (3 * cosine**2 - 1)
    return np.where(r > radius, outside, 0).astype(np.float32)


def mean_field_of_sphere(
    geometry: Geometry, radius: float, chi: float, centre: tuple[float, float, float]
) -> FloatArray:
    """The mean of `field_of_sphere` over each voxel, as a scanner sees it, from 3³ points."""
    total = np.zeros(geometry.shape, np.float32)
    steps = (np.arange(3) - 1) / 3
    for shift in np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3):
        total += field_of_sphere(geometry, radius, chi, tuple(np.array(centre) + shift * geometry.voxel_size))
    return total / 27
