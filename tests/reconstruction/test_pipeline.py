"""The whole line on a small simulated head, and the recipe that it runs by."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from reconstruction import (
    Acquisition,
    Geometry,
    InvalidRecipe,
    Maps,
    NotReconstructible,
    Recipe,
    reconstruct,
    rim,
    stage,
)
from reconstruction.acquisition import BoolArray
from reconstruction.grade import BOUNDS
from reconstruction.noise import roughness
from reconstruction.offset.mcpc3ds import mcpc3ds
from reconstruction.steepness import CENTROID_SHIFT
from tests.laws import random_volume
from tests.simulation.scenes import small_head, thin_head

DEFAULT = Path(__file__).parents[2] / "config" / "recipes" / "default.toml"


def default_recipe() -> dict[str, dict[str, object]]:
    content: dict[str, dict[str, object]] = tomllib.loads(DEFAULT.read_text())
    return content


@lru_cache(maxsize=1)
def small_maps() -> tuple[Maps, tuple[str, ...]]:
    begun: list[str] = []
    maps = reconstruct(small_head().acquisition, Recipe.from_mapping(default_recipe()), begun.append)
    return maps, tuple(begun)


def test_default_recipe_spells_out_the_defaults_of_the_code() -> None:
    content = default_recipe()
    assert content.pop("name") == "default"
    assert set(stage.STAGES) - set(stage.OPTIONAL) <= set(content)
    for name, table in content.items():
        method = str(table.pop("method"))
        assert table == stage.defaults(name, method), name


@pytest.mark.parametrize("file", sorted(DEFAULT.parent.glob("*.toml")), ids=lambda file: file.stem)
def test_every_recipe_bears_a_bipolar_read_out(file: Path) -> None:
    assert tomllib.loads(file.read_text())["readout"] == {"method": "bipolar"}


def test_stages_begin_in_order() -> None:
    maps, begun = small_maps()
    without_atlas = [name for name in stage.STAGES if name != "regions"]
    asked = tuple(name for name in without_atlas if name in default_recipe())
    assert begun == asked
    assert tuple(maps.timings) == asked
    assert all(seconds >= 0 for seconds in maps.timings.values())


def test_map_is_near_the_truth() -> None:
    head, (maps, _) = small_head(), small_maps()
    inside = maps.mask & head.brain_mask
    assert inside.sum() > 0.9 * head.brain_mask.sum()
    nuclei = [label & inside for label in head.labels.values() if (label & inside).sum() > 20]
    truth, found = (np.array([chi[n].mean() for n in nuclei]) for chi in (head.chi, maps.chi))
    slope = np.polyfit(truth, found, 1)[0]
    assert 0.85 < slope < 1.15
    assert np.corrcoef(head.chi[inside], maps.chi[inside])[0, 1] > 0.7


def test_volumes_belong_together() -> None:
    acquisition, (maps, _) = small_head().acquisition, small_maps()
    for volume in (maps.chi, maps.r2star, maps.field, maps.local_field, maps.magnitude):
        assert volume is not None
        assert volume.dtype == np.float32
        assert volume.shape == acquisition.geometry.shape
        assert np.isfinite(volume).all()
    assert not (maps.mask & ~maps.brain_mask).any()
    assert not maps.chi[~maps.mask].any()
    assert maps.reference.mask.any()
    assert maps.chi[maps.reference.mask].mean() == pytest.approx(0, abs=1e-5)
    for figure in ("mask.covered", "mask.excluded", "combine.misfit", "inversion.iterations"):
        assert np.isfinite(maps.quality[figure])


def test_same_acquisition_gives_the_same_map() -> None:
    again = reconstruct(small_head().acquisition, Recipe.from_mapping(default_recipe()))
    np.testing.assert_array_equal(again.chi, small_maps()[0].chi)
    assert again.quality == small_maps()[0].quality


def test_scale_of_the_magnitude_changes_nothing() -> None:
    """Not even where its square is no float32."""
    acquisition = small_head().acquisition
    maps, _ = small_maps()
    for scale in (2.0**70, 2.0**-70):
        scaled = dataclasses.replace(
            acquisition, magnitude=acquisition.magnitude * np.float32(scale), mask=maps.brain_mask
        )
        again = reconstruct(scaled, Recipe.from_mapping(default_recipe()))
        np.testing.assert_array_equal(again.chi[maps.mask], maps.chi[maps.mask])  # a mask that is given has no rim


def test_noise_is_that_of_the_fit() -> None:
    """Not what the steepness of the background adds, which depends on how that was removed."""
    recipe = default_recipe()
    maps, _ = small_maps()
    recipe["background"] = {"method": "vsharp"}
    other = reconstruct(
        dataclasses.replace(small_head().acquisition, mask=maps.brain_mask), Recipe.from_mapping(recipe)
    )
    assert other.quality["combine.noise_ppb"] == maps.quality["combine.noise_ppb"]


def eroding_recipe() -> Recipe:
    return Recipe.from_mapping(
        default_recipe() | {"background": {"method": "vsharp"}, "reference": {"method": "whole_brain"}}
    )


def with_lost_voxels(acquisition: Acquisition, lost: BoolArray) -> Acquisition:
    """With no phase in these voxels."""
    phase = acquisition.phase.copy()
    phase[:, lost] = np.random.default_rng(2).uniform(-np.pi, np.pi, (len(phase), lost.sum()))
    return dataclasses.replace(acquisition, phase=phase)


def test_an_unknown_voxel_does_not_spoil_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a method of background removal has left nothing, what it took is no steep background."""
    head = small_head()
    run, noise = stage.run, []

    def spy(name: str, method: str, settings: Mapping[str, object], data: Mapping[str, Any]) -> Any:
        noise.extend([data["noise"]] if name == "inversion" else [])
        return run(name, method, settings, data)

    monkeypatch.setattr(stage, "run", spy)
    whole = dataclasses.replace(head.acquisition, mask=head.brain_mask)
    lost = np.zeros_like(head.brain_mask)
    middle = tuple(n // 2 for n in lost.shape)
    lost[middle[0] - 6 : middle[0] + 7 : 6, middle[1] - 6 : middle[1] + 7 : 6, middle[2]] = True
    for acquisition in (whole, with_lost_voxels(whole, lost)):
        reconstruct(acquisition, eroding_recipe())
    before, after = noise
    unknown = lost & np.isinf(after)
    beside = ndimage.binary_dilation(unknown) & ~lost & np.isfinite(before) & np.isfinite(after)
    assert unknown.any()
    assert (after[beside] < 3 * before[beside]).all()


@pytest.mark.parametrize("ringing", [0.0, 0.1])
def test_noise_grows_with_misfit_steepness_and_roughness(ringing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a noise of 0.01 ppm, a voxel whose fit misses by twice that, a background that steps by 2 ppm, and a
    local field that rings from voxel to voxel."""
    shape, larmor = (6, 5, 4), 100e6
    acquisition = Acquisition(
        np.ones((2, *shape), np.float32), np.zeros((2, *shape), np.float32), (4e-3, 9e-3), larmor,
        Geometry(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)), np.ones(shape, bool),
    )  # fmt: skip
    background = np.zeros(shape, np.float32)
    background[3:] = 2.0
    residual = np.full(shape, 0.9, np.float32)
    residual[0, 2, 2] = 2.0
    missed = np.maximum(residual, 1) * np.float32(0.01)
    local_field = np.float32(ringing) * (1 - 2 * (np.indices(shape).sum(0) % 2)).astype(np.float32)
    seen: dict[str, Any] = {}

    def played(name: str, method: str, settings: Mapping[str, object], data: Mapping[str, Any]) -> Any:
        seen[name] = data
        if name == "inversion":
            raise InvalidRecipe("the end of the play")
        made = {
            "combine": (100 * (background + local_field), np.full(shape, 1.0, np.float32), residual),
            "background": (local_field, acquisition.mask),
        }
        return made.get(name, data.get("phase"))

    monkeypatch.setattr(stage, "run", played)
    with pytest.raises(InvalidRecipe, match="end of the play"):
        reconstruct(acquisition, Recipe.from_mapping(default_recipe()))
    np.testing.assert_allclose(seen["background"]["noise"], missed)
    steep = np.zeros(shape, np.float32)
    steep[2:4] = 2 * CENTROID_SHIFT
    noise = np.hypot(missed, steep)
    rough = roughness(local_field, noise, np.ones(shape, bool))
    assert rough == 1 if ringing == 0 else rough > 5
    np.testing.assert_allclose(seen["inversion"]["noise"], rough * noise, rtol=1e-3)


def test_what_a_method_takes_of_the_rim_is_no_fault_of_the_scan() -> None:
    head = small_head()
    acquisition = dataclasses.replace(head.acquisition, mask=head.brain_mask)
    maps = reconstruct(acquisition, eroding_recipe())
    assert maps.quality["mask.covered"] < 0.9
    assert maps.quality["mask.excluded"] < 0.1
    of_the_mask = [bounds.meaning for name, bounds in BOUNDS.items() if name.startswith("mask.")]
    assert not any(ground.startswith(tuple(of_the_mask)) for ground in maps.grounds)


@pytest.mark.parametrize("method", stage.methods("background"))
def test_background_removal_does_not_let_rounding_grow(method: str) -> None:
    """A field that is stored a thousandth of a ppb otherwise is another by no more than some thousandths after it.

    Projection onto dipole fields on the fine grid alone makes it another by tenths in 30 steps.
    """
    maps, _ = small_maps()
    geometry, mask = maps.geometry, maps.brain_mask
    noise = np.full(geometry.shape, 1e-3, np.float32)
    rounded = (maps.field + 1e-6 * random_volume(geometry.shape, 3)).astype(np.float32)
    data = {"noise": noise, "mask": mask, "magnitude": None, "geometry": geometry}
    settings = stage.defaults("background", method)
    (one, valid), (other, _) = (
        stage.run("background", method, settings, data | {"field": field}) for field in (maps.field, rounded)
    )
    assert (one - other)[valid].std() < 5e-6


def test_mask_of_the_site_is_used() -> None:
    head = small_head()
    mask = head.brain_mask.copy()
    mask[: mask.shape[0] // 2] = False
    maps = reconstruct(dataclasses.replace(head.acquisition, mask=mask), Recipe.from_mapping(default_recipe()))
    np.testing.assert_array_equal(maps.brain_mask, mask)
    assert "mask" not in maps.timings


def test_empty_mask_is_refused() -> None:
    acquisition = small_head().acquisition
    empty = dataclasses.replace(acquisition, mask=np.zeros(acquisition.geometry.shape, bool))
    with pytest.raises(NotReconstructible, match="mask is empty"):
        reconstruct(empty, Recipe.from_mapping(default_recipe()))


@pytest.mark.parametrize("place", ["anywhere", "in the brain"])
def test_an_echo_without_signal_is_refused(place: str) -> None:
    head = small_head()
    magnitude = head.acquisition.magnitude.copy()
    magnitude[1][np.ones_like(head.brain_mask) if place == "anywhere" else head.brain_mask] = 0
    silent = dataclasses.replace(head.acquisition, magnitude=magnitude, mask=head.brain_mask)
    recipe = Recipe.from_mapping(default_recipe() | {"offset": {"method": "none"}})
    with pytest.raises(NotReconstructible, match=f"number 2 has no signal {place}: .* leave that echo out"):
        reconstruct(silent, recipe)


def test_echoes_that_do_not_decay_are_told() -> None:
    """The same image in every echo: no contrast of R2* to judge by, and a word on it in its place."""
    head = thin_head()
    same = np.repeat(head.acquisition.magnitude[:1], len(head.acquisition.echo_times), axis=0)
    quick = {"background": {"method": "none"}, "inversion": {"method": "tkd"}, "regions": None, "weighting": None}
    content = {name: table for name, table in (default_recipe() | quick).items() if table}
    maps = reconstruct(
        dataclasses.replace(head.acquisition, magnitude=same, mask=head.brain_mask), Recipe.from_mapping(content)
    )
    assert "iron.contrast" not in maps.quality
    assert any(warning.startswith("relaxation: R2* is 0") for warning in maps.warnings), maps.warnings


def test_single_echo() -> None:
    """Its phase offset cannot be known; a scan without one gives a map, but no R2* and no CSF."""
    head = small_head()
    full = head.acquisition
    phase = mcpc3ds(full.phase, full.magnitude, full.echo_times, full.geometry)[1:2]
    single = Acquisition(
        full.magnitude[1:2], phase, full.echo_times[1:2], full.larmor_frequency, full.geometry, head.brain_mask
    )
    before = phase.copy()
    maps = reconstruct(single, Recipe.from_mapping(default_recipe()))
    np.testing.assert_array_equal(phase, before)  # though it reaches unwrapping, which uses up what it is given
    assert maps.r2star is None
    assert maps.reference.name == "whole_brain"
    assert (maps.grade, maps.grounds[0][:13]) == ("review", "A single echo")
    assert any("single echo" in warning for warning in maps.warnings)
    assert any(warning.startswith("offset: ") for warning in maps.warnings)
    assert np.corrcoef(head.chi[maps.mask], maps.chi[maps.mask])[0, 1] > 0.4


@pytest.mark.parametrize(
    ("stage_name", "change", "message"),
    [
        ("background", {"method": "magic"}, "'magic'"),
        ("inversion", {"strenght": 0.1}, "'?strenght'? is not a setting"),
        ("inversion", {"max_iterations": "many"}, "'many'"),
    ],
)
def test_wrong_recipe_is_refused(stage_name: str, change: dict[str, object], message: str) -> None:
    content = default_recipe()
    content[stage_name] |= change
    with pytest.raises(InvalidRecipe, match=message):
        Recipe.from_mapping(content)


def test_a_mask_of_the_site_keeps_every_voxel(monkeypatch: pytest.MonkeyPatch) -> None:
    head = small_head()
    monkeypatch.setattr(rim, "BONE_PPM", 1.0)  # all is bone, then
    recipe = Recipe.from_mapping(default_recipe())
    known = reconstruct(dataclasses.replace(head.acquisition, mask=head.brain_mask), recipe)
    found = reconstruct(head.acquisition, recipe)
    assert known.quality["mask.covered"] > 0.95 > 0.9 > found.quality["mask.covered"]
