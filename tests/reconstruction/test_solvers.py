"""Solvers find known minima and say why they stopped."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction.solvers import alternating_directions, conjugate_gradient


def positive_matrix(size: int) -> np.ndarray:
    A = np.random.default_rng(0).standard_normal((size, size))
    return (A @ A.T + size * np.eye(size)).astype(np.float32)


def test_conjugate_gradient_solves() -> None:
    A = positive_matrix(20)
    truth = np.arange(20, dtype=np.float32)
    x, outcome = conjugate_gradient(
        lambda v: A @ v, A @ truth, np.zeros(20, np.float32), tolerance=1e-5, max_iterations=100
    )
    np.testing.assert_allclose(x, truth, atol=1e-2)
    assert outcome.converged
    assert outcome.residual <= 1e-5
    assert 0 < outcome.iterations <= 30


def test_conjugate_gradient_says_when_it_is_not_done() -> None:
    A = positive_matrix(20)
    _, outcome = conjugate_gradient(
        lambda v: A @ v, np.ones(20, np.float32), np.zeros(20, np.float32), tolerance=1e-6, max_iterations=2
    )
    assert outcome.iterations == 2
    assert not outcome.converged
    assert outcome.residual > 1e-6


def test_a_preconditioner_changes_the_way_and_not_the_end() -> None:
    """Of a badly scaled matrix, the inverse of its diagonal."""
    scales = np.logspace(0, 2, 20)
    A = scales[:, None] * (np.eye(20) + 0.2 * positive_matrix(20) / 40) * scales
    truth = np.arange(20) - 9.0
    found = [
        conjugate_gradient(lambda v: A @ v, A @ truth, np.zeros(20), tolerance=1e-8, max_iterations=200, **options)
        for options in ({}, {"precondition": lambda residual: residual / np.diag(A)})
    ]
    for x, outcome in found:
        np.testing.assert_allclose(x, truth, atol=1e-2)
        assert outcome.converged
    assert found[1][1].iterations < 0.8 * found[0][1].iterations


def test_conjugate_gradient_of_nothing_is_nothing() -> None:
    zero = np.zeros(5, np.float32)
    x, outcome = conjugate_gradient(lambda v: v, zero, np.ones(5, np.float32), tolerance=1e-6, max_iterations=9)
    assert not x.any()
    assert outcome.converged


@pytest.mark.parametrize("rho", [0.3, 1.0, 10.0])
def test_alternating_directions_find_the_soft_threshold(rho: float) -> None:
    """min ½|x − y|² + t|x|₁ is soft thresholding, for every penalty."""
    y, t = np.array([3.0, -2.0, 0.4, 0.0], np.float32), 0.5
    u = np.zeros_like(y)

    def proximal(values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        v = values[0] + u
        z = np.sign(v) * np.maximum(np.abs(v) - t / rho, 0)
        u[:] = v - z
        return (z - u,)

    def project(targets: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return ((y + rho * targets[0]) / (1 + rho),)

    (x,), outcome = alternating_directions(
        proximal, project, (np.zeros_like(y),), np.ones(4, bool), tolerance=1e-6, max_iterations=1000
    )
    np.testing.assert_allclose(x, [2.5, -1.5, 0, 0], atol=1e-3)
    assert outcome.converged


def test_orthogonal_residuals_end_where_exact_arithmetic_would() -> None:
    """As many steps as there are distinct eigenvalues solve the system, which rounding forbids without."""
    eigenvalues = np.geomspace(1e-6, 1, 12)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    A = rotation @ np.diag(eigenvalues) @ rotation.T
    b = np.ones(12)

    def left(**settings: bool) -> float:
        x, _ = conjugate_gradient(lambda v: A @ v, b, np.zeros(12), tolerance=0, max_iterations=12, **settings)
        return float(np.linalg.norm(b - A @ x))

    assert left(orthogonal=True) < 0.01 * left()
