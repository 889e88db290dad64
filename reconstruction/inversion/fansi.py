"""Total variation by alternating directions, on the field or on the complex signal, with room for a harmonic rest.

    min over χ, h:  ½ |√W (exp(i (D χ + h)) − exp(i φ))|² + α |w ∇χ|₁ + β/2 |M ∇²h|²       (FANSI, nonlinear)
    min over χ, h:  ½ |√W (D χ + h − φ)|² + α |w ∇χ|₁ + β/2 |M ∇²h|²                      (linear)

Milovic 2018, doi:10.1002/mrm.27073; the weak-harmonic term: Milovic 2019, doi:10.1002/mrm.27483.  h is what background
removal has left, harmonic in the brain M.  The papers find χ and h in turn; here both are found at once, a system of
two equations for every k, which makes of three alternating directions two and keeps the guarantee of convergence.
"""

from __future__ import annotations

from math import pi

from array_api_compat import array_namespace

from reconstruction import fourier, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.inversion._problem import PHASE_NOISE, Problem, edge_weights, shrink
from reconstruction.solvers import Values, alternating_directions
from reconstruction.stage import Count, Positive, Share

MU_FIELD, MU_GRADIENT, MU_HARMONIC = 1.0, 30.0, 1 / 50
"""Penalties of the splittings: of D χ + h; of ∇χ, times α; of ∇²h, times β.  They steer the speed, not the result.  The
papers' code takes 100 for the second."""

NEWTON_STEPS = 4
"""Of the voxel-wise equation W sin(z − φ) + μ (z − v) = 0, from its linear solution: none goes too far."""


def fansi(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    magnitude: FloatArray,
    geometry: Geometry,
    *,
    nonlinear: bool = True,
    strength: Positive = 5e-4,
    harmonic: float = 0.0,
    edge_weight: Share = 1.0,
    tolerance: float = 5e-3,
    max_iterations: Count = 100,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field, noise: ppm; noise may be inf where nothing is known.  mask: bool.  magnitude: arbitrary unit.
    nonlinear: the first of the two problems; wild voxels and wrong wraps count less.
    strength: α for the phase of an echo with a noise of 0.02 radian and differences per voxel edge.
    harmonic: β, for a Laplacian per voxel edge squared; 0 does without h (the paper takes 150).
    edge_weight: w of the gradient where the magnitude has an edge; 1 ignores the magnitude.
    tolerance: relative change of χ in one iteration at which to stop.
    """
    xp = array_namespace(local_field)
    problem = Problem.of(local_field, noise, mask, geometry)
    D, shape, size, inside = problem.dipole, problem.window.shape, geometry.voxel_size, problem.inside
    scale = problem.radians_per_ppm()
    phase, W = scale * problem.field, problem.weight
    edge = geometry.voxel_volume ** (1 / 3)
    alpha = strength * edge * (scale * problem.sigma / PHASE_NOISE)
    w = edge_weights(problem.window.cut(magnitude), inside, geometry, edge_weight)

    laplacian = gradient.spectrum(shape, size, of=local_field)
    mu_gradient, mu_harmonic = MU_GRADIENT * alpha * edge, MU_HARMONIC * harmonic * edge**4
    # The normal equations of (χ, h) for each k, and their determinant, of_chi · of_harmonic − (μ D)², without the
    # cancellation.
    of_chi = MU_FIELD * D**2 + mu_gradient * laplacian
    of_harmonic = MU_FIELD + mu_harmonic * laplacian**2
    together = mu_gradient * laplacian * of_harmonic + MU_FIELD * D**2 * mu_harmonic * laplacian**2
    determinant = together if harmonic > 0 else of_chi
    determinant = xp.where(determinant > 0, determinant, 1.0)

    zero = xp.zeros_like(phase)
    multipliers: list[FloatArray] = [xp.zeros_like(w), zero, zero]

    def data_term(v: FloatArray) -> FloatArray:
        return follow_signal(v, phase, W) if nonlinear else (W * phase + MU_FIELD * v) / (W + MU_FIELD)

    def proximal(values: Values) -> Values:
        chi, field, curvature = values
        v = gradient.forward(chi, size) + multipliers[0], field + multipliers[1], curvature + multipliers[2]
        z = (
            shrink(v[0], w * (alpha / mu_gradient)),
            data_term(v[1]),
            xp.where(inside, v[2] * (MU_HARMONIC / (MU_HARMONIC + 1)), v[2]),  # prox of β/2 |M z|²
        )
        multipliers[:] = [before - after for before, after in zip(v, z, strict=True)]
        return tuple(after - u for after, u in zip(z, multipliers, strict=True))

    def project(targets: Values) -> Values:
        to_field = MU_FIELD * fourier.forward(targets[1], shape)
        to_chi = D * to_field + mu_gradient * fourier.forward(gradient.adjoint(targets[0], size), shape)
        if harmonic == 0:
            chi = to_chi / determinant
            return fourier.inverse(1 * chi, shape), fourier.inverse(D * chi, shape), zero
        to_harmonic = to_field + mu_harmonic * laplacian * fourier.forward(targets[2], shape)
        chi = (of_harmonic * to_chi - MU_FIELD * D * to_harmonic) / determinant
        rest = (of_chi * to_harmonic - MU_FIELD * D * to_chi) / determinant
        return (
            fourier.inverse(1 * chi, shape),
            fourier.inverse(D * chi + rest, shape),
            fourier.inverse(laplacian * rest, shape),
        )

    (chi, *_), outcome = alternating_directions(
        proximal, project, (zero, zero, zero), inside, tolerance=tolerance, max_iterations=max_iterations
    )
    quality.convergence("inversion", outcome)
    return problem.solution(chi / scale)


def follow_signal(v: FloatArray, phase: FloatArray, W: FloatArray) -> FloatArray:
    """The z that makes W (1 − cos(z − φ)) + μ/2 (z − v)² least, for each voxel; radian.

    It lies between v and the nearest φ + 2πn, where the equation rises ever less steeply up to its solution.
    """
    xp = array_namespace(v)
    apart = v - phase
    apart = apart - 2 * pi * xp.round(apart / (2 * pi))
    z = apart * (MU_FIELD / (W + MU_FIELD))
    for _ in range(NEWTON_STEPS):
        z = z - (W * xp.sin(z) + MU_FIELD * (z - apart)) / (W * xp.cos(z) + MU_FIELD)
    return v - apart + z
