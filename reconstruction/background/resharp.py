"""RESHARP: of all local fields whose difference from their spherical mean is the one measured, the smallest.

Sun & Wilman 2014, doi:10.1002/mrm.24765.  SHARP's deconvolution with Tikhonov's term in the place of a threshold:

    min over x:  ‖inner (δ − S) (x − f)‖² + λ ‖x‖²
"""

from __future__ import annotations

from array_api_compat import array_namespace

from reconstruction import fourier, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.fourier import Window
from reconstruction.solvers import conjugate_gradient
from reconstruction.sphere import eroded, mean_of_known, transfer_function
from reconstruction.stage import Millimetres

MAX_ITERATIONS = 500
"""Far more than the tolerance needs."""


def resharp(
    field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    radius_mm: Millimetres = 4.0,
    strength: float = 1e-3,
    tolerance: float = 1e-3,
) -> tuple[FloatArray, BoolArray]:
    """field: ppm, float32 (x, y, z).  mask: bool.  noise (ppm) tells only, by being inf, where field is unknown:
    such voxels are left out of the spheres, and nothing is asked of the local field in them.

    radius_mm: of the sphere; no less than the largest side of a voxel.  strength: λ; larger leaves less background and
    less of what varies slowly.  tolerance: relative residual of the conjugate gradients at which to stop.
    Returns the local field in ppm and the mask it is valid in: voxels with a whole sphere in the brain round them.
    """
    xp = array_namespace(field)
    radius = max(radius_mm, *geometry.voxel_size)
    window = Window.around(mask, geometry.voxel_size, radius + max(geometry.voxel_size))
    sphere = transfer_function(window.shape, geometry.voxel_size, radius, field)
    valid = eroded(window.cut(mask), sphere)
    known = window.cut(mask & xp.isfinite(noise))
    measured = valid & known
    total = xp.where(known, window.cut(field), 0.0)
    difference = xp.where(measured, total - mean_of_known(total, known, sphere), 0.0)

    def normal(x: FloatArray) -> FloatArray:
        seen = xp.where(measured, fourier.apply(1 - sphere, x), 0.0)
        return fourier.apply(1 - sphere, seen) + strength * x

    local, outcome = conjugate_gradient(
        normal,
        fourier.apply(1 - sphere, difference),
        xp.zeros_like(difference),
        tolerance=tolerance,
        max_iterations=MAX_ITERATIONS,
    )
    quality.convergence("background", outcome)
    return window.paste(xp.where(valid, local, 0.0)), window.paste(valid)
