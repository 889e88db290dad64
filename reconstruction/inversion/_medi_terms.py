"""The parts of MEDI's cost: edges of the magnitude, the ventricles' fluid, and what MERIT makes of a misfit."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from reconstruction import gradient
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.arrays import like, to_numpy
from reconstruction.reference.csf import ventricles

WILD = 6.0
"""MERIT: misfits beyond so many standard deviations of all misfits count as wrong (the authors')."""


def even_tissue(
    magnitude: FloatArray, inside: BoolArray, voxel_size: tuple[float, float, float], edges: float
) -> FloatArray:
    """M: 0 at the steepest differences of the magnitude, 1 elsewhere; float32 (3, x, y, z).

    edges: how many are the steepest, over the number of voxels inside.
    """
    xp = array_namespace(magnitude)
    steepness = xp.abs(gradient.forward(xp.where(inside, magnitude, 0.0), voxel_size))
    values = to_numpy(steepness).ravel()
    rank = values.size - min(round(edges * int(xp.count_nonzero(inside))), values.size - 1) - 1
    limit = float(np.partition(values, rank)[rank])
    even: FloatArray = xp.astype(steepness <= limit, xp.float32)
    return even


def find_fluid(r2star: FloatArray | None, mask: BoolArray, geometry: Geometry, max_r2star: float) -> BoolArray:
    """The ventricles; nothing where there is no R2* to find them by."""
    if r2star is None:
        return array_namespace(mask).zeros_like(mask)
    found: BoolArray = like(ventricles(to_numpy(r2star), to_numpy(mask), geometry, max_r2star), mask)
    return found


def spread(chi: FloatArray, fluid: BoolArray) -> FloatArray:
    """Lᵀ L χ for L χ = χ less its mean, in the fluid; 0 elsewhere (a projection, so that Lᵀ L = L)."""
    xp = array_namespace(chi)
    if not xp.any(fluid):
        return xp.zeros_like(chi)
    return xp.where(fluid, chi - xp.mean(chi[fluid]), 0.0)


def excess(field: FloatArray, phase: FloatArray, weight: FloatArray, inside: BoolArray) -> FloatArray:
    """By how much the misfit |m (exp(i D χ) − exp(i φ))|, its mean taken off, exceeds what MERIT bears; 1 below that.

    weight: m².  The authors' measure of what is to be borne is the standard deviation of the misfit's modulus.
    """
    xp = array_namespace(field)
    m = xp.sqrt(weight)
    real = m * (xp.cos(field) - xp.cos(phase))
    imaginary = m * (xp.sin(field) - xp.sin(phase))
    misfit = xp.hypot(real - xp.mean(real[inside]), imaginary - xp.mean(imaginary[inside]))
    bearable = max(WILD * float(xp.std(misfit[inside])), float(xp.finfo(misfit.dtype).smallest_normal))
    wild: FloatArray = xp.where(inside, xp.clip(misfit / bearable, 1.0, None), 1.0)
    return wild
