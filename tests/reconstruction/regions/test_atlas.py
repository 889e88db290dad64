"""The nuclei lie where they are, left is left however the images are stored, and what is no brain gets no figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest

from benchmarks.regions import failures
from reconstruction import InvalidAtlas, Maps, Reference, quality
from reconstruction.regions import _images
from reconstruction.regions.atlas import atlas as by_atlas
from tests.reconstruction.regions.scene import STEP_MM, coarse_atlas, dice, plain, regions_of, volumes, with_affine
from tests.simulation.scenes import small_head


@pytest.fixture(autouse=True)
def coarse() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_images, "STEP_MM", STEP_MM)
        yield


def test_the_nuclei_are_found() -> None:
    regions, ledger = plain()
    assert regions.trusted
    assert not regions.reason
    assert not ledger.warnings
    assert set(coarse_atlas().names) == set(regions.names)
    for name, least in (("putamen", 0.8), ("caudate", 0.7), ("globus_pallidus_external", 0.65), ("red_nucleus", 0.5)):
        assert dice(regions, small_head(), name) > least
    assert regions.match["overlap"] > 0.9
    assert ledger.figures["regions.chi"] == regions.match["chi"]


def test_ventricles_are_fluid_and_white_matter_is_none() -> None:
    regions, head = plain()[0], small_head()
    tissue = np.median(head.r2star[head.brain_mask])
    assert np.median(head.r2star[regions.mask("lateral_ventricle")]) < 0.6 * tissue
    assert np.median(head.r2star[regions.mask("white_matter")]) > tissue
    assert not regions.labels[~head.brain_mask].any()


STORED = {"sagittal": (1, 2, 0), "coronal": (0, 2, 1), "axial": (0, 1, 2)}


@pytest.mark.parametrize(
    ("axes", "flips"),
    [
        ("sagittal", (0, 1)),
        pytest.param("coronal", (1,), marks=pytest.mark.slow),
        pytest.param("axial", (0, 1), marks=pytest.mark.slow),
    ],
)
def test_left_stays_left_however_the_images_are_stored(axes: str, flips: tuple[int, ...]) -> None:
    """The same head with its axes in another order and direction: the same voxels get the same names."""
    head = small_head()
    order = STORED[axes]
    affine = np.array(head.acquisition.geometry.affine)[:, [*order, 3]]
    shape = tuple(head.acquisition.geometry.shape[axis] for axis in order)
    flip = tuple(slice(None, None, -1) if axis in flips else slice(None) for axis in range(3))
    for axis in flips:
        affine[:, 3] += affine[:, axis] * (shape[axis] - 1)
        affine[:, axis] *= -1
    assert np.linalg.det(affine) > 0  # as every stack of DICOM planes

    def stored(volume: Any) -> Any:
        return np.ascontiguousarray(volume.transpose(order)[flip])

    changed = {name: stored(volume) for name, volume in volumes(head).items()}
    turned = regions_of(changed | with_affine(replace(head.acquisition.geometry, shape=shape, affine=None), affine))
    expected = plain()[0]
    assert turned.names == expected.names
    for name in ("left_caudate", "right_putamen"):
        one, other = turned.mask(name), stored(expected.mask(name))
        assert 2 * (one & other).sum() > 0.97 * (one.sum() + other.sum())


def withheld(name: str) -> str:
    """What is said of a small head that `benchmarks.regions.failures` changed."""
    head = small_head()
    given = volumes(head)
    nothing = np.zeros_like(given["chi"])
    maps = Maps(
        geometry=head.acquisition.geometry,
        chi=given["chi"],
        r2star=head.r2star,
        field=nothing,
        local_field=nothing,
        magnitude=given["magnitude"],
        brain_mask=head.brain_mask,
        mask=head.brain_mask,
        reference=Reference("none", nothing > 0, 0.0, 0.0),
    )
    with quality.ledger() as ledger:
        regions = regions_of(failures(maps)[name])
    assert not regions.trusted
    assert regions.names == ()
    assert not regions.labels.any()
    assert any(regions.reason in warning for warning in ledger.warnings)
    return regions.reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mirrored affine", "left-handed"),
        ("no affine", "not known"),
        ("slab of 30 mm, 0 mm above the middle", "at least 40 mm"),
        ("turned by 180° about y", "turned|stretched|bent|unlike"),
        pytest.param("back to front", "turned|stretched|bent|unlike", marks=pytest.mark.slow),
        pytest.param("upside down", "turned|stretched|bent|unlike", marks=pytest.mark.slow),
        pytest.param("noise", "unlike", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_trusted_has_no_figures(name: str, reason: str) -> None:
    found = withheld(name)
    assert any(word in found for word in reason.split("|")), found


def test_a_crumb_is_no_brain() -> None:
    mask = np.zeros_like(small_head().brain_mask)
    mask[30:34, 38:42, 20:24] = True
    regions = regions_of({"mask": mask})
    assert not regions.trusted
    assert "ml of brain" in regions.reason
    assert not regions_of({"mask": np.zeros_like(mask)}).trusted


def test_the_number_of_threads_changes_no_voxel_by_more_than_rounding() -> None:
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = regions_of().labels
    finally:
        numba.set_num_threads(threads)
    assert (alone != plain()[0].labels).mean() < 1e-5


@pytest.mark.slow
def test_units_and_levels_do_not_matter() -> None:
    """The magnitude's unit is arbitrary, and χ is known up to a constant."""
    head = small_head()
    given = volumes(head)
    chi = np.where(head.brain_mask, given["chi"] + np.float32(0.02), 0).astype(np.float32)
    other = regions_of({"magnitude": given["magnitude"] * np.float32(1e4), "chi": chi})
    assert (other.labels != plain()[0].labels).mean() < 1e-3


@pytest.mark.slow
def test_a_single_echo_is_enough() -> None:
    regions = regions_of({"r2star": None})
    assert regions.trusted
    assert dice(regions, small_head(), "putamen") > 0.75


def test_a_nucleus_that_was_cut_is_left_out_by_name() -> None:
    mask = small_head().brain_mask.copy()
    mask &= ~small_head().labels["caudate_left"]
    with quality.ledger() as ledger:
        regions = regions_of({"mask": mask})
    assert "left_caudate" not in regions.names
    assert "right_caudate" in regions.names
    assert "left_caudate" in regions.cut
    assert not set(regions.cut) & set(regions.names)
    assert any("left_caudate" in warning for warning in ledger.warnings)


def test_another_atlas_than_the_recipe_names_is_refused() -> None:
    head = small_head()
    with pytest.raises(InvalidAtlas, match="asks for atlas 'other'"):
        by_atlas(coarse_atlas(), **volumes(head), geometry=head.acquisition.geometry, name="other")
