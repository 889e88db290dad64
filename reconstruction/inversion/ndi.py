"""Nonlinear dipole inversion: gradient descent on the complex signal, with no regulariser but where it stops.

    min over χ:  Σ W |exp(i D χ) − exp(i φ)|²;    χ ← χ − τ D W sin(D χ − φ)

Polak 2020, doi:10.1002/nbm.4271.  Left alone it would go on to fit the noise, as streaks.  It ends when χ hardly
changes any more or when the misfit is what the noise explains (Morozov's discrepancy principle: Engl 1996,
Regularization of Inverse Problems, § 4.3), whichever comes first.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from reconstruction import fourier, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.inversion._problem import Problem
from reconstruction.noise import BEST_WEIGHT
from reconstruction.solvers import Convergence
from reconstruction.stage import Count, Positive

STEP = 4.0
"""τ for weights of at most 1: descent needs τ below 2 / max D² = 4.5, and Polak's 2 is slower."""


def ndi(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    tolerance: Positive = 3e-3,
    discrepancy: Positive = 1.0,
    max_iterations: Count = 150,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field, noise: ppm; noise may be inf where nothing is known.  mask: bool.  W goes with 1/σ².
    tolerance: relative change of χ in one iteration at which to stop.  discrepancy: root mean square of the misfit in
    noise standard deviations at which to stop.  Reported is the smaller of the two, each over what was asked of it.
    """
    xp = array_namespace(local_field)
    problem = Problem.of(local_field, noise, mask, geometry)
    scale = problem.radians_per_ppm()
    phase, D, W = scale * problem.field, problem.dipole, problem.weight / BEST_WEIGHT
    explained = discrepancy * scale * problem.sigma * float(xp.count_nonzero(problem.weight)) ** 0.5

    chi = xp.zeros_like(phase)
    criterion, iterations = float("inf"), 0
    while criterion > 1 and iterations < max_iterations:
        misfit = xp.sin(fourier.apply(D, chi) - phase)
        step = STEP * fourier.apply(D, W * misfit)
        chi = chi - step
        size = float(xp.linalg.vector_norm(chi))
        change = float(xp.linalg.vector_norm(step)) / size if size > 0 else 0.0
        remaining = float(xp.linalg.vector_norm(xp.sqrt(problem.weight) * misfit))
        criterion = min(change / tolerance, remaining / explained)
        iterations += 1
    quality.convergence("inversion", Convergence(iterations, criterion, 1.0))
    return problem.solution(chi / scale)
