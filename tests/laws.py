"""Laws that operators keep, as assertions: a test calls them for every operator there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Operator = Callable[[Array], Array]


def random_volume(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Unit-variance noise."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def assert_adjoint(
    forward: Operator, adjoint: Operator, domain: tuple[int, ...], codomain: tuple[int, ...], rtol: float = 1e-4
) -> None:
    """⟨A x, y⟩ = ⟨x, Aᵀ y⟩."""
    x, y = random_volume(domain, 1), random_volume(codomain, 2)
    image, back = forward(x), adjoint(y)
    assert image.shape == codomain
    assert back.shape == domain
    scale = float(np.linalg.norm(image) * np.linalg.norm(y))
    assert abs(_dot(image, y) - _dot(x, back)) <= rtol * scale


def assert_linear(operator: Operator, domain: tuple[int, ...], rtol: float = 1e-4) -> None:
    """A (a x + b y) = a A x + b A y."""
    x, y = random_volume(domain, 3), random_volume(domain, 4)
    together = operator(np.float32(1.5) * x - np.float32(0.5) * y)
    apart = 1.5 * operator(x) - 0.5 * operator(y)
    assert float(np.linalg.norm(together - apart)) <= rtol * float(np.linalg.norm(apart))


def assert_self_adjoint(operator: Operator, domain: tuple[int, ...], rtol: float = 1e-4) -> None:
    """⟨A x, y⟩ = ⟨x, A y⟩."""
    assert_adjoint(operator, operator, domain, domain, rtol)


def _dot(a: Array, b: Array) -> float:
    return float(np.sum(a.astype(float) * b))
