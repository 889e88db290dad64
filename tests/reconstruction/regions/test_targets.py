"""What is asked of the whole line on a head that is nobody's template: Dice of the nuclei, and their means."""

from __future__ import annotations

import pytest

from benchmarks.accuracy import load_recipe
from benchmarks.regions import regions_of, score, simulated
from reconstruction import reconstruct

pytestmark = pytest.mark.slow

LEAST_DICE = {"caudate": 0.85, "putamen": 0.85, "pallidum": 0.85, "red_nucleus": 0.75, "subst_nigra": 0.75}

LARGEST_SHIFT_PPB = 5.0
"""What misplaced voxels may do to the mean of both sides."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "one_side_ppb"), [("noisy", 8.0), ("lesions", 8.0), ("1mm", LARGEST_SHIFT_PPB)])
def test_the_nuclei_of_warped_heads_are_found(name: str, one_side_ppb: float) -> None:
    """one_side_ppb: larger with voxels of 2 mm, where a red nucleus is forty of them, nearly all cut by its outline."""
    recipe, head = load_recipe("default"), simulated(name)
    maps = reconstruct(head.acquisition, recipe)
    regions = regions_of(maps, recipe)
    assert regions.trusted, regions.reason
    scores = score(regions, head, maps)
    assert {nucleus: found for nucleus, found in scores.dice.items() if found < LEAST_DICE.get(nucleus, 0)} == {}
    shifts = {nucleus: scores.shift_ppb[nucleus] for nucleus in LEAST_DICE}
    assert {nucleus: pair for nucleus, pair in shifts.items() if not abs(sum(pair)) <= 2 * LARGEST_SHIFT_PPB} == {}
    assert {nucleus: pair for nucleus, pair in shifts.items() if not max(map(abs, pair)) <= one_side_ppb} == {}
