"""One-step TGV sees local sources through any harmonic background, and only those."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reconstruction import Geometry, dipole, fourier, quality, stage
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.inversion.tgv import _strain, _strain_adjoint, tgv
from tests.laws import assert_adjoint, random_volume
from tests.reconstruction.inversion.spheres import COARSE, GEOMETRIES, contrasts, given
from tests.reconstruction.sources import AXIAL, ball, places


def inverted(data: dict[str, Any], **settings: Any) -> tuple[FloatArray, BoolArray]:
    chi, mask = stage.run("inversion", "tgv", stage.defaults("inversion", "tgv") | settings, data)
    return chi, mask


@pytest.mark.parametrize("geometry", GEOMETRIES[:2])
def test_spheres_are_found(geometry: Any) -> None:
    data = given(geometry)
    with quality.ledger() as ledger:
        chi, mask = inverted(data, tolerance=0.03)
    assert not ledger.warnings
    assert chi.dtype == np.float32
    assert not chi[~mask].any()
    assert not (mask & ~data["mask"]).any()
    assert contrasts(chi, geometry).min() > 0.5
    assert contrasts(chi, geometry).max() < 1.2


def test_a_harmonic_background_has_no_say() -> None:
    """Shim terms of a ppm have no Laplacian; what is left of them is rounding."""
    data = given()
    x, y, z = places(COARSE) / 30
    background = (0.5 * x - 0.3 * z + 0.8 * (x**2 - y**2) + 0.6 * y * z).astype(np.float32)
    clean, _ = inverted(data, max_iterations=60)
    chi, _ = inverted(data | {"local_field": data["local_field"] + background * data["mask"]}, max_iterations=60)
    np.testing.assert_allclose(chi, clean, atol=1e-4)


def test_a_slope_is_left_as_steep_as_it_is() -> None:
    """χ that rises evenly within a ball: total variation, which has no slope for nothing, finds a third of it."""
    geometry = Geometry((22, 22, 20), (2.2, 2.2, 2.2), AXIAL)
    x, mask = places(geometry)[0], ball(geometry, 22.0)
    image = tuple(slice(n) for n in geometry.shape)
    padded = np.zeros((44, 44, 40), np.float32)
    padded[image] = np.where(ball(geometry, 14.0), 0.1 + 0.005 * x, 0)
    field = fourier.apply(dipole.kernel((44, 44, 40), geometry.voxel_size, AXIAL), padded)[image]
    noise = np.full(geometry.shape, 1e-3, np.float32)
    data = {"local_field": np.where(mask, field, 0), "noise": noise, "mask": mask, "geometry": geometry}
    chi, _ = inverted(data, strength=0.2, smoothness=1.0, max_iterations=100)
    core = ball(geometry, 9.0)
    assert np.polyfit(x[core], chi[core], 1)[0] > 0.75 * 0.005


def test_nothing_gives_nothing_and_sign_follows() -> None:
    data = given()
    nothing, _ = inverted(data | {"local_field": np.zeros_like(data["local_field"])})
    assert not nothing.any()
    chi, _ = inverted(data, max_iterations=20)
    opposite, _ = inverted(data | {"local_field": -data["local_field"]}, max_iterations=20)
    np.testing.assert_allclose(-opposite, chi, atol=1e-6)


def test_unknown_voxels_have_no_say() -> None:
    data = given()
    hole = ball(COARSE, 3.0, (-2.0, 8.0, -3.0))
    data["noise"] = np.where(hole, np.float32(np.inf), data["noise"])
    chi, _ = inverted(data, max_iterations=20)
    wild, _ = inverted(data | {"local_field": np.where(hole, np.float32(7), data["local_field"])}, max_iterations=20)
    np.testing.assert_array_equal(wild, chi)


def test_it_says_when_it_is_not_done() -> None:
    with quality.ledger() as ledger:
        tgv(**{name: value for name, value in given().items() if name != "magnitude"}, max_iterations=20)
    assert ledger.figures["inversion.iterations"] == 20
    assert "inversion: stopped after 20 iterations" in ledger.warnings[0]


STEPS = (0.8, 1.0, 1.25)
"""Voxel edges along each axis."""


def test_strain_is_what_stretches_and_shears_and_not_what_turns() -> None:
    shape = (6, 7, 8)
    x, y, z = np.meshgrid(*(np.arange(n) * h for n, h in zip(shape, STEPS, strict=True)), indexing="ij")
    everywhere, nothing = [np.ones(shape, bool)] * 3, np.zeros(shape)
    inner = (slice(None), *(slice(1, None),) * 3)

    def strain(*w: np.ndarray) -> np.ndarray:
        return _strain(np.stack(w).astype(np.float32), everywhere, STEPS)[inner].reshape(6, -1)

    root = 0.5**0.5
    for w, expected in (
        ((x, 2 * y, 3 * z), (1, 2, 3, 0, 0, 0)),
        ((y, x, nothing), (0, 0, 0, 2 * root, 0, 0)),
        ((z, nothing, nothing), (0, 0, 0, 0, root, 0)),
        ((nothing, z, y), (0, 0, 0, 0, 0, 2 * root)),
        ((y, -x, nothing), (0, 0, 0, 0, 0, 0)),
    ):
        np.testing.assert_allclose(
            strain(*w), np.broadcast_to(np.array(expected)[:, None], strain(*w).shape), atol=1e-5
        )


def test_strain_and_its_adjoint_belong_together() -> None:
    shape = (6, 7, 8)
    links = [random_volume(shape, axis) > -1 for axis in range(3)]
    assert_adjoint(
        lambda w: _strain(w, links, STEPS), lambda q: _strain_adjoint(q, links, STEPS), (3, *shape), (6, *shape)
    )
