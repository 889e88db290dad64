from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dicom_node.encode.figures import regions
from tests.dicom_node.encode.example import SHAPE, maps


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
