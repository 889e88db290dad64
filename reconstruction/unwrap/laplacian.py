"""Laplacian unwrapping: phase with the wrapped differences between neighbours, by one division in k-space.

Schofield & Zhu 2003, doi:10.1364/OL.28.001194, with wrapped differences (least squares: Ghiglia & Romero 1994,
doi:10.1364/JOSAA.11.000107) in the place of sine times cosine, which is exact only for small differences.  It never
jumps, open-ended fringe lines spread out, and what it makes of the brain differs from the true phase by a harmonic
function: good enough for background removal, not for a total field.
"""

from __future__ import annotations

import numpy as np

from reconstruction import fourier, gradient
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.fourier import Window
from reconstruction.region_growing import TWO_PI

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image."""


def laplacian(
    phase: FloatArray,
    magnitude: FloatArray,
    echo_times: tuple[float, ...],
    mask: BoolArray,
    geometry: Geometry,
) -> FloatArray:
    """Unwraps every echo inside the mask, each in space on its own.

    phase, magnitude: float32 (echo, x, y, z), radian and arbitrary unit.  echo_times: s.  mask: bool (x, y, z).
    The first echo's constant is the one nearest to its wrapped phase.  Those of the others follow from the echo time:
    the harmonic function by which an echo differs from its phase grows with it and is many radian wide, so that the
    phase of a later echo tells nothing of its constant.
    Returns float32 (echo, x, y, z), 0 outside the mask; not congruent with the phase modulo 2π.
    """
    unwrapped = np.zeros_like(phase)
    if not mask.any():
        return unwrapped
    window = Window.around(mask, geometry.voxel_size, MARGIN_MM)
    spectrum = gradient.spectrum(window.shape, geometry.voxel_size)
    inverse = np.where(spectrum > 0, 1 / np.where(spectrum > 0, spectrum, 1), 0)
    inside = window.cut(mask)
    pairs = np.stack([inside & np.roll(inside, -1, axis) for axis in range(3)])
    for echo, time in enumerate(echo_times):
        slope = _wrapped_slope(window.cut(phase[echo]), geometry.voxel_size)
        sources = gradient.adjoint(np.where(pairs, slope, np.float32(0)), geometry.voxel_size)
        smooth = window.paste(fourier.apply(inverse, sources))
        if echo:
            predicted = unwrapped[echo - 1] * np.float32(time / echo_times[echo - 1])
            smooth += np.median((predicted - smooth)[mask])
        else:
            smooth += np.angle((magnitude[echo] * np.exp(1j * (phase[echo] - smooth)))[mask].sum())
        unwrapped[echo] = np.where(mask, smooth, 0)
    return unwrapped


def _wrapped_slope(phase: FloatArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    """∇φ from differences brought to within π; rad/mm, (3, x, y, z)."""
    steps = gradient.forward(phase, (1.0, 1.0, 1.0))
    steps -= TWO_PI * np.rint(steps / TWO_PI)
    return steps / np.array(voxel_size, np.float32)[:, None, None, None]
