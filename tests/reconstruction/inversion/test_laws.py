"""What every method of inversion keeps to: sign, scale, zero, axes, unknown voxels, threads."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from reconstruction import Geometry, NotReconstructible, dipole, fourier, quality, stage
from reconstruction.acquisition import FloatArray
from reconstruction.inversion._problem import Problem
from tests.laws import random_volume
from tests.reconstruction.inversion.spheres import COARSE, GEOMETRIES, contrasts, given, inverted
from tests.reconstruction.sources import OBLIQUE, ball

METHODS = ("l2", "ilsqr", "rts", "ndi", "fansi")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{method: (method, {}) for method in METHODS},
    "l2-edges": ("l2", {"edge_weight": 0.1}),
    "fansi-linear": ("fansi", {"nonlinear": False}),
    "fansi-harmonic": ("fansi", {"harmonic": 150.0}),
}
"""Each method as it is without settings, and with those that take it another way."""

in_each_case = pytest.mark.parametrize(("method", "settings"), CASES.values(), ids=CASES)
DATA = ("local_field", "noise", "mask")
LOWEST = {"l2": 0.5, "ilsqr": 0.6, "rts": 0.6, "ndi": 0.5, "fansi": 0.8}
"""Part of a sphere's contrast that the method keeps on these grids: smooth and early-stopped maps are too low."""


@pytest.mark.parametrize("geometry", GEOMETRIES)
@in_each_case
def test_spheres_are_found(method: str, settings: dict[str, Any], geometry: Geometry) -> None:
    data = given(geometry)
    chi = inverted(method, data, **settings)
    assert chi.dtype == np.float32
    assert chi.shape == geometry.shape
    assert not chi[~data["mask"]].any()
    found = contrasts(chi, geometry)
    assert found.min() > LOWEST[method]
    assert found.max() < 1.25


@in_each_case
def test_nothing_gives_nothing(method: str, settings: dict[str, Any]) -> None:
    data = given()
    data["local_field"] = np.zeros_like(data["local_field"])
    with quality.ledger() as ledger:
        chi = inverted(method, data, **settings)
    assert not chi.any()
    assert not ledger.warnings


@in_each_case
def test_sign_of_the_field_is_sign_of_the_map(method: str, settings: dict[str, Any]) -> None:
    data = given()
    chi = inverted(method, data, **settings)
    opposite = inverted(method, data | {"local_field": -data["local_field"]}, **settings)
    np.testing.assert_allclose(-opposite, chi, atol=1e-5)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"rts"}))
def test_units_do_not_matter(method: str) -> None:
    """Field and noise in another unit give χ in that unit.  RTS alone counts in ppm, by ρ and μ."""
    data = given()
    chi = inverted(method, data)
    tenfold = inverted(method, data | {"local_field": 10 * data["local_field"], "noise": 10 * data["noise"]})
    np.testing.assert_allclose(tenfold / 10, chi, atol=2e-4)


@pytest.mark.parametrize("method", [*METHODS, "tkd", "tv"])
def test_detail_is_explained_by_the_continuous_dipole(method: str) -> None:
    """The papers' kernel.  By the difference kernel, oblique detail keeps more than half of its field unexplained."""
    geometry = GEOMETRIES[1]
    data = given(geometry)
    chi = np.where(ball(geometry, 20.0), 0.05 * random_volume(geometry.shape, 5), 0).astype(np.float32)
    D = dipole.sampled(geometry.shape, geometry.voxel_size, geometry.b0_direction)
    field, inside = fourier.apply(D, chi), data["mask"]
    found = inverted(method, data | {"local_field": np.where(inside, field, 0)})
    assert (fourier.apply(D, found) - field)[inside].std() < 0.5 * field[inside].std()


@pytest.mark.parametrize(("method", "settings"), [*CASES.values(), ("tkd", {})], ids=[*CASES, "tkd"])
def test_unknown_voxels_have_no_say(method: str, settings: dict[str, Any]) -> None:
    data = given()
    hole = ball(COARSE, 3.0, (-2.0, 8.0, -3.0))
    data["noise"] = np.where(hole, np.float32(np.inf), data["noise"])
    chi = inverted(method, data, **settings)
    wild = inverted(method, data | {"local_field": np.where(hole, np.float32(7), data["local_field"])}, **settings)
    np.testing.assert_array_equal(wild, chi)
    assert np.isfinite(chi).all()


@pytest.mark.parametrize("method", ["ndi", "fansi"])
def test_a_voxel_unwrapped_by_a_turn_too_many_changes_nothing(method: str) -> None:
    """The complex signal, which nonlinear methods follow, is the same."""
    data = given()
    turn = 2 * np.pi / Problem.of(*(data[name] for name in DATA), COARSE).radians_per_ppm()
    wrong = ball(COARSE, 1.5, (0.0, -8.0, 3.0))
    chi = inverted(method, data, max_iterations=8)
    turned = data["local_field"] + np.where(wrong, np.float32(turn), np.float32(0))
    assert wrong.any()
    np.testing.assert_allclose(inverted(method, data | {"local_field": turned}, max_iterations=8), chi, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_of_one_slice_gives_a_map(method: str) -> None:
    data = given()
    data["mask"] = np.where(np.arange(COARSE.shape[2]) == COARSE.shape[2] // 2, data["mask"], False)
    chi = inverted(method, data | {"local_field": np.where(data["mask"], data["local_field"], 0)})
    assert np.isfinite(chi).all()
    assert chi.any()


@in_each_case
def test_map_turns_with_the_axes(method: str, settings: dict[str, Any]) -> None:
    geometry = Geometry((26, 28, 24), (2.2, 2.2, 2.6), OBLIQUE)
    data = given(geometry)
    turned_geometry = Geometry((24, 26, 28), (2.6, 2.2, 2.2), (OBLIQUE[2], OBLIQUE[0], OBLIQUE[1]))
    turned = {name: turn(value) for name, value in data.items() if name != "geometry"} | {"geometry": turned_geometry}
    straight, other = turn(inverted(method, data, **settings)), inverted(method, turned, **settings)
    assert float(np.linalg.norm(other - straight)) < 5e-3 * float(np.linalg.norm(straight))


def turn(volume: FloatArray) -> FloatArray:
    return np.ascontiguousarray(volume.transpose(2, 0, 1))


@pytest.mark.parametrize("method", METHODS)
def test_threads_do_not_matter(method: str) -> None:
    data = given()
    before = numba.get_num_threads()
    first = inverted(method, data)
    try:
        numba.set_num_threads(1)
        np.testing.assert_allclose(inverted(method, data), first, atol=1e-6)
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_known_is_refused(method: str) -> None:
    data = given()
    data["noise"] = np.full_like(data["noise"], np.inf)
    with pytest.raises(NotReconstructible, match="no voxel of the mask"):
        inverted(method, data)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"l2"}))
def test_how_it_ended_is_told(method: str) -> None:
    data = given()
    with quality.ledger() as ledger:
        inverted(method, data)
    assert 3 < ledger.figures["inversion.iterations"] < stage.defaults("inversion", method)["max_iterations"]
    assert not ledger.warnings
    with quality.ledger() as ledger:
        inverted(method, data, max_iterations=2)
    assert ledger.figures["inversion.iterations"] == 2
    assert "inversion: stopped after 2 iterations" in ledger.warnings[0]
