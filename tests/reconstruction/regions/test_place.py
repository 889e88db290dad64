"""A small nucleus goes to where the map shows it, and only where that is plain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from reconstruction.acquisition import FloatArray
from reconstruction.regions._place import REACH_MM, placed
from tests.reconstruction.regions.test_refine import EVERYWHERE, GEOMETRY, MASK, chi_of, depth_of_ball

ATLAS = (20.0, 20.0, 20.0)


def middles(chi: FloatArray, *outlines: FloatArray) -> list[list[float]]:
    """Where nuclei that the atlas puts at `outlines` come to lie."""
    names = tuple(f"left_{number}" for number in range(len(outlines)))
    given = {name: (EVERYWHERE, depth) for name, depth in zip(names, outlines, strict=True)}
    found = placed(given, names, chi, MASK, GEOMETRY)
    return [np.argwhere(found[name][1] > 0).mean(axis=0).tolist() for name in names]


@pytest.mark.parametrize("shift", [(1.5, 0.0, 0.0), (0.0, -1.0, 1.0), (-0.5, 1.5, -0.5)])
def test_it_goes_to_where_the_map_shows_it(shift: Sequence[float]) -> None:
    x, y, z = (a + s for a, s in zip(ATLAS, shift, strict=True))
    (found,) = middles(chi_of(depth_of_ball(2.6, (x, y, z))), depth_of_ball(2.6))
    assert found == pytest.approx((x, y, z), abs=0.5)


@pytest.mark.parametrize(
    ("chi", "radius"),
    [
        (chi_of(depth_of_ball(3.0), noise=0.02), 3.0),
        (chi_of(depth_of_ball(3.0, (20.4, 20.3, 19.7))), 3.0),
        (chi_of(depth_of_ball(3.0), contrast=0), 3.0),
        (chi_of(depth_of_ball(9.0, (22, 20, 20))), 9.0),
        (chi_of(depth_of_ball(3.0, (20, 20, 26))), 3.0),
    ],
    ids=["in place", "half a voxel beside", "not shown", "large", "further than it may"],
)
def test_else_it_stays(chi: FloatArray, radius: float) -> None:
    (found,) = middles(chi, depth_of_ball(radius))
    assert found == [*ATLAS]


def test_a_neighbour_that_is_brighter_is_no_place_for_it() -> None:
    own, other = depth_of_ball(2.6), depth_of_ball(4.0, (20.0, 20.0, 26.0))
    chi = chi_of(own, contrast=0.05) + chi_of(other, contrast=0.2)
    found, beside = middles(chi, own, other)
    assert found == pytest.approx(ATLAS, abs=0.3)
    assert beside == pytest.approx((20, 20, 26), abs=0.3)


def test_it_moves_no_further_than_its_reach() -> None:
    (found,) = middles(chi_of(depth_of_ball(2.6, (20.0, 20.0, 23.0))), depth_of_ball(2.6))
    assert np.linalg.norm(np.subtract(found, ATLAS)) <= REACH_MM + 0.3
