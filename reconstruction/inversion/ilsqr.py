"""iLSQR: least squares, less the streaks that are found in it by their direction.

    1. LSQR on  D W D χ = D W f,  W low where the field's Laplacian is large                                   (6, 7)
    2. a map without streaks, from the dipole's sign alone, to tell where edges are                           (8 – 14)
    3. streaks: what the ill-conditioned cone can add so that χ has no gradient but at those edges            (3, 4, 15)
    4. χ less the streaks

Li 2015, doi:10.1016/j.neuroimage.2014.12.043; the numbers are its equations.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from reconstruction import fourier, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.inversion._least_squares import lsmr, lsqr
from reconstruction.inversion._problem import Problem, quantile
from reconstruction.sphere import transfer_function
from reconstruction.stage import Count, Share

SMOOTH, ROUGH = 0.6, 0.999
"""Quantiles of |∇²f| up to which a voxel counts fully, and beyond which not at all (7)."""

LSQR_TOLERANCE = 2e-3
"""Of the first problem: D W D squares what the dipole suppresses, so it must go further than the second."""

EXPONENT, CONE, OPEN = 0.001, 0.01, 0.3
"""Of the weights in k-space (10): |D| to this power, 0 and 1 at these quantiles."""

SPHERE_MM = 3.0
"""Radius of the mean that fills the cone of the map without streaks (9)."""

TKD_THRESHOLD = 1 / 8
"""Of the division that the map without streaks is scaled to (12)."""

ROUNDING = 1e-5
"""|D| that is 0, but for float32: its sign would be chance."""

FLAT, EDGE = 0.5, 0.7
"""Quantiles of |∂χ| up to which there is no edge, and beyond which there is one (15)."""


def ilsqr(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    cone: Share = 0.1,
    tolerance: float = 1e-2,
    max_iterations: Count = 100,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field, noise: ppm; of noise is used only where it is inf: such voxels have no weight.  mask: bool.
    cone: |D| below which k-space holds streaks (4).  tolerance: of the streaks, ‖Aᵀ r‖ relative
    to its start.  max_iterations: of either problem.
    Memory: the first problem keeps its vectors in float64, over the whole window.
    """
    xp = array_namespace(local_field)
    problem = Problem.of(local_field, noise, mask, geometry)
    D, inside = problem.dipole, problem.inside

    def field_of(chi: FloatArray) -> FloatArray:
        return fourier.apply(D, chi)

    W = _laplacian_weights(problem, geometry)

    def weighted(chi: FloatArray) -> FloatArray:
        return field_of(W * field_of(chi))

    # In float64: of a problem as badly conditioned as this, float32 would make a map of its own rounding.
    right_side = field_of(W * xp.astype(problem.field, xp.float64))
    initial, outcome = lsqr(
        weighted, weighted, right_side, tolerance=LSQR_TOLERANCE, max_iterations=max_iterations
    )  # fmt: skip
    quality.convergence("inversion", outcome)
    initial = xp.astype(xp.where(inside, initial, 0.0), W.dtype)

    W_G = _flatness(_without_streaks(problem, geometry), inside, geometry)
    ill_conditioned = xp.astype(xp.abs(D) < cone, D.dtype)

    def slopes(x: FloatArray) -> FloatArray:
        return W_G * gradient.forward(fourier.apply(ill_conditioned, x), geometry.voxel_size)

    def slopes_adjoint(y: FloatArray) -> FloatArray:
        return fourier.apply(ill_conditioned, gradient.adjoint(W_G * y, geometry.voxel_size))

    streaks, outcome = lsmr(
        slopes, slopes_adjoint, W_G * gradient.forward(initial, geometry.voxel_size),
        tolerance=tolerance, max_iterations=max_iterations,
    )  # fmt: skip
    quality.convergence("inversion", outcome)
    return problem.solution(initial - streaks)


def _laplacian_weights(problem: Problem, geometry: Geometry) -> FloatArray:
    """(7): 1 where the field is smooth, 0 where it is rough or nothing is known."""
    xp = array_namespace(problem.field)
    laplacian, known = xp.zeros_like(problem.field), problem.weight > 0
    for axis, h in enumerate(geometry.voxel_size):
        for step in (1, -1):
            neighbour = xp.roll(known, step, axis=axis)
            difference = xp.roll(problem.field, step, axis=axis) - problem.field
            laplacian = laplacian + xp.where(neighbour, difference, 0.0) / h**2
    return xp.where(known, _falling(xp.abs(laplacian), known, SMOOTH, ROUGH), 0.0)


def _flatness(chi: FloatArray, inside: BoolArray, geometry: Geometry) -> FloatArray:
    """(15): 1 where χ has no edge along an axis, 0 where it has one or a difference would leave the brain."""
    xp = array_namespace(chi)
    steepness = xp.abs(gradient.forward(chi, geometry.voxel_size))
    for axis in range(3):
        within = inside & xp.roll(inside, -1, axis=axis)
        along = steepness[axis, ...]
        steepness[axis, ...] = xp.where(within, _falling(along, within, FLAT, EDGE), 0.0)
    return steepness


def _falling(values: FloatArray, where: BoolArray, low: float, high: float) -> FloatArray:
    """1 up to the lower quantile of the values, 0 from the higher on, a straight line between."""
    xp = array_namespace(values)
    if not xp.any(where):
        return xp.zeros_like(values)
    start, end = float(quantile(values[where], low)), float(quantile(values[where], high))
    if end <= start:
        return xp.astype(values <= start, values.dtype)
    return xp.clip((end - values) / (end - start), 0.0, 1.0)


def _without_streaks(problem: Problem, geometry: Geometry) -> FloatArray:
    """(8 – 14): the field turned by the dipole's sign, its cone filled with local means; in ppm."""
    xp = array_namespace(problem.field)
    D, shape = problem.dipole, problem.window.shape
    sign = xp.where(xp.abs(D) > ROUNDING, xp.sign(D), 0.0)
    power = xp.abs(D) ** EXPONENT
    whole = xp.concat((power, power[..., 1 : (shape[2] + 1) // 2]), axis=2)  # the half spectrum and its other half
    flat = xp.reshape(whole, (-1,))
    a, b = float(quantile(flat, CONE)), float(quantile(flat, OPEN))
    W_FS = xp.clip((power - a) / (b - a), 0.0, 1.0)
    filled = W_FS + (1 - W_FS) * transfer_function(shape, geometry.voxel_size, SPHERE_MM, problem.field)

    inside = problem.inside
    chi = xp.where(inside, fourier.apply(filled * sign, problem.field), 0.0)
    chi = xp.where(inside, fourier.apply(filled, chi), 0.0)

    limited = xp.clip(xp.abs(D), TKD_THRESHOLD, None)
    scale = xp.where(inside, fourier.apply(sign / limited, problem.field), 0.0)
    x, y = chi[inside], scale[inside]
    spread = x - xp.mean(x)
    variance = float(xp.sum(spread**2))
    slope = float(xp.sum(spread * y)) / variance if variance > 0 else 0.0
    return slope * chi
