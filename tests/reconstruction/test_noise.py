"""What a voxel's word is worth: by its noise, on any scan, and on a phantom that has none."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction import Geometry, NotReconstructible
from reconstruction.background.pdf import pdf
from reconstruction.fourier import Window
from reconstruction.inversion.tv import tv
from reconstruction.noise import BEST_WEIGHT, roughness, weights
from tests.laws import random_volume
from tests.reconstruction.sources import AXIAL, ball, field_of_sphere

GEOMETRY = Geometry((32, 30, 28), (2.0, 2.0, 2.0), AXIAL)
MASK = ball(GEOMETRY, 22.0)


def test_weights_go_as_one_over_the_variance() -> None:
    noise = np.full(GEOMETRY.shape, 1e-3, np.float32)
    noise[16, 15, 14], noise[16, 15, 13], noise[16, 15, 12] = 2e-3, 1e-5, np.inf
    weight, typical = weights(noise, MASK)
    assert typical == pytest.approx(1e-3)
    assert weight[16, 15, 14] == pytest.approx(0.25)
    assert weight[16, 15, 13] == BEST_WEIGHT
    assert weight[16, 15, 12] == 0
    assert not weight[~MASK].any()


def test_no_noise_at_all_makes_every_voxel_alike() -> None:
    """As in a numerical phantom."""
    none = np.zeros(GEOMETRY.shape, np.float32)
    weight, typical = weights(none, MASK)
    assert set(weight[MASK]) == {1}
    assert typical > 0
    own = field_of_sphere(GEOMETRY, 6.0, 0.1, (4.0, -3.0, 2.0))
    far = field_of_sphere(GEOMETRY, 4.0, 9.4, (0.0, 24.0, 12.0))
    even = np.full(GEOMETRY.shape, 1e-3, np.float32)
    local, _ = pdf(own + far, none, MASK, GEOMETRY)
    np.testing.assert_array_equal(local, pdf(own + far, even, MASK, GEOMETRY)[0])
    chi = tv(own, none, MASK, MASK.astype(np.float32), GEOMETRY)
    assert np.isfinite(chi).all()
    inner = ball(GEOMETRY, 4.5, (4.0, -3.0, 2.0))
    assert chi[inner].mean() - chi[MASK & ~ball(GEOMETRY, 9.0, (4.0, -3.0, 2.0))].mean() == pytest.approx(0.1, rel=0.1)


def test_nothing_known_is_refused_in_words() -> None:
    unknown = np.full(GEOMETRY.shape, np.inf, np.float32)
    with pytest.raises(NotReconstructible, match="can be believed"):
        weights(unknown, MASK)
    with pytest.raises(NotReconstructible, match="mask is empty"):
        Window.around(np.zeros_like(MASK), GEOMETRY.voxel_size, 20.0)
    for method in (pdf, lambda *a: tv(*a[:3], MASK.astype(np.float32), a[3])):
        with pytest.raises(NotReconstructible):
            method(unknown, unknown, np.zeros_like(MASK), GEOMETRY)


@pytest.mark.parametrize(("told", "found"), [(1.0, 1.0), (0.25, 4.0), (3.0, 1.0)])
def test_a_field_is_as_rough_as_its_noise(told: float, found: float) -> None:
    """Whatever it holds, wherever its noise differs, and however wild a few voxels are; never less than 1."""
    noise = np.full(GEOMETRY.shape, 1e-3, np.float32)
    noise[:16] *= 5
    field = field_of_sphere(GEOMETRY, 6.0, 0.05, (4.0, -3.0, 2.0)) + noise * random_volume(GEOMETRY.shape, 3)
    noise[12:14], field[12:14] = np.inf, 7.0
    field[20, 15, 14] = 9.0
    assert roughness(field, np.float32(told) * noise, MASK) == pytest.approx(found, rel=0.15)


def test_what_bends_along_one_axis_alone_is_no_noise() -> None:
    noise = np.full(GEOMETRY.shape, 1e-3, np.float32)
    stripes = noise * random_volume(GEOMETRY.shape, 4)
    stripes[:, ::2] += 0.05
    assert roughness(stripes, noise, MASK) == pytest.approx(1, abs=0.1)


def test_of_nothing_nothing_is_rough() -> None:
    none = np.zeros(GEOMETRY.shape, np.float32)
    assert roughness(none, none, MASK) == 1
    assert roughness(none, none, np.zeros_like(MASK)) == 1
    assert roughness(none, none, ball(GEOMETRY, 1.8)) == 1
