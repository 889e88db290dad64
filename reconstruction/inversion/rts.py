"""Rapid two-step inversion: what the dipole determines well is solved for, what it does not is made sparse.

    1. a few steps of LSMR on  D χ = f
    2. min over χ:  |∇χ|₁ + μ/2 |F χ − F χ₁|²  where |D| > δ, by alternating directions

Kames 2018, doi:10.1016/j.neuroimage.2017.11.018, with its parameters (as in QSM.jl and QSM.rs).  The penalty ρ of the
splitting grows whenever the iteration is slow to close its gap (Chan 2011, doi:10.1109/TIP.2011.2158229).
"""

from __future__ import annotations

from array_api_compat import array_namespace

from reconstruction import fourier, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.inversion._least_squares import lsmr
from reconstruction.inversion._problem import Problem, shrink
from reconstruction.solvers import Convergence
from reconstruction.stage import Count, Positive, Share

SUFFICIENT, GROWTH = 0.7, 5.0
"""ρ grows by the second factor when the gap does not shrink by the first (Chan 2011: 0.7 and 2; Kames' code: 5)."""


def rts(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    delta: Share = 0.15,
    mu: float = 1e5,
    rho: Positive = 10.0,
    steps: Count = 4,
    tolerance: float = 1e-2,
    max_iterations: Count = 20,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field, noise: ppm; of noise is used only where it is inf: there the field is taken for 0.  mask: bool.
    delta: |D| above which the first step is believed.  mu: how firmly, against total variation in ppm/mm.
    rho: 1/ρ is the first threshold of differences, in ppm/mm.  steps: of LSMR.
    tolerance: relative change of χ in one iteration at which to stop.
    """
    xp = array_namespace(local_field)
    problem = Problem.of(local_field, noise, mask, geometry)
    D, shape, size = problem.dipole, problem.window.shape, geometry.voxel_size

    def field_of(chi: FloatArray) -> FloatArray:
        return fourier.apply(D, chi)

    determined, _ = lsmr(field_of, field_of, problem.field, tolerance=0.0, max_iterations=steps)
    determined = xp.where(problem.inside, determined, 0.0)

    firm = xp.astype(xp.abs(D) > delta, D.dtype) * mu
    laplacian = gradient.spectrum(shape, size, of=local_field)
    believed = firm * fourier.forward(determined, shape)
    chi, multiplier = determined, xp.zeros_like(gradient.forward(determined, size))
    gap, change, iterations = float("inf"), float("inf"), 0
    while change > tolerance and iterations < max_iterations:
        differences = gradient.forward(chi, size)
        target = shrink(differences + multiplier, 1 / rho)
        multiplier = multiplier + differences - target
        gap_before, gap = gap, float(xp.sum(xp.sqrt(xp.sum((differences - target) ** 2, axis=0))))
        if gap > SUFFICIENT * gap_before:
            rho, multiplier = GROWTH * rho, multiplier / GROWTH

        normal = firm + rho * laplacian
        sparse = fourier.forward(gradient.adjoint(target - multiplier, size), shape)
        spectrum = (believed + rho * sparse) / xp.where(normal > 0, normal, 1.0)
        before, chi = chi, fourier.inverse(spectrum, shape)
        change = _relative(chi - before, chi)
        iterations += 1
    quality.convergence("inversion", Convergence(iterations, change, tolerance))
    return problem.solution(chi)


def _relative(change: FloatArray, value: FloatArray) -> float:
    xp = array_namespace(value)
    size = float(xp.sum(value * value))
    return (float(xp.sum(change * change)) / size) ** 0.5 if size > 0 else 0.0
