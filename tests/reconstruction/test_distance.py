"""The distance to what lies outside a mask."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from reconstruction.distance import depth


@pytest.mark.parametrize("density", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(17, 23, 9), (1, 12, 5), (6, 1, 1)])
def test_it_is_that_of_the_nearest_voxel_outside(shape: tuple[int, int, int], density: float) -> None:
    inside = np.random.default_rng(3).random(shape) < density
    inside[0, 0, -1] = False
    expected = ndimage.distance_transform_edt(inside, sampling=(0.7, 1.0, 2.3))
    np.testing.assert_allclose(depth(inside, (0.7, 1.0, 2.3)), expected, rtol=1e-6)


def test_nothing_outside_is_infinitely_far() -> None:
    assert np.isposinf(depth(np.ones((3, 4, 5), bool), (1.0, 1.0, 1.0))).all()
