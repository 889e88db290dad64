"""BET: a balloon that grows from the middle of the head to the edge of the brain.

Smith 2002, doi:10.1002/hbm.10062.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.blocks import coarse, means
from reconstruction.errors import NotReconstructible
from reconstruction.intensity import even_intensity, percentile
from reconstruction.mask._coherence import eroded
from reconstruction.mask._surface import evolve, fill, icosphere, neighbours, subdivided
from reconstruction.smoothing import smooth
from reconstruction.stage import Few, Share

SCHEDULE = ((3, 400), (4, 300))
"""(Divisions of the icosahedron, iterations.)  2562 vertices are the paper's choice, one every 25 mm² or so of brain
surface, and 1000 iterations of all; a quarter as many carry the balloon to the brain's edge, in steps of twice the
length, and it ends at the same surface (`test_mask.py` holds the two together)."""

CURVATURE_RADII_MM = (3.33, 10.0)
"""Between these radii of curvature the surface goes from stiff to soft (the paper's r_min, r_max)."""

THRESHOLD = 0.1
"""Where between the robust minimum and maximum tissue begins (the paper's t)."""

TISSUE = 0.4
"""Part of the local mean above which a voxel is tissue when the largest ball is looked for: above skull, below CSF."""

DENOISING_MM = 1.0
"""Smoothing of the image, so that the darkest of twenty noisy points does not pass for bone."""

COARSE_MM = 4.0
"""Grid on which the largest ball is looked for."""

FINE_MM = 2.0
"""Grid on which the surface is looked for, at the most, where voxels are half as large: between its voxels the image is
interpolated."""

START = 0.7
"""Radius of the first balloon over that of the largest ball.  The paper starts from half of the head's."""

MINIMUM_CM3 = 30.0
"""A smaller result is no brain, not even of a slab through it (a newborn's brain has 300 cm³)."""


def bet(
    phase: FloatArray,
    magnitude: FloatArray,
    echo_times: tuple[float, ...],
    geometry: Geometry,
    *,
    fraction: Share = 0.7,
    erosions: Few = 0,
) -> BoolArray:
    """The brain by its surface alone.

    phase, magnitude: float32 (echo, x, y, z); the phase is not used.
    fraction: where between dark and bright the edge lies (b_t); smaller values give a larger
    brain.  The paper's 0.5 lets the balloon out where a thin skull fills only part of a voxel; the authors' program
    takes 0.83 (0.5 to the power 0.275).
    erosions: layers of voxels to take off what was found, as published chains do before removing the background.
    Returns bool (x, y, z).  Raises NotReconstructible when there is no brain.
    """
    return eroded(surface_mask(even_intensity(magnitude, geometry), geometry, fraction), erosions)


def surface_mask(image: FloatArray, geometry: Geometry, fraction: float) -> BoolArray:
    """The voxels inside the evolved surface.  image: float32 (x, y, z), shading taken out."""
    sx, sy, sz = (max(1, int(FINE_MM / v)) for v in geometry.voxel_size)
    grid = coarse(geometry, (sx, sy, sz))
    seen = smooth(means(image, (sx, sy, sz)), grid, DENOISING_MM)
    low, high = percentile(seen, 2), percentile(seen, 98)
    if not high > low:
        raise NotReconstructible("the magnitude is empty or flat; expected a head: check the magnitude images")
    centre, radius = _largest_ball(seen, grid)
    middle = float(np.median(seen[_ball(grid, centre, radius)]))
    levels = np.array([low, low + THRESHOLD * (high - low), middle])
    divisions = SCHEDULE[0][0]
    sphere, triangles = icosphere(divisions)
    vertices = centre + START * radius * sphere
    for wanted, iterations in SCHEDULE:
        for _ in range(divisions, wanted):
            vertices, triangles = subdivided(vertices, triangles)
        divisions, around = wanted, neighbours(triangles)
        evolve(vertices, around, seen, np.array(grid.voxel_size), levels, fraction, CURVATURE_RADII_MM, iterations)
    voxels = vertices / np.array(geometry.voxel_size) + (np.array([sx, sy, sz]) - 1) / 2
    mask = np.asarray(fill(voxels, triangles, geometry.shape), bool)
    volume = mask.sum() * geometry.voxel_volume / 1000
    if volume < MINIMUM_CM3:
        raise NotReconstructible(
            f"a brain of {volume:.0f} cm³ was found; expected at least {MINIMUM_CM3:.0f}: send a head, or a mask too"
        )
    return mask


def _largest_ball(image: FloatArray, geometry: Geometry) -> tuple[NDArray[np.float64], float]:
    """Centre (mm from the centre of voxel 0) and radius (mm) of the largest ball of unbroken tissue.

    The brain is the thickest piece of tissue in a head, whatever of the face and the neck is in the picture; the
    edge of the volume does not count as an end of tissue, so that a slab has a ball too.
    """
    steps = [max(1, int(COARSE_MM / v)) for v in geometry.voxel_size]
    coarse = ndimage.binary_fill_holes(image[:: steps[0], :: steps[1], :: steps[2]] > TISSUE)
    spacing = np.array(steps) * np.array(geometry.voxel_size)
    depth = ndimage.distance_transform_edt(coarse, sampling=spacing)
    deepest = np.unravel_index(int(depth.argmax()), depth.shape)
    return np.array(deepest, np.float64) * spacing, float(depth.max())


def _ball(geometry: Geometry, centre: NDArray[np.float64], radius: float) -> BoolArray:
    squares = [
        ((np.arange(n) * v - c) / radius) ** 2
        for n, v, c in zip(geometry.shape, geometry.voxel_size, centre, strict=True)
    ]
    return np.asarray(sum(np.ix_(*squares)) <= 1)
