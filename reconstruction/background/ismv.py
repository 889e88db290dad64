"""Iterated spherical means: averaging over spheres again and again leaves what is harmonic, and the edge's values.

Wen et al. 2014, doi:10.1002/mrm.24998.  The paper repeats B ← S B in the inner brain, B = f in the rim that no sphere
fits round, until nothing changes.  What it then has solves B − S B = 0 with those values at the rim; conjugate
gradients find the same B in tens of steps instead of hundreds.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from reconstruction import fourier, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.background._closed import closed
from reconstruction.fourier import Window
from reconstruction.solvers import conjugate_gradient
from reconstruction.sphere import eroded, mean_of_known, transfer_function
from reconstruction.stage import Millimetres

MAX_ITERATIONS = 500
"""Far more than the tolerance needs."""


def ismv(
    field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    radius_mm: Millimetres = 4.0,
    tolerance: float = 1e-4,
) -> tuple[FloatArray, BoolArray]:
    """field: ppm, float32 (x, y, z).  mask: bool.  noise (ppm) tells only, by being inf, where field is unknown:
    such voxels leave the brain where they lie at its surface, and take their neighbours' mean elsewhere in the rim.

    radius_mm: of the sphere; no less than the largest side of a voxel.  tolerance: relative residual at which to stop.
    Returns the local field in ppm and the mask it is valid in: voxels with a whole sphere in the brain round them.
    """
    xp = array_namespace(field)
    radius = max(radius_mm, *geometry.voxel_size)
    window = Window.around(mask, geometry.voxel_size, radius + max(geometry.voxel_size))
    known = window.cut(mask & xp.isfinite(noise))
    inside = closed(window.cut(mask), known)
    known = known & inside
    sphere = transfer_function(window.shape, geometry.voxel_size, radius, field)
    inner = eroded(inside, sphere)
    total = xp.where(known, window.cut(field), 0.0)
    total = xp.where(inside & ~known, mean_of_known(total, known, sphere), total)

    def beyond_mean(background: FloatArray) -> FloatArray:
        return xp.where(inner, fourier.apply(1 - sphere, background), 0.0)

    rim = xp.where(inside & ~inner, total, 0.0)
    background, outcome = conjugate_gradient(
        beyond_mean, -beyond_mean(rim), xp.zeros_like(rim), tolerance=tolerance, max_iterations=MAX_ITERATIONS
    )
    quality.convergence("background", outcome)
    return window.paste(xp.where(inner & known, total - background, 0.0)), window.paste(inner)
