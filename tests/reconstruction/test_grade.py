"""A whole head is good; a head that is spoilt is noticed, and by the figure that names the cause."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from reconstruction import Geometry, Maps, Recipe, dipole, fourier, reconstruct
from reconstruction.grade import BOUNDS, Bounds, edge, extent, figures, iron_contrast, judge, streaks
from tests.laws import random_volume
from tests.reconstruction.sources import OBLIQUE, ball
from tests.simulation.scenes import slices_of, small_head
from tests.simulation.spoilt import SPOILT

GEOMETRY = Geometry((32, 30, 28), (2.0, 2.0, 2.5), OBLIQUE)
GOOD = {name: (bounds.review + np.sign(bounds.review - bounds.failed) * 1e-6) for name, bounds in BOUNDS.items()}


@lru_cache(maxsize=1)
def recipe() -> Recipe:
    file = Path(__file__).parents[2] / "config" / "recipes" / "default.toml"
    return Recipe.from_mapping(tomllib.loads(file.read_text(encoding="utf-8")))


def maps_of(how: str) -> Maps:
    return reconstruct(SPOILT[how](small_head()), recipe())


def test_a_whole_head_is_good() -> None:
    maps = maps_of("whole")
    assert (maps.grade, maps.grounds) == ("good", ())
    assert set(BOUNDS) - set(maps.quality) == {"mask.slab_mm"}


@pytest.mark.parametrize(
    ("how", "figure", "grade"),
    [
        ("turned", "iron.contrast", "failed"),
        ("with_a_random_echo", "combine.misfit", "failed"),
        ("with_another_mask", "edge.ratio", "review"),
    ],
)
def test_a_spoilt_head_is_noticed(how: str, figure: str, grade: str) -> None:
    maps = maps_of(how)
    assert maps.grade == grade, maps.grounds
    assert any(ground.startswith(BOUNDS[figure].meaning) for ground in maps.grounds), maps.grounds


@pytest.mark.parametrize(("slices", "grade"), [(5, "failed"), (10, "review")])
def test_a_thin_slab_is_noticed(slices: int, grade: str) -> None:
    """Of 15 and 30 mm; its values come out too low."""
    head = slices_of(small_head(), slice(22 - slices // 2, 22 - slices // 2 + slices))
    maps = reconstruct(head.acquisition, recipe())
    assert maps.grade == grade, maps.grounds
    assert f"(thickness {3 * slices} mm, at least" in maps.grounds[0], maps.grounds


def test_a_small_mask_is_noticed() -> None:
    """A voxel, a ball and a ball that is large enough."""
    for radius, grade in ((1.0, "failed"), (30.0, "review"), (45.0, "good")):
        grid = Geometry((60, 60, 60), (2.0, 2.0, 2.0), OBLIQUE)
        found = extent(ball(grid, radius), grid)
        assert judge(GOOD | found)[0] == grade, found
    assert extent(np.zeros((4, 4, 4), bool), GEOMETRY) == {"mask.valid_ml": 0}


def test_a_slab_is_as_thick_as_its_thinnest_cut_axis() -> None:
    mask = np.zeros(GEOMETRY.shape, bool)
    mask[2:12, 3:7, 4:8] = True
    assert extent(mask, GEOMETRY) == pytest.approx({"mask.valid_ml": 160 * 0.01, "mask.slab_mm": 8.0})


@pytest.mark.parametrize(("start", "stop", "slab"), [(0, 36, None), (12, 36, 60.0), (0, 20, 40.0), (15, 21, 15.0)])
def test_what_ends_in_a_cut_is_a_slab(start: int, stop: int, slab: float | None) -> None:
    """A ball of 90 mm, cut across z on either side or on both, wherever the volume ends."""
    grid = Geometry((50, 50, 40), (2.0, 2.0, 2.5), OBLIQUE)
    mask = ball(grid, 45.0)
    mask[..., :start] = mask[..., stop:] = False
    assert extent(mask, grid).get("mask.slab_mm") == (None if slab is None else pytest.approx(slab, abs=7))


@pytest.mark.slow
@pytest.mark.parametrize("how", sorted(set(SPOILT) - {"whole"}))
def test_no_spoilt_head_is_called_good(how: str) -> None:
    maps = maps_of(how)
    assert maps.grade in ("review", "failed")
    assert maps.grounds


def test_a_map_that_shows_nothing_has_failed() -> None:
    """As of a blank phase, or of a recipe whose threshold leaves no field."""
    mask, nothing = ball(GEOMETRY, 24.0), np.zeros(GEOMETRY.shape, np.float32)
    magnitude = 100 + random_volume(GEOMETRY.shape, 1)
    r2star = 20 + random_volume(GEOMETRY.shape, 4)
    grade, grounds = judge(GOOD | figures(nothing, r2star, nothing, magnitude, mask, GEOMETRY))
    assert grade == "failed"
    assert grounds[0].startswith("Susceptibility hardly varies"), grounds


def test_the_edge_is_not_judged_where_no_background_was_taken_off() -> None:
    """The total field of a one-step inversion is full of background, and is to be."""
    chi, mask = 0.03 * random_volume(GEOMETRY.shape, 3), ball(GEOMETRY, 24.0)
    x = np.arange(GEOMETRY.shape[0], dtype=np.float32)[:, None, None] + chi
    magnitude = 100 + random_volume(GEOMETRY.shape, 1)
    removed, kept = (figures(chi, None, field, magnitude, mask, GEOMETRY) for field in (x, None))
    assert judge(GOOD | removed)[0] == "failed"
    assert set(removed) - set(kept) == {"edge.harmonic", "edge.ratio"}


@pytest.mark.slow
def test_a_one_step_inversion_of_a_whole_head_has_not_failed() -> None:
    content = {name: table for name, table in recipe().as_mapping().items() if name not in ("regions", "weighting")}
    one_step = content | {"background": {"method": "none"}, "inversion": {"method": "tgv"}}
    maps = reconstruct(small_head().acquisition, Recipe.from_mapping(one_step))
    assert (maps.grade, maps.grounds) == ("good", ())
    assert not any(warning.startswith("inversion") for warning in maps.warnings), maps.warnings


def test_the_worst_figure_decides() -> None:
    assert judge(GOOD) == ("good", ())
    assert judge({}) == ("good", ())
    one = GOOD | {"streaks": 1.5}
    grade, grounds = judge(one)
    assert (grade, len(grounds)) == ("review", 1)
    assert grounds[0].endswith("(power of streaks over the rest 1.5, at most 1)")
    grade, grounds = judge(one | {"iron.contrast": -1.0})
    assert (grade, len(grounds)) == ("failed", 2)
    assert grounds[0].endswith("(contrast of iron -1 SD, at least -0.3 SD)")


def test_grounds_are_sentences_for_people() -> None:
    """The meaning first, and no name of a figure as programs call it."""
    spoilt = {name: bounds.failed + 0.01 * np.sign(bounds.failed - bounds.review) for name, bounds in BOUNDS.items()}
    grade, grounds = judge(spoilt)
    assert (grade, len(grounds)) == ("failed", len(BOUNDS))
    for (name, bounds), ground in zip(BOUNDS.items(), grounds, strict=True):
        assert ground.startswith(f"{bounds.meaning} ({bounds.figure} "), ground
        assert bounds.meaning[0].isupper()
        assert "." not in name or name not in ground, ground
    figures = {"magnitude.snr": 4.71, "mask.covered": 0.32, "mask.brain_ml": 12345.6, "streaks": float("nan")}
    assert judge(figures)[1] == (
        "The mask holds more than a brain: look at its outline (brain 12346 ml, at most 3000 ml)",
        "Much of the brain has no susceptibility: look at the mask, and for motion and metal "
        "(mapped 32 %, at least 40 %)",
        "The signal is lost in noise: look at coil and resolution (SNR 4.71, at least 10)",
        "The map is streaky: look at the direction of B0 and the mask "
        "(power of streaks over the rest unknown, at most 2)",
    )


@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_not_a_number_has_failed(name: str) -> None:
    assert judge(GOOD | {name: float("nan")})[0] == "failed"


def test_bounds_read_in_both_directions() -> None:
    up, down = Bounds(1, 2, "", ""), Bounds(2, 1, "", "")
    assert [up.grade(v) for v in (0.5, 1.5, 2.5)] == ["good", "review", "failed"]
    assert [down.grade(v) for v in (2.5, 1.5, 0.5)] == ["good", "review", "failed"]


def test_figures_do_not_follow_the_scale_of_the_magnitude() -> None:
    mask = ball(GEOMETRY, 24.0)
    magnitude = (100 * (1 + 0.02 * random_volume(GEOMETRY.shape, 1))).astype(np.float32)
    chi, r2star = 0.03 * random_volume(GEOMETRY.shape, 3), 20 + random_volume(GEOMETRY.shape, 4)

    def of(scale: float) -> dict[str, float]:
        return figures(chi, r2star, chi, magnitude * np.float32(scale), mask, GEOMETRY)

    assert of(1.0) == pytest.approx(of(1e4), rel=1e-3)


def test_a_harmonic_rest_is_seen_at_the_edge() -> None:
    mask = ball(GEOMETRY, 24.0)
    x = (np.arange(GEOMETRY.shape[0], dtype=np.float32) - 16)[:, None, None] * np.ones(GEOMETRY.shape, np.float32)
    local = random_volume(GEOMETRY.shape, 5)
    assert edge(local, mask, GEOMETRY)["edge.harmonic"] < 0.05
    assert edge(local + x, mask, GEOMETRY)["edge.harmonic"] > 0.9
    assert edge(np.zeros_like(local), mask, GEOMETRY) == {}


def test_iron_contrast_turns_with_the_sign() -> None:
    mask, nucleus = ball(GEOMETRY, 24.0), ball(GEOMETRY, 8.0)
    chi = np.where(nucleus, 0.1, 0).astype(np.float32) + 0.01 * random_volume(GEOMETRY.shape, 6)
    r2star = np.where(nucleus, 40, 20).astype(np.float32) + random_volume(GEOMETRY.shape, 8)
    contrast = iron_contrast(chi, r2star, mask, GEOMETRY)
    assert contrast is not None
    assert contrast > 2
    assert iron_contrast(-chi, r2star, mask, GEOMETRY) == pytest.approx(-contrast, rel=1e-4)
    assert iron_contrast(chi, r2star, ball(GEOMETRY, 3.0), GEOMETRY) is None
    assert iron_contrast(chi, np.zeros_like(chi), mask, GEOMETRY) is None
    assert iron_contrast(np.zeros_like(chi), r2star, mask, GEOMETRY) is None


def test_iron_is_seen_where_white_matter_has_as_much_r2star() -> None:
    """As in a child, a few nuclei among much white matter; a small calcification takes nothing from it."""
    mask, random = ball(GEOMETRY, 24.0), np.random.default_rng(9)
    kind = np.where(random.random(GEOMETRY.shape) < 0.4, 1, 0)
    kind[ball(GEOMETRY, 7.0)] = 2
    chi = np.array([0, -0.03, 0.06], np.float32)[kind] + 0.01 * random_volume(GEOMETRY.shape, 10)
    r2star = np.array([16, 20, 25], np.float32)[kind] + 2 * random_volume(GEOMETRY.shape, 11)
    contrast = iron_contrast(chi, r2star, mask, GEOMETRY)
    assert contrast is not None
    assert BOUNDS["iron.contrast"].grade(contrast) == "good"
    assert BOUNDS["iron.contrast"].grade(-contrast) == "failed"
    small = mask & (random.random(GEOMETRY.shape) < 0.003)
    chi[small], r2star[small] = -0.4, 80
    assert iron_contrast(chi, r2star, mask, GEOMETRY) == pytest.approx(contrast, rel=0.5)


def test_what_a_mask_too_large_lets_in_is_wild_at_the_edge() -> None:
    """A few voxels of bone and air in the shell are enough; three times the spread within is no more than an edge."""
    mask = ball(GEOMETRY, 24.0)
    shell, field = mask & ~ball(GEOMETRY, 20.0), random_volume(GEOMETRY.shape, 12)
    few = shell & (np.random.default_rng(13).random(GEOMETRY.shape) < 0.05)
    for wild, grade in ((np.where(shell, 3, 1), "good"), (np.where(few, 30, 1), "review")):
        ratio = edge(field * wild.astype(np.float32), mask, GEOMETRY)["edge.ratio"]
        assert BOUNDS["edge.ratio"].grade(ratio) == grade, ratio


def test_streaks_are_power_in_the_cone() -> None:
    mask = np.ones(GEOMETRY.shape, bool)
    noise = random_volume(GEOMETRY.shape, 7)
    assert streaks(noise, mask, GEOMETRY) == pytest.approx(1, abs=0.15)
    D = dipole.sampled(GEOMETRY.shape, GEOMETRY.voxel_size, GEOMETRY.b0_direction)
    streaky = fourier.apply((np.abs(D) < 0.1).astype(np.float32), noise)
    assert streaks(noise + 3 * streaky, mask, GEOMETRY) > 2
