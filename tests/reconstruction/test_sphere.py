"""The mean over a sphere is the mean, and harmonic functions are their own."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction import Geometry, fourier
from reconstruction.sphere import eroded, mean_of_known, transfer_function
from tests.laws import assert_self_adjoint, random_volume
from tests.reconstruction.sources import AXIAL, ball, places

GEOMETRY = Geometry((40, 37, 22), (1.0, 1.2, 2.0), AXIAL)
RADIUS = 5.0


def sphere() -> np.ndarray:
    return transfer_function(GEOMETRY.shape, GEOMETRY.voxel_size, RADIUS, np.zeros(1, np.float32))


def test_a_harmonic_function_is_its_own_mean() -> None:
    x, y, z = places(GEOMETRY) / 10
    inside = ball(GEOMETRY, 15.0)
    harmonic = (x * x - z * z + 0.5 * x * y + y - 0.3).astype(np.float32)
    inner = eroded(inside, sphere())
    assert inner.sum() > 1000
    mean = fourier.apply(sphere(), np.where(inside, harmonic, 0))
    assert np.abs(mean - harmonic)[inner].max() < 0.01 * np.abs(harmonic[inner]).max()


def test_mean_keeps_constants_and_is_self_adjoint() -> None:
    one = fourier.apply(sphere(), np.ones(GEOMETRY.shape, np.float32))
    np.testing.assert_allclose(one, 1, atol=1e-5)
    assert_self_adjoint(lambda x: fourier.apply(sphere(), x), GEOMETRY.shape)


def test_eroding_takes_a_radius_off() -> None:
    inner = eroded(ball(GEOMETRY, 15.0), sphere())
    assert not (inner & ~ball(GEOMETRY, 11.0)).any()
    assert not (ball(GEOMETRY, 8.5) & ~inner).any()


def test_mean_of_known_does_not_see_the_unknown() -> None:
    volume = random_volume(GEOMETRY.shape, 1)
    known = random_volume(GEOMETRY.shape, 2) > -1
    first = mean_of_known(volume, known, sphere())
    volume[~known] = 1e6
    np.testing.assert_allclose(mean_of_known(volume, known, sphere()), first, atol=1e-6)
    nowhere = mean_of_known(volume, np.zeros_like(known), sphere())
    assert not nowhere.any()


@pytest.mark.parametrize("radius", [0.4, 3.0])
def test_small_spheres_are_normalised(radius: float) -> None:
    transfer = transfer_function((9, 8, 7), (1.0, 1.0, 2.5), radius, np.zeros(1, np.float32))
    assert transfer.dtype == np.float32
    assert transfer[0, 0, 0] == pytest.approx(1, abs=1e-6)
    assert np.abs(transfer).max() <= 1 + 1e-6
