"""Smoothing keeps what is even, spreads what is not by the width it is given, and asks nothing of the voxel size."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction import Geometry
from reconstruction.smoothing import SUPPORT, gaussian_matrix, smooth
from tests.reconstruction.sources import AXIAL


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.2, 1 / 3, 0.5, 1.0, 2.7])
def test_what_is_even_stays(sigma: float) -> None:
    matrix = gaussian_matrix(41, sigma)
    edge = int(np.ceil(SUPPORT * sigma))
    np.testing.assert_allclose(matrix.sum(axis=1)[edge : 41 - edge], 1, atol=1e-5)
    np.testing.assert_array_equal(matrix, matrix.T)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.7])
def test_a_point_spreads_by_its_standard_deviation(sigma: float) -> None:
    point = gaussian_matrix(41, sigma)[20]
    assert np.sqrt(point @ (np.arange(41) - 20.0) ** 2) == pytest.approx(sigma, rel=0.01)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (3.0, 3.0, 3.0)])
def test_brightness_does_not_depend_on_the_voxel_size(voxel_size: tuple[float, float, float]) -> None:
    geometry = Geometry((21, 21, 21), voxel_size, AXIAL)
    assert smooth(np.ones(geometry.shape, np.float32), geometry, 1.0)[10, 10, 10] == pytest.approx(1, abs=1e-5)
