"""RESHARP, LBV and iSMV each take what is harmonic in the brain, and leave the field of what lies in it."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest
from scipy import ndimage

from reconstruction import Geometry, quality
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.background._closed import closed
from reconstruction.background.ismv import ismv
from reconstruction.background.lbv import lbv
from reconstruction.background.resharp import resharp
from reconstruction.sphere import eroded, transfer_function
from tests.laws import assert_linear
from tests.reconstruction.background.scene import (
    GEOMETRIES,
    SOURCE,
    brain,
    even_noise,
    inside_field,
    interior,
    outside_field,
)
from tests.reconstruction.sources import ball

Method = Callable[..., tuple[FloatArray, BoolArray]]
METHODS = [resharp, lbv, ismv]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_field_from_outside_goes(method: Method, geometry: Geometry) -> None:
    field, mask = outside_field(geometry), brain(geometry)
    local, kept = method(field, even_noise(geometry), mask, geometry)
    assert local.dtype == np.float32
    assert not (kept & ~mask).any()
    assert not local[~kept].any()
    deep = kept & interior(mask, geometry, 8.0)
    assert deep.sum() > 1000
    assert local[deep].std() < (0.01 if geometry is GEOMETRIES[0] else 0.04) * field[deep].std()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_field_from_inside_stays(method: Method, geometry: Geometry) -> None:
    own = inside_field(geometry)
    local, kept = method(outside_field(geometry) + own, even_noise(geometry), brain(geometry), geometry)
    near = kept & ball(geometry, 18.0, SOURCE) & ~ball(geometry, 8.5, SOURCE)
    slope = np.polyfit(own[near], local[near], 1)[0]
    assert 0.8 < slope < 1.1


@pytest.mark.parametrize("method", METHODS)
def test_removal_is_linear(method: Method) -> None:
    geometry = GEOMETRIES[0]
    mask, noise = brain(geometry), even_noise(geometry)
    assert_linear(lambda x: method(x, noise, mask, geometry, tolerance=1e-5)[0], geometry.shape, rtol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_voxels_of_which_nothing_is_known_have_no_say(method: Method) -> None:
    geometry = GEOMETRIES[0]
    field, mask, noise = outside_field(geometry), brain(geometry), even_noise(geometry)
    for centre in ((10.0, 0.0, 0.0), (0.0, 0.0, 33.0)):
        spoilt = ball(geometry, 5.0, centre)
        noise[spoilt], field[spoilt] = np.inf, 0
    clean, kept = method(field, noise, mask, geometry)
    field[np.isinf(noise)] = 50
    local, again = method(field, noise, mask, geometry)
    np.testing.assert_array_equal(again, kept)
    np.testing.assert_allclose(local, clean, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_hole_in_what_is_known_is_no_source(method: Method) -> None:
    """A field that is the same everywhere is all background, also round voxels of which nothing is known."""
    geometry = GEOMETRIES[0]
    noise = even_noise(geometry)
    noise[ball(geometry, 5.0, (10.0, 0.0, 0.0))] = np.inf
    even = np.where(np.isfinite(noise), np.float32(1), np.float32(0))
    local, kept = method(even, noise, brain(geometry), geometry)
    assert kept.any()
    assert np.abs(local).max() < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_neither_threads_nor_an_unpadded_image_change_the_result(method: Method) -> None:
    geometry = GEOMETRIES[1]
    field, mask, noise = outside_field(geometry) + inside_field(geometry), brain(geometry), even_noise(geometry)
    local, _ = method(field, noise, mask, geometry)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone, _ = method(field, noise, mask, geometry)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_allclose(alone, local, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_reports_how_it_ended(method: Method) -> None:
    geometry = GEOMETRIES[0]
    with quality.ledger() as ledger:
        method(outside_field(geometry), even_noise(geometry), brain(geometry), geometry)
    assert 3 < ledger.figures["background.iterations"] < 100
    assert ledger.figures["background.residual"] <= 1e-3
    assert not ledger.warnings


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_without_an_inside_or_a_field_gives_nothing(method: Method) -> None:
    geometry = GEOMETRIES[0]
    field = outside_field(geometry)
    speck = np.zeros(geometry.shape, bool)
    speck[20, 20, 20] = True
    local, kept = method(field, even_noise(geometry), speck, geometry)
    assert not kept.any()
    assert not local.any()
    local, _ = method(field, np.full(geometry.shape, np.inf, np.float32), brain(geometry), geometry)
    assert not local.any()


@pytest.mark.parametrize("method", METHODS)
def test_a_brain_that_the_image_cuts_is_cut_there(method: Method) -> None:
    """What lies beyond the image is not brain: its edge is a surface like any other."""
    geometry = Geometry((48, 44, 20), (2.0, 2.0, 2.0), GEOMETRIES[0].b0_direction)
    mask = brain(geometry)
    assert mask[:, :, 0].any()
    assert mask[:, :, -1].any()
    local, kept = method(outside_field(geometry), even_noise(geometry), mask, geometry)
    assert not kept[:, :, 0].any()
    assert not kept[:, :, -1].any()
    deep = kept & interior(mask, geometry, 8.0)
    assert local[deep].std() < 0.02 * outside_field(geometry)[deep].std()


def test_lbv_is_zero_at_the_surface_and_solves_laplace() -> None:
    geometry = GEOMETRIES[0]
    field, mask = outside_field(geometry) + inside_field(geometry), brain(geometry)
    local, kept = lbv(field, even_noise(geometry), mask, geometry, peel=0, tolerance=1e-6)
    background = np.where(kept, field - local, field)
    sums = sum(np.roll(background, shift, axis) for axis in range(3) for shift in (1, -1))
    assert np.abs(sums / 6 - background)[kept].max() < 1e-4 * np.abs(field[mask]).max()


def test_lbv_peels_layers() -> None:
    geometry = GEOMETRIES[0]
    mask, faces = brain(geometry), ndimage.generate_binary_structure(3, 1)
    for peel in (0, 2):
        _, kept = lbv(outside_field(geometry), even_noise(geometry), mask, geometry, peel=peel)
        np.testing.assert_array_equal(kept, ndimage.binary_erosion(mask, faces, iterations=peel + 1))


def test_ismv_is_what_averaging_again_and_again_leads_to() -> None:
    """The paper's own iteration, on a small brain that it gets done with."""
    geometry = Geometry((24, 22, 20), (2.0, 2.0, 2.0), GEOMETRIES[0].b0_direction)
    mask = ball(geometry, 17.0)
    field = np.where(mask, outside_field(geometry), 0)
    sphere = transfer_function(geometry.shape, geometry.voxel_size, 5.0, field)
    inner = eroded(mask, sphere)
    background = field
    for _ in range(300):
        mean = np.fft.irfftn(sphere * np.fft.rfftn(background), s=geometry.shape, axes=(0, 1, 2))
        background = np.where(inner, mean, field)
    local, kept = ismv(field, even_noise(geometry), mask, geometry, radius_mm=5.0, tolerance=1e-6)
    np.testing.assert_array_equal(kept, inner)
    np.testing.assert_allclose(local, np.where(inner, field - background, 0), atol=1e-4)


def test_resharp_with_a_stronger_term_leaves_less() -> None:
    geometry = GEOMETRIES[0]
    field = inside_field(geometry)
    norms = [
        np.linalg.norm(resharp(field, even_noise(geometry), brain(geometry), geometry, strength=strength)[0])
        for strength in (1e-4, 1e-2, 1.0)
    ]
    assert norms[0] > norms[1] > norms[2]


def test_unknown_voxels_leave_the_mask_only_from_its_surface() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[1:8, 1:8, 1:8] = True
    known = mask.copy()
    known[4, 4, 4] = known[4, 4, 6:8] = False
    kept = closed(mask, known)
    assert kept[4, 4, 4]
    assert not kept[4, 4, 6:].any()
    assert kept.sum() == mask.sum() - 2
