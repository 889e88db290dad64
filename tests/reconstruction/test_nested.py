"""Coarse grids: means of blocks, and back on straight lines."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest

from reconstruction import nested
from tests.laws import assert_linear, random_volume

FACTORS = (2, 3, 1)


def test_a_block_has_the_mean_of_its_voxels() -> None:
    volume = random_volume((4, 6, 2), 1)
    found = nested.mean_of_blocks(volume, FACTORS)
    assert found.shape == (2, 2, 2)
    assert found[1, 0, 1] == pytest.approx(volume[2:4, 0:3, 1].mean())


def test_behind_the_end_is_what_is_said() -> None:
    found = nested.mean_of_blocks(np.zeros((3, 3, 3), np.float32), (2, 2, 2), beyond=8.0)
    np.testing.assert_allclose(found[:, 0, 0], [0, 4])
    assert found[1, 1, 1] == 7


def test_what_weighs_nothing_has_no_say() -> None:
    volume, weight = random_volume((4, 4, 4), 1), np.zeros((4, 4, 4), np.float32)
    weight[0, 0, 0], weight[1, 1, 1] = 1, 3
    mean, share = nested.weighted_means(volume, weight, (2, 2, 2))
    assert mean[0, 0, 0] == pytest.approx((volume[0, 0, 0] + 3 * volume[1, 1, 1]) / 4)
    assert share[0, 0, 0] == pytest.approx(0.5)
    assert mean[1, 1, 1] == share[1, 1, 1] == 0


def test_a_ramp_comes_back_but_for_half_a_block_at_its_ends() -> None:
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32)[:, None, None], (12, 6, 2))
    back = nested.between_blocks(nested.mean_of_blocks(ramp, FACTORS), FACTORS)
    assert back.shape == ramp.shape
    assert back.dtype == np.float32
    np.testing.assert_allclose(back[1:-1], ramp[1:-1], atol=1e-5)


def test_a_constant_stays_where_there_is_one_block() -> None:
    np.testing.assert_allclose(nested.between_blocks(np.full((1, 1, 1), 2.5, np.float32), (4, 2, 3)), 2.5)


def test_both_ways_are_linear() -> None:
    assert_linear(lambda v: nested.mean_of_blocks(v, FACTORS), (5, 7, 3))
    assert_linear(lambda v: nested.between_blocks(v, FACTORS), (5, 7, 3))


@pytest.mark.parametrize("factors", [FACTORS, (1, 1, 1)])
def test_another_library_gives_the_same(factors: nested.Factors) -> None:
    volume = random_volume((5, 7, 3), 2)
    for there_or_back in (nested.mean_of_blocks, nested.between_blocks):
        other = there_or_back(array_api_strict.asarray(volume), factors)
        np.testing.assert_allclose(np.asarray(other), there_or_back(volume, factors), atol=1e-6)
