"""Volumes on blocks of voxels, and back."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction import Geometry
from reconstruction.blocks import along, between, coarse, means, steps_of

SHAPE = (13, 8, 9)
STEPS = (3, 2, 4)


def test_a_mean_is_that_of_the_voxels_there_are() -> None:
    volume = np.random.default_rng(1).random(SHAPE, np.float32)
    found = means(volume, STEPS)
    assert found.shape == coarse(Geometry(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)), STEPS).shape == (5, 4, 3)
    assert found[0, 0, 0] == pytest.approx(volume[:3, :2, :4].mean())
    assert found[4, 3, 2] == pytest.approx(volume[12:, 6:, 8:].mean())
    assert means(volume, (1, 1, 1)) is volume


def test_what_is_straight_comes_back() -> None:
    """Between the middles of the first and the last block."""
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (12, 8, 12)), indexing="ij")
    volume = 1 + 2 * x - 3 * y + z
    blocks = means(volume, STEPS)
    line = np.empty(blocks.shape[2], np.float32)
    for i, j, k in ((1, 1, 2), (5, 4, 7), (10, 6, 9)):
        along(blocks, i, j, STEPS, line)
        first, second, share = between(k, STEPS[2], line.size)
        assert line[first] + share * (line[second] - line[first]) == pytest.approx(volume[i, j, k], abs=1e-4)


def test_blocks_are_as_near_to_a_size_as_voxels_allow() -> None:
    assert steps_of(Geometry(SHAPE, (0.5, 0.9, 3.0), (0.0, 0.0, 1.0)), 2.0) == (4, 2, 1)
