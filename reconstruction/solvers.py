"""Iterations that know no operators: they are given callables, and say why they stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import array_api_compat
from array_api_compat import array_namespace
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.fourier import Real, zeros_like


@dataclass(frozen=True)
class Convergence:
    """How an iteration ended: after how many, and the criterion's last value beside what was asked of it."""

    iterations: int
    residual: float
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether it stopped because it was done."""
        return self.residual <= self.tolerance


def conjugate_gradient(
    operator: Callable[[NDArray[Real]], NDArray[Real]],
    right_side: NDArray[Real],
    start: NDArray[Real],
    *,
    tolerance: float,
    max_iterations: int,
    precondition: Callable[[NDArray[Real]], NDArray[Real]] = lambda residual: residual,
    orthogonal: bool = False,
) -> tuple[NDArray[Real], Convergence]:
    """Solves A x = b for a symmetric positive semidefinite A (Hestenes & Stiefel 1952, doi:10.6028/jres.049.044).

    Stops when ‖b − A x‖ ≤ tolerance · ‖b‖.  Runs in the precision of its arrays.  precondition: a symmetric positive
    definite approximation of A⁻¹.  orthogonal: whether residuals are made orthogonal to all before them, which rounding
    takes from them (Parlett & Scott 1979, Math. Comp. 33:217), at the price of keeping them; for
    iterations that are to end early at the same place whatever the rounding, without a preconditioner.
    """
    xp = array_namespace(right_side)
    x = xp.asarray(start, copy=True)
    residual = right_side - operator(x)
    ahead = precondition(residual)
    direction = xp.asarray(ahead, copy=True)
    energy, left = _dot(residual, ahead), _dot(residual, residual)
    scale = _dot(right_side, right_side)
    if scale == 0:
        return xp.zeros_like(x), Convergence(0, 0.0, tolerance)
    iterations = 0
    kept = zeros_like(right_side, (max_iterations if orthogonal else 0, array_api_compat.size(right_side)))
    while left > tolerance**2 * scale and iterations < max_iterations:
        if orthogonal:
            kept[iterations, :] = xp.reshape(residual, (-1,)) / left**0.5
        image = operator(direction)
        curvature = _dot(direction, image)
        if curvature <= 0:  # the operator sees nothing of it: what is left is rounding
            break
        step = energy / curvature
        x += step * direction
        residual -= step * image
        if orthogonal:
            before = kept[: iterations + 1, :]
            residual -= xp.reshape((before @ xp.reshape(residual, (-1,))) @ before, residual.shape)
        ahead = precondition(residual)
        left = _dot(residual, residual)
        previous, energy = energy, left if ahead is residual else _dot(residual, ahead)
        direction *= energy / previous
        direction += ahead
        iterations += 1
    return x, Convergence(iterations, (left / scale) ** 0.5, tolerance)


def _dot(a: NDArray[Real], b: NDArray[Real]) -> float:
    xp = array_namespace(a, b)
    return float(xp.reshape(a, (-1,)) @ xp.reshape(b, (-1,)))


Values = tuple[FloatArray, ...]


def alternating_directions(
    proximal: Callable[[Values], Values],
    project: Callable[[Values], Values],
    start: Values,
    where: BoolArray,
    *,
    tolerance: float,
    max_iterations: int,
) -> tuple[Values, Convergence]:
    """Minimises Σ gᵢ(Aᵢ x) by alternating directions of multipliers (Boyd 2011, doi:10.1561/2200000016, scaled form).

    proximal: from the values Aᵢ x to the targets zᵢ − uᵢ, where vᵢ = Aᵢ x + uᵢ, zᵢ = prox(vᵢ), uᵢ ← vᵢ − zᵢ; it keeps
    the multipliers uᵢ itself.  project: from the targets to the values Aᵢ x of that x which comes nearest to them, by
    least squares; the first value is x, and the targets are left as they are.  start: the first values.
    Stops when x changes by less than `tolerance` (relative, over `where`) in one iteration; returns the last
    values.
    """
    xp = array_namespace(where)
    values, before = start, start[0][where]
    change, iterations = float("inf"), 0
    while change > tolerance and iterations < max_iterations:
        values = project(proximal(values))
        after = values[0][where]
        size = float(xp.linalg.vector_norm(after))
        change = float(xp.linalg.vector_norm(after - before)) / size if size > 0 else 0.0
        before = after
        iterations += 1
    return values, Convergence(iterations, change, tolerance)
