"""A named region is zero where it is there and large enough; otherwise the whole brain is, and it is said."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction import Geometry, Regions, quality
from reconstruction.reference.region import region

GEOMETRY = Geometry((24, 24, 24), (2.0, 2.0, 2.0), (0.0, 0.0, 1.0))
MASK = np.ones(GEOMETRY.shape, bool)


def scene() -> tuple[Regions, np.ndarray, np.ndarray]:
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[2:8, 6:14, 6:14], labels[14:20, 6:14, 6:14] = 1, 2
    names = ("left_lateral_ventricle", "right_lateral_ventricle")
    chi = 0.01 * np.random.default_rng(0).standard_normal(GEOMETRY.shape).astype(np.float32)
    chi[labels > 0] += np.float32(0.05)
    r2star = np.where(labels > 0, 2, 18).astype(np.float32)
    return Regions(names, labels, {}, True), chi, r2star


def test_both_sides_without_rim_and_vein() -> None:
    regions, chi, r2star = scene()
    chi[4, 9, 9] = 0.4
    reference = region(chi, r2star, MASK, regions, GEOMETRY)
    assert reference.name == "lateral_ventricle"
    assert not (reference.mask & (regions.labels == 0)).any()
    assert not reference.mask[4, 9, 9]
    assert not reference.mask[2].any()
    assert reference.mask[4:6].any()
    assert reference.mask[16:18].any()
    assert reference.mean == pytest.approx(0.05 - chi[MASK].mean(), abs=0.002)
    assert reference.sd == pytest.approx(0.01, rel=0.1)  # of the noise in the region: the brain's is half as much again


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"regions": None}, "no region"),
        ({"name": "dentate"}, "there is no region 'dentate'"),
        ({"min_volume_ml": 50.0}, "at least 50 ml"),
    ],
)
def test_the_whole_brain_stands_in_with_a_warning(changed: dict, said: str) -> None:
    regions, chi, r2star = scene()
    settings = dict(changed)
    given = settings.pop("regions", regions)
    with quality.ledger() as ledger:
        reference = region(chi, r2star, MASK, given, GEOMETRY, **settings)
    assert reference.name == "whole_brain"
    assert any(said in warning for warning in ledger.warnings)


def test_regions_that_were_withheld_are_not_used() -> None:
    regions, chi, r2star = scene()
    withheld = Regions((), np.zeros_like(regions.labels), {}, False, "no brain")
    with quality.ledger() as ledger:
        assert region(chi, r2star, MASK, withheld, GEOMETRY).name == "whole_brain"
    assert "withheld" in ledger.warnings[0]
