"""What is asked of the whole line on a head that is nobody's template: Dice of the nuclei, and their means."""

from __future__ import annotations

import pytest

from benchmarks.accuracy import load_recipe
from benchmarks.regions import regions_of, score, simulated
from reconstruction import reconstruct

pytestmark = pytest.mark.slow

LEAST_DICE = {"caudate": 0.85, "putamen": 0.85, "pallidum": 0.85, "red_nucleus": 0.75, "subst_nigra": 0.75}

LARGEST_SHIFT_PPB = dict.fromkeys(LEAST_DICE, 5.0)
"""What misplaced voxels may do to a mean, on the worse side."""
COARSE_SHIFT_PPB = LARGEST_SHIFT_PPB | {"red_nucleus": 8.0}
"""The same with voxels of 2 mm: a red nucleus is forty of them, nearly all cut by its outline."""


@pytest.mark.parametrize(
    ("name", "largest"), [("noisy", COARSE_SHIFT_PPB), ("lesions", COARSE_SHIFT_PPB), ("1mm", LARGEST_SHIFT_PPB)]
)
def test_the_nuclei_of_warped_heads_are_found(name: str, largest: dict[str, float]) -> None:
    recipe, head = load_recipe("default"), simulated(name)
    maps = reconstruct(head.acquisition, recipe)
    regions = regions_of(maps, recipe)
    assert regions.trusted, regions.reason
    scores = score(regions, head, maps)
    assert {nucleus: found for nucleus, found in scores.dice.items() if found < LEAST_DICE.get(nucleus, 0)} == {}
    assert {n: s for n, s in scores.shift_ppb.items() if abs(s) > largest.get(n, 1e9)} == {}
