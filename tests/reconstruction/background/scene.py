"""A spherical brain of 34 mm with strong sources some millimetres outside it, and a weak one inside."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from reconstruction import Geometry
from reconstruction.acquisition import BoolArray, FloatArray
from tests.reconstruction.sources import AXIAL, OBLIQUE, ball, field_of_sphere, places

GEOMETRIES = [
    Geometry((48, 44, 40), (2.0, 2.0, 2.0), AXIAL),
    Geometry((47, 53, 23), (2.0, 1.7, 3.5), OBLIQUE),
]
SOURCE, SOURCE_MM, SOURCE_PPM = (4.0, -3.0, 2.0), 6.0, 0.2


def brain(geometry: Geometry) -> BoolArray:
    return ball(geometry, 34.0)


def outside_field(geometry: Geometry) -> FloatArray:
    """ppm: two strong sources some millimetres from the brain, and a shim."""
    x, y, z = places(geometry) / 50
    shim = 0.2 + 0.3 * x - 0.1 * z + 0.2 * (x * x - y * y) + 0.1 * y * z
    above = field_of_sphere(geometry, 8.0, 9.4, (0.0, 36.0, 26.0))
    below = field_of_sphere(geometry, 6.0, 9.4, (30.0, -20.0, -26.0))
    return (shim + above + below).astype(np.float32)


def inside_field(geometry: Geometry) -> FloatArray:
    return field_of_sphere(geometry, SOURCE_MM, SOURCE_PPM, SOURCE)


def even_noise(geometry: Geometry) -> FloatArray:
    return np.full(geometry.shape, 0.001, np.float32)


def interior(mask: BoolArray, geometry: Geometry, depth: float) -> BoolArray:
    """Voxels further than `depth` mm inside the mask."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1), geometry.voxel_size)[1:-1, 1:-1, 1:-1]
    return np.asarray(distance > depth)
