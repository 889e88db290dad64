"""Inversion finds spheres of known susceptibility, whatever the grid, the noise and what the background left behind."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest

from reconstruction import Geometry, gradient, quality
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.fourier import Window
from reconstruction.inversion import _proximal
from reconstruction.inversion._tv_grid import Grid
from reconstruction.inversion.tkd import tkd
from reconstruction.inversion.tv import MARGIN_MM, RIM_MM, edge_weights, tv
from tests.laws import assert_linear, random_volume
from tests.reconstruction.sources import AXIAL, OBLIQUE, ball, field_of_sphere, mean_field_of_sphere, softened_ball

Method = Callable[..., FloatArray]
ISOTROPIC = Geometry((44, 48, 40), (1.5, 1.5, 1.5), AXIAL)
GEOMETRIES = [
    ISOTROPIC,
    Geometry((43, 47, 41), (1.5, 1.5, 1.5), OBLIQUE),
    Geometry((67, 71, 23), (1.0, 1.0, 3.0), AXIAL),
]
NESTED = Geometry((51, 50, 49), (1.2, 1.2, 1.2), OBLIQUE)
"""Fine enough for a coarser grid to come first."""
SPHERES = (((8.0, 4.0, 0.0), 7.0, 0.1), ((-10.0, -6.0, 4.0), 6.0, 0.05), ((2.0, -14.0, -6.0), 5.0, -0.06))
"""Centre and radius in mm, χ in ppm."""
NOISE = 0.001


def scene(geometry: Geometry, seed: int = 0) -> tuple[FloatArray, FloatArray, BoolArray, FloatArray, FloatArray]:
    """Field by the formula of the sphere, with noise; noise map, mask, magnitude; χ."""
    mask = ball(geometry, 28.0)
    field = sum(mean_field_of_sphere(geometry, radius, chi, centre) for centre, radius, chi in SPHERES)
    truth = sum(np.float32(chi) * softened_ball(geometry, radius, centre) for centre, radius, chi in SPHERES)
    noise = np.full(geometry.shape, NOISE, np.float32)
    noisy = (field + noise * random_volume(geometry.shape, seed)).astype(np.float32)
    return np.where(mask, noisy, 0), noise, mask, mask.astype(np.float32), np.asarray(truth, np.float32)


def contrast(chi: FloatArray, geometry: Geometry, which: int) -> float:
    """Mean over the inside of a sphere less that of the empty tissue."""
    centre, radius, _ = SPHERES[which]
    empty = ball(geometry, 24.0)
    for other_centre, other_radius, _ in SPHERES:
        empty &= ~ball(geometry, other_radius + 3.0, other_centre)
    return float(chi[ball(geometry, radius - 1.5, centre)].mean() - chi[empty].mean())


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_tv_finds_the_spheres(geometry: Geometry) -> None:
    field, noise, mask, magnitude, truth = scene(geometry)
    chi = tv(field, noise, mask, magnitude, geometry)
    assert chi.dtype == np.float32
    assert not chi[~mask].any()
    for i, (_, _, expected) in enumerate(SPHERES):
        assert contrast(chi, geometry, i) == pytest.approx(expected, rel=0.08, abs=0.003)
    error = (chi - truth)[mask] - (chi - truth)[mask].mean()
    assert error.std() < 0.25 * truth[mask].std()


def test_tkd_finds_the_spheres() -> None:
    field, noise, mask, magnitude, _ = scene(ISOTROPIC)
    chi = tkd(field, noise, mask, magnitude, ISOTROPIC)
    for i, (_, _, expected) in enumerate(SPHERES):
        assert contrast(chi, ISOTROPIC, i) == pytest.approx(expected, rel=0.25)


def test_tkd_is_linear() -> None:
    _, noise, mask, magnitude, _ = scene(ISOTROPIC)
    assert_linear(lambda x: tkd(x, noise, mask, magnitude, ISOTROPIC), ISOTROPIC.shape)


def test_tv_takes_what_the_background_left_for_what_it_is() -> None:
    """A source outside changes the map inside by far less than its field would as tissue."""
    field, noise, mask, magnitude, _ = scene(ISOTROPIC)
    left_over = field_of_sphere(ISOTROPIC, 3.0, 1.0, (0.0, 0.0, 32.0))
    clean = tv(field, noise, mask, magnitude, ISOTROPIC)
    chi = tv(np.where(mask, field + left_over, 0), noise, mask, magnitude, ISOTROPIC)
    deep = ball(ISOTROPIC, 22.0)
    assert left_over[deep].max() > 0.01
    assert (chi - clean)[deep].std() < 0.002


def test_differences_that_leave_the_brain_are_free_and_bind_no_others() -> None:
    x = np.zeros((4, 3, 3), np.float32)
    x[1], x[2, 1] = 5.0, 5.0
    threshold = np.full(x.shape, 1e3, np.float32)
    threshold[2:] = -1
    u, target = np.zeros((3, *x.shape), np.float32), np.zeros((3, *x.shape), np.float32)
    differences = np.float32(_proximal.RELAXATION) * gradient.forward(x, (1.0, 1.0, 1.0))
    _proximal.total_variation(x, u, target, threshold, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(target[:, 2:], differences[:, 2:])
    np.testing.assert_array_equal(target[0, 1], differences[0, 1])
    np.testing.assert_array_equal(target[:, 0], -differences[:, 0])
    assert not u[0, 1].any()


def test_tv_does_not_fit_wild_voxels() -> None:
    """A few voxels far off, as a wrong wrap leaves them, draw no streaks."""
    field, noise, mask, magnitude, _ = scene(ISOTROPIC)
    clean = tv(field, noise, mask, magnitude, ISOTROPIC)
    spoilt = field.copy()
    wild = (np.array([20, 26, 30]), np.array([22, 30, 18]), np.array([18, 22, 25]))
    spoilt[wild] += 0.5
    chi = tv(spoilt, noise, mask, magnitude, ISOTROPIC)
    others = mask.copy()
    others[wild] = False
    assert (chi - clean)[others].std() < 0.003


def test_tv_ignores_voxels_of_which_nothing_is_known() -> None:
    field, noise, mask, magnitude, _ = scene(ISOTROPIC)
    hole = ball(ISOTROPIC, 3.0, SPHERES[0][0])
    noise[hole] = np.inf
    clean = tv(field, noise, mask, magnitude, ISOTROPIC)
    field[hole] = 7.0
    chi = tv(field, noise, mask, magnitude, ISOTROPIC)
    np.testing.assert_array_equal(chi, clean)
    assert contrast(chi, ISOTROPIC, 0) == pytest.approx(SPHERES[0][2], rel=0.15)


def test_tv_knows_no_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in ppm ten times larger gives χ ten times larger; nothing but ppm sets a scale."""
    field, noise, mask, magnitude, _ = scene(ISOTROPIC)
    chi = tv(field, noise, mask, magnitude, ISOTROPIC)
    monkeypatch.setattr("reconstruction.inversion.tv.OUTSIDE_PPM", 10.0)
    tenfold = tv(10 * field, 10 * noise, mask, 1000 * magnitude, ISOTROPIC)
    np.testing.assert_allclose(tenfold / 10, chi, atol=1e-4)


@pytest.mark.parametrize(("method", "size"), [(tv, 1.5), (tv, 1.2), (tkd, 1.5)])
def test_map_turns_with_the_axes(method: Method, size: float) -> None:
    geometry = Geometry((40, 44, 36), (size, size, 2.0), OBLIQUE)
    field, noise, mask, magnitude, _ = scene(geometry)
    turned_geometry = Geometry((36, 40, 44), (2.0, size, size), (OBLIQUE[2], OBLIQUE[0], OBLIQUE[1]))
    straight = method(field, noise, mask, magnitude, geometry)
    turned = method(
        *(np.ascontiguousarray(v.transpose(2, 0, 1)) for v in (field, noise, mask, magnitude)), turned_geometry
    )
    np.testing.assert_allclose(turned, straight.transpose(2, 0, 1), atol=2e-4)


@pytest.mark.parametrize(("method", "geometry"), [(tv, ISOTROPIC), (tv, NESTED), (tkd, ISOTROPIC)])
def test_map_moves_with_the_head(method: Method, geometry: Geometry) -> None:
    """The window and its blocks follow the brain, so where it lies in the image does not matter at all."""
    field, noise, mask, magnitude, _ = scene(geometry)
    here = [np.pad(v, ((0, 7), (0, 5), (0, 3))) for v in (field, noise, mask, magnitude)]
    there = [np.pad(v, ((7, 0), (5, 0), (3, 0))) for v in (field, noise, mask, magnitude)]
    nx, ny, nz = geometry.shape
    larger = Geometry((nx + 7, ny + 5, nz + 3), geometry.voxel_size, geometry.b0_direction)
    np.testing.assert_allclose(
        method(*there, larger)[7:, 5:, 3:], method(*here, larger)[:-7, :-5, :-3], atol=1e-5
    )  # fmt: skip


def test_tv_is_deterministic_and_does_not_depend_on_threads() -> None:
    field, noise, mask, magnitude, _ = scene(NESTED)
    before = numba.get_num_threads()
    first = tv(field, noise, mask, magnitude, NESTED)
    np.testing.assert_array_equal(tv(field, noise, mask, magnitude, NESTED), first)
    try:
        numba.set_num_threads(1)
        np.testing.assert_allclose(tv(field, noise, mask, magnitude, NESTED), first, atol=1e-6)
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_penalty_falls_where_the_magnitude_is_steep(scale: float) -> None:
    """By steepness, whatever the unit: of a step nearly all is taken off, of noise little; the brain's end is none."""
    magnitude, inside = 1 + 0.01 * random_volume((40, 12, 12), seed=1), np.ones((40, 12, 12), bool)
    inside[:4], magnitude[:4] = False, 0
    magnitude[20:] += 1
    w = edge_weights(np.float32(scale) * magnitude, inside, (1.0, 1.0, 1.0), 0.1)
    assert w[19].max() < 0.11
    assert np.median(w[22:36]) > 0.6
    assert w[3].min() == 1
    np.testing.assert_allclose(edge_weights(np.ones_like(magnitude), inside, (1.0, 1.0, 1.0), 0.1), 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_costs_less_contrast_where_the_map_shows_an_edge(seed: int) -> None:
    """The magnitude shows none here: without what χ shows, at three times the noise, spheres are 5 to 12 % too weak."""
    field, noise, mask, magnitude, _ = scene(ISOTROPIC, seed)
    noisier = np.where(mask, field + 3 * NOISE * random_volume(ISOTROPIC.shape, seed + 5), 0).astype(np.float32)
    plain, reweighted = (
        tv(noisier, np.float32(10**0.5) * noise, mask, magnitude, ISOTROPIC, edge_weight=edge_weight)
        for edge_weight in (1.0, 0.1)
    )
    for i, (_, _, expected) in enumerate(SPHERES):
        lost, left = (1 - contrast(chi, ISOTROPIC, i) / expected for chi in (plain, reweighted))
        assert lost > 0.04
        assert abs(left) < 0.6 * lost


def test_an_edge_of_the_map_is_believed_where_it_is_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the brain's surface a steep χ may be what background removal left; there the penalty stays whole."""
    field, noise, mask, magnitude, _ = scene(ISOTROPIC)
    penalties, penalise = [], Grid.penalise

    def noted(grid: Grid, w: FloatArray) -> None:
        penalties.append(w)
        penalise(grid, w)

    monkeypatch.setattr(Grid, "penalise", noted)
    window = Window.around(mask, ISOTROPIC.voxel_size, MARGIN_MM)
    left_over = field_of_sphere(ISOTROPIC, 3.0, 1.0, (0.0, 0.0, 29.0))
    tv(np.where(mask, field + left_over, 0), noise, mask, magnitude, ISOTROPIC)
    first, last = (window.paste(w) for w in penalties)
    inner = ball(ISOTROPIC, 28.0 - RIM_MM - 1.0)
    assert (first[mask] == 1).all()
    assert (last[mask & ~ball(ISOTROPIC, 28.0 - RIM_MM + 1.0)] == 1).all()
    for centre, radius, _ in SPHERES:
        surface = ball(ISOTROPIC, radius + 1.0, centre) & ~ball(ISOTROPIC, radius - 1.0, centre) & inner
        assert np.median(last[surface]) < 0.5
    assert np.median(last[inner]) > 0.95


@pytest.mark.parametrize("setting", ["strength", "edge_weight"])
def test_what_weighs_nothing_breaks_nothing(setting: str) -> None:
    field, noise, mask, magnitude, _ = scene(NESTED)
    chi = tv(field, noise, mask, magnitude, NESTED, max_iterations=3, **{setting: 0})
    assert np.isfinite(chi).all()
    assert chi[mask].std() > 0


def test_a_sheet_too_thin_for_blocks_is_taken_as_it_is() -> None:
    geometry = Geometry((40, 40, 12), (1.0, 1.0, 0.6), AXIAL)
    mask = np.zeros(geometry.shape, bool)
    mask[8:32, 8:32, 5] = True
    field = np.where(mask, 0.01 * random_volume(geometry.shape, 1), 0).astype(np.float32)
    noise = np.full(geometry.shape, NOISE, np.float32)
    assert np.isfinite(tv(field, noise, mask, mask.astype(np.float32), geometry)).all()


def test_tv_reports_how_it_ended() -> None:
    field, noise, mask, magnitude, _ = scene(NESTED)
    with quality.ledger() as ledger:
        tv(field, noise, mask, magnitude, NESTED)
    assert ledger.figures["inversion.residual"] <= 1e-2
    assert ledger.figures["inversion.coarse_residual"] <= 1e-2
    assert 3 < ledger.figures["inversion.iterations"] < 80
    assert not ledger.warnings
    with quality.ledger() as ledger:
        tv(field, noise, mask, magnitude, NESTED, max_iterations=3)
    assert "inversion: stopped after 3 iterations" in ledger.warnings[0]
