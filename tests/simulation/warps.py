"""How people's brains differ beyond what a seed alone makes of a simulated head: folds, shapes, wide ventricles.

A warp holds displacements (3, i, j, k) in mm on the control grid of `simulate_head`, from the subject to the canonical
head.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from reconstruction.acquisition import FloatArray
from tests.simulation.anatomy import ORIGIN_MM, SHAPE, anatomy
from tests.simulation.head import WARP_SPACING_MM

_CONTROL = tuple(int(n // WARP_SPACING_MM) + 3 for n in SHAPE)

VENTRICLES_MM = ((-32.0, -50.0, -8.0), (32.0, 42.0, 34.0))
"""The box, in MNI mm, that holds the bodies and horns of the lateral ventricles."""


def rough(seed: int, sd_mm: float = 2.0, smoothness_mm: float = 12.0) -> FloatArray:
    """Random displacements of `sd_mm` along each axis, alike over `smoothness_mm`: half as far as a seed's own warp."""
    noise = np.random.default_rng([seed, 1]).standard_normal((3, *_CONTROL))
    smooth = ndimage.gaussian_filter(noise, (0, *[smoothness_mm / WARP_SPACING_MM] * 3), mode="nearest")
    return (smooth * (sd_mm / smooth.std())).astype(np.float32)


def wide_ventricles(amount_mm: float = 4.0, reach_mm: float = 9.0) -> FloatArray:
    """Pushes what lies around the lateral ventricles outwards by up to `amount_mm`, as they widen with age."""
    head = anatomy()
    fluid = 1 - head.grey - head.white
    places = [o + np.arange(n) for o, n in zip(ORIGIN_MM, SHAPE, strict=True)]
    inside = [(p >= low) & (p <= high) for p, low, high in zip(places, *VENTRICLES_MM, strict=True)]
    ventricles = np.where(np.logical_and.outer(np.logical_and.outer(*inside[:2]), inside[2]), fluid, 0)
    near = ndimage.gaussian_filter(ventricles.astype(np.float32), reach_mm)
    towards = np.stack(np.gradient(near))
    every = int(WARP_SPACING_MM)
    towards = towards[:, ::every, ::every, ::every]
    out = np.zeros((3, *_CONTROL), np.float32)
    out[:, : towards.shape[1], : towards.shape[2], : towards.shape[3]] = towards
    return out * np.float32(amount_mm / np.linalg.norm(out, axis=0).max())
