"""Layers of voxels are taken off a mask where a recipe asks for it, as published chains do."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from reconstruction import stage
from reconstruction.mask._coherence import eroded
from tests.simulation.scenes import small_head

RECIPES = Path(__file__).parents[2] / "config" / "recipes"


def test_erosion_takes_layers_but_not_at_the_edge_of_the_volume() -> None:
    mask = np.zeros((9, 9, 6), bool)
    mask[1:8, 1:8] = True
    expected = np.zeros_like(mask)
    expected[3:6, 3:6] = True
    assert np.array_equal(eroded(mask, 2), expected)
    assert np.array_equal(eroded(mask, 0), mask)
    assert not eroded(mask, 100).any()


@pytest.mark.parametrize("method", ["bet", "phase_quality"])
def test_a_method_erodes_what_it_found(method: str) -> None:
    a = small_head().acquisition
    data = {"phase": a.phase, "magnitude": a.magnitude, "echo_times": a.echo_times, "geometry": a.geometry}
    settings = stage.defaults("mask", method)
    whole, layers_less = (stage.run("mask", method, settings | {"erosions": n}, data) for n in (0, 2))
    assert np.array_equal(layers_less, ndimage.binary_erosion(whole, iterations=2, border_value=1))
    assert 0 < layers_less.sum() < 0.95 * whole.sum()


@pytest.mark.parametrize(
    ("recipe", "table", "published"),
    [
        ("consensus", "mask", {"erosions": 1}),
        ("consensus", "background", {"max_radius_mm": 12.0, "min_radius_mm": 1.0, "radii": 12}),
        (
            "consensus",
            "inversion",
            {"nonlinear": True, "strength": 5e-4, "harmonic": 150.0, "tolerance": 1e-3, "max_iterations": 400},
        ),
        ("qsmxt", "mask", {"erosions": 3}),
        ("qsmxt", "background", {"max_radius_mm": 18.0, "min_radius_mm": 2.0, "radii": 9, "threshold": 0.05}),
        ("qsmxt", "inversion", {"delta": 0.15, "mu": 1e5, "rho": 10.0, "tolerance": 0.01, "max_iterations": 20}),
    ],
)
def test_recipes_of_others_have_their_published_settings(recipe: str, table: str, published: dict[str, object]) -> None:
    """SEPIA_Pipeline_FANSI of the consensus' example code; `fast` of QSMxT with the defaults of QSM.jl."""
    given = tomllib.loads((RECIPES / f"{recipe}.toml").read_text(encoding="utf-8"))[table]
    assert {name: given[name] for name in published} == published
