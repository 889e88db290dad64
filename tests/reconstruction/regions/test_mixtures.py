"""Densities of Gaussian mixtures, against numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction.atlas import Mixture
from reconstruction.errors import InvalidAtlas
from reconstruction.regions._mixtures import density_ratio

PEAK = (2 * np.pi * 4) ** -1.5
"""1/mm³, of a Gaussian of 2 mm."""


def ball(radius: float = 3.0, centre: tuple[float, float, float] = (10.0, -5.0, 2.0)) -> Mixture:
    """A round structure: a Gaussian of 2 mm, cut at a radius in mm."""
    threshold = PEAK * np.exp(-(radius**2) / 8)
    return Mixture(threshold, np.ones(1), np.array([centre]), 4 * np.eye(3)[None])


def test_the_surface_lies_where_the_threshold_is() -> None:
    directions = np.random.default_rng(0).standard_normal((3, 50))
    surface = np.array([[10.0], [-5.0], [2.0]]) + 3 * directions / np.linalg.norm(directions, axis=0)
    np.testing.assert_allclose(density_ratio(ball(), surface), 1, rtol=1e-9)


def test_it_grows_towards_the_middle_and_never_reaches_nothing_far_away() -> None:
    along = np.stack([np.linspace(10, 60, 40), np.full(40, -5.0), np.full(40, 2.0)])
    ratio = density_ratio(ball(), along)
    assert ratio[0] == pytest.approx(np.exp(9 / 8))
    assert (np.diff(ratio) <= 0).all()
    assert ratio[-1] > 0


def test_components_add_up_in_any_order() -> None:
    one, other = ball(), ball(centre=(12.0, -4.0, 2.0))
    places = np.random.default_rng(1).uniform(-2, 15, (3, 4, 5, 6))
    weights, means = np.array([0.3, 0.7]), np.concatenate([one.means, other.means])
    covariances = np.concatenate([one.covariances, other.covariances])
    both = Mixture(one.threshold, weights, means, covariances)
    turned = Mixture(one.threshold, weights[::-1], means[::-1], covariances[::-1])
    expected = 0.3 * density_ratio(one, places) + 0.7 * density_ratio(other, places)
    np.testing.assert_allclose(density_ratio(both, places), expected, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(density_ratio(turned, places), density_ratio(both, places), rtol=1e-9)


def test_what_is_no_mixture_is_refused() -> None:
    m = ball()
    with pytest.raises(InvalidAtlas, match="positive definite"):
        Mixture(m.threshold, m.weights, m.means, -m.covariances)
    with pytest.raises(InvalidAtlas, match="not positive"):
        Mixture(0.0, m.weights, m.means, m.covariances)
    with pytest.raises(InvalidAtlas, match="as many"):
        Mixture(m.threshold, np.ones(2), m.means, m.covariances)
