from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dicom_node.encode.figures import asymmetries, regions
from tests.dicom_node.encode.example import NUCLEI, SHAPE, maps, whole_maps


def test_known_answers() -> None:
    chi = np.zeros(SHAPE, np.float32)
    chi[4, 5, 2], chi[5, 5, 2] = 0.018, -0.018  # ppm, in the reference region of 3 x 3 x 2 voxels
    brain, csf = regions(dataclasses.replace(maps(), chi=chi))
    assert (csf.name, csf.voxels) == ("csf", 18)
    assert csf.volume == pytest.approx(18 * 0.5 * 0.75 * 2.5)
    assert csf.chi.mean == pytest.approx(0)
    assert csf.chi.sd == pytest.approx(np.sqrt(2 * 18**2 / 18))
    assert (csf.chi.median, csf.chi.minimum, csf.chi.maximum) == pytest.approx((0, -18, 18))
    assert brain.voxels == 10 * 14 * 5


def test_voxels_outside_the_mask_do_not_count() -> None:
    given = maps()
    touching = dataclasses.replace(given.reference, mask=np.ones(SHAPE, bool))
    _, csf = regions(dataclasses.replace(given, reference=touching))
    assert csf.voxels == int(given.mask.sum())


def test_the_whole_brain_as_reference_is_one_region() -> None:
    assert [region.name for region in regions(maps(reference="whole_brain"))] == ["whole_brain"]


def test_without_r2star_there_is_no_figure_of_it() -> None:
    assert {region.r2star for region in regions(maps(r2star=False))} == {None}


def test_what_is_zero_has_a_mean_of_zero() -> None:
    """The reference leaves out unreliable voxels of the mask, and so does the region that is reported for it."""
    given = maps(reference="whole_brain")
    averaged = given.mask.copy()
    averaged[1:4] = False
    chi = np.where(given.mask, given.chi - given.chi[averaged].mean(), 0).astype(np.float32)
    reference = dataclasses.replace(given.reference, mask=averaged)
    [brain] = regions(dataclasses.replace(given, chi=chi, reference=reference))
    assert brain.voxels == averaged.sum()
    assert brain.chi.mean == pytest.approx(0, abs=1e-3)


def test_structures_of_the_atlas_follow_in_their_order() -> None:
    found = regions(whole_maps())
    assert [region.name for region in found[:4]] == ["whole_brain", "csf", "left_caudate", "right_caudate"]
    assert {region.name for region in found[2:]} == set(NUCLEI)
    assert {region.covered for region in found} == {1.0}


def test_what_is_outside_the_map_is_told_as_not_covered() -> None:
    given = whole_maps()
    mask = given.mask.copy()
    mask[9, 4:6] = False  # two of the three voxels that the left caudate has in each slice
    found = {region.name: region for region in regions(dataclasses.replace(given, mask=mask))}
    assert found["left_caudate"].covered == pytest.approx(1 / 3)
    assert found["left_caudate"].voxels == 3


def test_percentiles_are_those_of_the_voxels() -> None:
    given = whole_maps()
    for region in regions(given):
        inside = given.chi[region.box][region.mask].astype(float) * 1000
        assert (region.chi.p5, region.chi.p95) == pytest.approx(tuple(np.percentile(inside, [5, 95])), rel=1e-5)
        assert region.chi.minimum <= region.chi.p5 <= region.chi.median <= region.chi.p95 <= region.chi.maximum


def test_asymmetry_is_left_minus_right_and_changes_sign_with_the_sides() -> None:
    found = regions(whole_maps())
    by_name = {region.name: region for region in found}
    pairs = {pair.structure: pair for pair in asymmetries(found)}
    assert pairs.keys() == {"caudate", "globus_pallidus_external", "red_nucleus"}
    left, right = by_name["left_caudate"], by_name["right_caudate"]
    assert pairs["caudate"].chi == pytest.approx(left.chi.mean - right.chi.mean)
    assert pairs["caudate"].volume == pytest.approx(200 * (9 - 12) / 21)
    swapped = [dataclasses.replace(r, name=_other_side(r.name)) for r in found]
    mirrored = {pair.structure: pair for pair in asymmetries(swapped)}
    for name, pair in pairs.items():
        assert mirrored[name].chi == pytest.approx(-pair.chi)
        assert mirrored[name].volume == pytest.approx(-pair.volume)


def test_regions_that_are_not_trusted_have_no_figures() -> None:
    assert [region.name for region in regions(whole_maps(trusted=False))] == ["whole_brain", "csf"]


def _other_side(name: str) -> str:
    sides = {"left": "right", "right": "left"}
    side, _, structure = name.partition("_")
    return f"{sides[side]}_{structure}" if side in sides else name
