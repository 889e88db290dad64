"""Laplacian boundary values: the background is harmonic in the brain, and at its surface the field is all background.

Zhou et al. 2014, doi:10.1002/nbm.3064.  The boundary value problem ∇²B = 0, B = f at the surface, is solved by
conjugate gradients.  Their preconditioner is Laplace's inverse on the whole periodic window, one Fourier transform and
back, restricted to the brain; with it the number of steps grows with the square root of the brain's width in voxels (a
capacitance matrix: Proskurowski & Widlund 1976, Math. Comp. 30, 433) and not with the width itself.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from reconstruction import fourier, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.background._closed import closed
from reconstruction.fourier import Window
from reconstruction.solvers import conjugate_gradient
from reconstruction.stage import Few, Positive

MARGIN_MM = 10.0
"""Empty space around the brain, so that its periodic images do not touch."""

MAX_ITERATIONS = 500
"""Far more than the tolerance needs."""


def lbv(
    field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    peel: Few = 1,
    tolerance: Positive = 1e-4,
) -> tuple[FloatArray, BoolArray]:
    """field: ppm, float32 (x, y, z).  mask: bool.  noise (ppm) tells only, by being inf, where field is unknown: such
    voxels leave the brain where they lie at its surface; elsewhere the background does not ask for them.

    peel: layers of voxels taken off the brain first, whose field is not to be trusted as boundary value.
    tolerance: relative residual at which to stop.
    Returns the local field in ppm and the mask it is valid in: the brain less the layers and the boundary.
    """
    xp = array_namespace(field)
    window = Window.around(mask, geometry.voxel_size, max(MARGIN_MM, 2 * max(geometry.voxel_size)))
    known = window.cut(mask & xp.isfinite(noise))
    inside = closed(window.cut(mask), known)
    for _ in range(peel):
        inside = closed(_inner(inside), known)
    inner = _inner(inside)
    total = xp.where(inside & known, window.cut(field), 0.0)
    spectrum = gradient.spectrum(window.shape, geometry.voxel_size, field)
    inverse = xp.where(spectrum > 0, 1 / xp.where(spectrum > 0, spectrum, 1.0), 0.0)

    def laplacian(background: FloatArray) -> FloatArray:
        slope = gradient.forward(background, geometry.voxel_size)
        return xp.where(inner, gradient.adjoint(slope, geometry.voxel_size), 0.0)

    boundary = xp.where(inside & ~inner, total, 0.0)
    background, outcome = conjugate_gradient(
        laplacian,
        -laplacian(boundary),
        xp.zeros_like(boundary),
        tolerance=tolerance,
        max_iterations=MAX_ITERATIONS,
        precondition=lambda residual: xp.where(inner, fourier.apply(inverse, residual), 0.0),
    )
    quality.convergence("background", outcome)
    return window.paste(xp.where(inner & known, total - background, 0.0)), window.paste(inner)


def _inner(mask: BoolArray) -> BoolArray:
    """The voxels of the mask all of whose six neighbours are in it."""
    xp = array_namespace(mask)
    inner = mask
    for axis in range(3):
        inner = inner & xp.roll(mask, 1, axis=axis) & xp.roll(mask, -1, axis=axis)
    return inner
