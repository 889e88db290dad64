"""Least squares by Golub-Kahan bidiagonalisation, for operators that are given as callables.

LSQR: Paige & Saunders 1982, doi:10.1145/355984.355989.  LSMR: Fong & Saunders 2011, doi:10.1137/10079687X.  The letters
are the papers'.  Both stop when ‖Aᵀ(b − A x)‖ ≤ tolerance · ‖Aᵀ b‖.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import hypot

from array_api_compat import array_namespace

from reconstruction.acquisition import FloatArray
from reconstruction.solvers import Convergence

Operator = Callable[[FloatArray], FloatArray]


def lsqr(
    A: Operator, adjoint: Operator, b: FloatArray, *, tolerance: float, max_iterations: int
) -> tuple[FloatArray, Convergence]:
    """x that makes ‖A x − b‖ least, and how the iteration ended.

    A, adjoint: from arrays like x to arrays like b and back; arrays may have any shape.
    """
    steps = _bidiagonalisation(A, adjoint, b)
    beta, alpha, v = next(steps)
    xp = array_namespace(v)
    x, w = xp.zeros_like(v), v
    phi_bar, rho_bar = beta, alpha
    start = alpha * beta
    gradient, iterations = start, 0
    while gradient > tolerance * start and iterations < max_iterations:
        beta, alpha, v = next(steps)
        rho = hypot(rho_bar, beta)
        c, s = rho_bar / rho, beta / rho
        theta, rho_bar = s * alpha, -c * alpha
        phi, phi_bar = c * phi_bar, s * phi_bar
        x = x + (phi / rho) * w
        w = v - (theta / rho) * w
        gradient = abs(phi_bar * alpha * c)
        iterations += 1
    return x, Convergence(iterations, gradient / start if start > 0 else 0.0, tolerance)


def lsmr(
    A: Operator, adjoint: Operator, b: FloatArray, *, tolerance: float, max_iterations: int
) -> tuple[FloatArray, Convergence]:
    """x by a path along which ‖Aᵀ(b − A x)‖ falls at every step.  Arguments and result as for `lsqr`."""
    steps = _bidiagonalisation(A, adjoint, b)
    beta, alpha, v = next(steps)
    xp = array_namespace(v)
    x, h, h_bar = xp.zeros_like(v), v, xp.zeros_like(v)
    alpha_bar, zeta_bar = alpha, alpha * beta
    rho, rho_bar, c_bar, s_bar = 1.0, 1.0, 1.0, 0.0
    start = alpha * beta
    iterations = 0
    while abs(zeta_bar) > tolerance * start and iterations < max_iterations:
        beta, alpha, v = next(steps)
        rho_before, rho = rho, hypot(alpha_bar, beta)
        c, s = alpha_bar / rho, beta / rho
        theta, alpha_bar = s * alpha, c * alpha
        rho_bar_before, theta_bar = rho_bar, s_bar * rho
        rho_bar = hypot(c_bar * rho, theta)
        c_bar, s_bar = c_bar * rho / rho_bar, theta / rho_bar
        zeta, zeta_bar = c_bar * zeta_bar, -s_bar * zeta_bar
        h_bar = h - (theta_bar * rho / (rho_before * rho_bar_before)) * h_bar
        x = x + (zeta / (rho * rho_bar)) * h_bar
        h = v - (theta / rho) * h
        iterations += 1
    return x, Convergence(iterations, abs(zeta_bar) / start if start > 0 else 0.0, tolerance)


def _bidiagonalisation(A: Operator, adjoint: Operator, b: FloatArray) -> Iterator[tuple[float, float, FloatArray]]:
    """β, α and v of each step: A v = β u + α u_before, Aᵀ u = α v + β v_before."""
    beta, u = _normalised(b)
    alpha, v = _normalised(adjoint(u))
    while True:
        yield beta, alpha, v
        beta, u = _normalised(A(v) - alpha * u)
        alpha, v = _normalised(adjoint(u) - beta * v)


def _normalised(vector: FloatArray) -> tuple[float, FloatArray]:
    xp = array_namespace(vector)
    length = float(xp.linalg.vector_norm(vector))
    return length, vector / length if length > 0 else vector
