"""Veins: the large sinuses where everyone has them, thin ones by a seeded walk through the brain."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reconstruction.acquisition import FloatArray
from tests.simulation.anatomy import ORIGIN_MM, SHAPE, Anatomy, axes_mm

STRAIGHT_SINUS = ((0, -40, 12), (0, -62, 8), (0, -92, -4))
TRANSVERSE_SINUS = ((2, -96, -6), (30, -92, -14), (52, -68, -24), (56, -50, -34))
INTERNAL_CEREBRAL_VEIN = ((3, 2, 16), (2, -18, 18), (1, -34, 14), (0, -42, 12))
BASAL_VEIN = ((14, 2, -16), (16, -14, -10), (12, -30, 0), (1, -40, 10))
"""Courses in MNI mm, right side."""

SAGITTAL_SINUS_RADIUS = 3.5
THIN_VEINS = 90
THIN_RADII = (0.5, 1.0)
THIN_LENGTHS = (12, 40)
"""Veins of 1–2 mm across and 12–40 mm long, as venograms at 1 mm show them."""


def veins(anatomy: Anatomy, random: np.random.Generator) -> FloatArray:
    """The fraction of vein in each canonical voxel."""
    out = np.zeros(SHAPE, np.float32)
    for course, radius in (
        (STRAIGHT_SINUS, 2.5),
        (TRANSVERSE_SINUS, 3.0),
        (INTERNAL_CEREBRAL_VEIN, 1.1),
        (BASAL_VEIN, 0.9),
    ):
        for side in (1, -1):
            _draw(out, _dense(np.array(course, float) * (side, 1, 1)), radius)
    _sagittal_sinus(out, anatomy)
    starts = np.argwhere(anatomy.brain[::4, ::4, ::4]) * 4 + ORIGIN_MM
    starts = starts[starts[:, 2] > -60]
    for start in starts[random.integers(len(starts), size=THIN_VEINS)]:
        _draw(out, _walk(start, random.uniform(*THIN_LENGTHS), random), random.uniform(*THIN_RADII))
    return out * anatomy.intracranial


def _sagittal_sinus(out: FloatArray, anatomy: Anatomy) -> None:
    """Along the midline just under the vault, from the forehead over the vertex to the occiput."""
    x, y, z = np.meshgrid(*axes_mm(), indexing="ij", sparse=True)
    distance = np.hypot(x, anatomy.depth + SAGITTAL_SINUS_RADIUS) - SAGITTAL_SINUS_RADIUS
    course = (np.abs(x) < 8) & (((z > 10) & (y < 70)) | ((z > -6) & (y < -70)))
    np.maximum(out, np.where(course, np.clip(0.5 - distance, 0, 1), 0), out=out)


def _dense(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A polyline every half millimetre."""
    pieces = [np.linspace(a, b, max(2, int(2 * np.linalg.norm(b - a)))) for a, b in pairwise(points)]
    return np.concatenate(pieces)


def _walk(start: NDArray[np.float64], length: float, random: np.random.Generator) -> NDArray[np.float64]:
    """A smoothly bending course of `length` mm every half millimetre."""
    direction = random.standard_normal(3)
    steps = []
    for _ in range(int(2 * length)):
        direction = direction / np.linalg.norm(direction) + 0.08 * random.standard_normal(3)
        steps.append(0.5 * direction / np.linalg.norm(direction))
    walk: NDArray[np.float64] = start + np.cumsum(steps, axis=0)
    return walk


def _draw(out: FloatArray, course: NDArray[np.float64], radius: float) -> None:
    """A tube of `radius` mm along points half a millimetre apart."""
    reach = int(np.ceil(radius + 1))
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    at = course - ORIGIN_MM
    voxels = np.round(at).astype(int)[:, None] + offsets
    distance = np.linalg.norm(voxels - at[:, None], axis=-1)
    fraction = np.clip(0.5 + radius - distance, 0, min(1.0, 2 * radius)).astype(np.float32)
    inside = ((voxels >= 0) & (voxels < SHAPE)).all(-1)
    np.maximum.at(out, tuple(voxels[inside].T), fraction[inside])
