"""Weighted magnitude: veins dark, nothing else touched, whatever the scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reconstruction import stage
from reconstruction.acquisition import FloatArray
from reconstruction.intensity import even_intensity
from reconstruction.projection import minimum_projection
from reconstruction.weighting._high_pass import high_pass
from reconstruction.weighting.clear_swi import BEND, BRIGHT, sigmoid_mask, softened
from reconstruction.weighting.swi import phase_mask, swi
from reconstruction.weighting.tswi import susceptibility_mask, tswi
from tests.laws import Array, assert_linear
from tests.reconstruction.echoes import EVEN, ball, geometry, grid

SHAPE = (40, 40, 24)
GEOMETRY = geometry(SHAPE)
BRAIN = ball(SHAPE)
EVERYWHERE = np.ones(SHAPE, bool)
VEIN = np.zeros(SHAPE, bool)
VEIN[20, 20, 6:18] = True
VEIN_HZ, VEIN_PPM, CALCIFIED_HZ = 12.0, 0.3, -12.0


def scene() -> dict[str, Any]:
    """A vein along the main field, whose field inside is positive, in a brain of even signal and a field of ±1 Hz."""
    magnitude = np.stack([np.where(BRAIN, np.exp(-t * 20), 0) for t in EVEN]).astype(np.float32)
    field = np.where(VEIN, VEIN_HZ, np.where(BRAIN, np.sin(grid(SHAPE)[0] * 40), 0)).astype(np.float32)
    chi = np.where(VEIN, VEIN_PPM, 0).astype(np.float32)
    return {
        "magnitude": magnitude,
        "local_field": field,
        "chi": chi,
        "mask": BRAIN,
        "geometry": GEOMETRY,
        "echo_times": EVEN,
    }


def weighted(method: str, **changes: Any) -> FloatArray:
    result: FloatArray = stage.run("weighting", method, {}, scene() | changes)
    return result


METHODS = stage.methods("weighting")


def test_the_fields_methods_are_there() -> None:
    assert METHODS == ("clear_swi", "swi", "tswi")


@pytest.mark.parametrize("method", METHODS)
def test_a_vein_is_dark_and_its_surroundings_are_not(method: str) -> None:
    found = weighted(method)
    around = np.roll(VEIN, 3, axis=0)
    assert found.dtype == np.float32
    assert found.shape == SHAPE
    assert found[VEIN].mean() < 0.7 * found[around].mean()


@pytest.mark.parametrize("method", METHODS)
def test_without_a_source_nothing_stands_out(method: str) -> None:
    """The unweighted image times one number, inside the mask and out."""
    nothing = np.zeros(SHAPE, np.float32)
    found = weighted(method, local_field=nothing, chi=nothing)
    outside = weighted(method, local_field=nothing, chi=nothing, mask=ball(SHAPE, 0.5))
    np.testing.assert_allclose(found[20, 20], found[20, 23], rtol=0.1)
    if method != "clear_swi":
        np.testing.assert_array_equal(found, outside)
        np.testing.assert_allclose(found[BRAIN], scene()["magnitude"].mean(axis=0)[BRAIN], rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_of_the_magnitude_is_carried_through(method: str) -> None:
    """`clear_swi` divides by the local mean, so its scale is always the same."""
    magnitude = scene()["magnitude"]
    scale = 1 if method == "clear_swi" else 64
    np.testing.assert_allclose(
        weighted(method, magnitude=magnitude * np.float32(64)), scale * weighted(method), rtol=2e-4
    )


def test_known_answer_of_the_phase_mask() -> None:
    phase = np.array([-2.0, 0.0, np.pi / 2, np.pi, 5.0], np.float32)
    np.testing.assert_allclose(phase_mask(phase), [1, 1, 0.5, 0, 0], atol=1e-6)


def test_known_answer_of_classic_swi() -> None:
    """12 Hz turn the phase by a quarter of π in 10.4 ms, so the mask is 0.75 there."""
    time = 1 / (8 * VEIN_HZ)
    field = np.where(VEIN, VEIN_HZ, -3).astype(np.float32)
    found = swi(np.full((1, *SHAPE), 8, np.float32), field, (time,), EVERYWHERE, GEOMETRY, power=4, high_pass_mm=0)
    np.testing.assert_allclose(found[VEIN], 8 * 0.75**4, rtol=1e-5)
    np.testing.assert_allclose(found[~VEIN], 8)


def test_each_echo_is_weighted_by_its_own_phase() -> None:
    """An eighth of a turn at the first echo and a quarter at the second: masks of 0.75 and of 0.5."""
    time = 1 / (8 * VEIN_HZ)
    magnitude = np.stack([np.full(SHAPE, 8, np.float32), np.full(SHAPE, 6, np.float32)])
    field = np.where(VEIN, VEIN_HZ, -3).astype(np.float32)
    found = swi(magnitude, field, (time, 2 * time), EVERYWHERE, GEOMETRY, power=4, high_pass_mm=0)
    np.testing.assert_allclose(found[VEIN], (8 * 0.75**4 + 6 * 0.5**4) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[~VEIN], 7)


def test_diamagnetic_sources_are_darkened_when_asked_for() -> None:
    magnitude = np.ones((2, *SHAPE), np.float32)
    field = np.where(VEIN, CALCIFIED_HZ, 0).astype(np.float32)

    def found(given: FloatArray, diamagnetic: bool) -> FloatArray:
        return swi(magnitude, given, EVEN[:2], EVERYWHERE, GEOMETRY, diamagnetic=diamagnetic)

    assert (found(field, False)[VEIN] == 1).all()
    assert (found(field, True)[VEIN] < 0.8).all()
    np.testing.assert_array_equal(found(-field, False), found(field, True))


def test_a_field_beyond_half_a_turn_stays_dark() -> None:
    """Where a wrapped phase would turn bright again."""
    magnitude, steep = np.ones((1, *SHAPE), np.float32), np.full(SHAPE, 60, np.float32)
    assert not swi(magnitude, steep, (20e-3,), EVERYWHERE, GEOMETRY, high_pass_mm=0).any()


@pytest.mark.parametrize("method", ["swi", "clear_swi"])
def test_what_is_wide_in_the_field_is_not_darkened(method: str) -> None:
    """A field of 5 Hz over the whole brain is neither vein nor bleed."""
    np.testing.assert_allclose(weighted(method, local_field=scene()["local_field"] + 5), weighted(method), rtol=1e-3)


def test_high_pass_is_linear_and_knows_no_outside() -> None:
    def passed(volume: Array) -> Array:
        return high_pass(volume.astype(np.float32), BRAIN, GEOMETRY, 4.0)

    assert_linear(passed, SHAPE)
    assert not passed(np.ones(SHAPE, np.float32))[~BRAIN].any()
    beyond = np.where(BRAIN, 1, 1000).astype(np.float32)
    np.testing.assert_allclose(passed(beyond), 0, atol=1e-5)


def test_known_answer_of_the_susceptibility_mask() -> None:
    chi = np.array([-1.0, 0.1, 0.3, 0.5, 2.0], np.float32)
    np.testing.assert_allclose(susceptibility_mask(chi, 0.1, 0.5), [1, 1, 0.5, 0, 0], atol=1e-6)
    vein = np.where(VEIN, VEIN_PPM, 0).astype(np.float32)
    found = tswi(np.full((3, *SHAPE), 2, np.float32), vein, BRAIN, upper_ppm=0.6, power=2)
    np.testing.assert_allclose(found[VEIN], 2 * 0.25, rtol=1e-5)


def test_tswi_is_blind_to_the_direction_of_a_vein() -> None:
    """Its field changes sign with it; χ does not."""
    field = scene()["local_field"]
    np.testing.assert_array_equal(weighted("tswi"), weighted("tswi", local_field=-field))
    assert (weighted("swi", local_field=-field)[VEIN] > weighted("swi")[VEIN]).all()


def test_clear_swi_does_not_depend_on_the_fields_unit() -> None:
    """Echo times and field strength need no setting."""
    field = scene()["local_field"]
    np.testing.assert_allclose(weighted("clear_swi", local_field=7 * field), weighted("clear_swi"), rtol=1e-5)


def test_sigmoid_and_softplus_rise_as_they_should() -> None:
    steps = np.linspace(-3, 3, 50, dtype=np.float32)
    assert (np.diff(sigmoid_mask(steps)) < 0).all()
    image = np.linspace(0, 4, 50, dtype=np.float32)
    soft = softened(image, 0.5)
    assert soft[0] == pytest.approx(0, abs=1e-6)
    assert (np.diff(soft) > 0).all()
    assert np.diff(soft)[-1] == pytest.approx(np.diff(image)[-1], rel=1e-3)
    assert np.diff(soft)[0] < 0.2 * np.diff(image)[0]


def test_clear_swi_softens_what_is_dark_when_asked_to() -> None:
    """Without a field the map is the evened magnitude, softened or not, times the mask of no field."""
    image = even_intensity(scene()["magnitude"], GEOMETRY)
    plain, soft = (
        stage.run("weighting", "clear_swi", {"softplus": on}, scene() | {"local_field": np.zeros(SHAPE, np.float32)})
        for on in (False, True)
    )
    of_no_field = sigmoid_mask(np.float32(0))
    bend = BEND * np.quantile(image[BRAIN], BRIGHT)
    np.testing.assert_allclose(plain, image * of_no_field, rtol=1e-5)
    np.testing.assert_allclose(soft, softened(image, bend) * of_no_field, rtol=1e-2, atol=1e-3)
    assert np.abs(soft - plain)[BRAIN].max() > 0.05


def test_clear_swi_takes_the_shading_out() -> None:
    """Of a head of 200 mm whose one side is three times as bright as the other."""
    shading = np.linspace(0.5, 1.5, SHAPE[0], dtype=np.float32)[:, None, None]
    magnitude, nothing, core = scene()["magnitude"] * shading, np.zeros(SHAPE, np.float32), ball(SHAPE, 0.6)
    head = geometry(SHAPE, (5.0, 5.0, 8.0))
    found = stage.run(
        "weighting",
        "clear_swi",
        {"softplus": False},
        scene() | {"magnitude": magnitude, "local_field": nothing, "geometry": head},
    )
    assert _spread(found[core]) < 0.4 * _spread(magnitude[0][core])


def _spread(values: FloatArray) -> float:
    return float(values.std() / values.mean())


def test_projection_takes_the_darkest_of_ten_millimetres() -> None:
    volume = np.full(SHAPE, 5, np.float32)
    volume[10, 10, 12] = 1
    found = minimum_projection(volume, np.ones(SHAPE, bool), GEOMETRY)  # 2 mm: five slices
    np.testing.assert_array_equal(np.flatnonzero(found[10, 10] == 1), [10, 11, 12, 13, 14])
    assert (found[11] == 5).all()


def test_projection_does_not_take_skull_and_air_for_veins() -> None:
    volume = np.where(BRAIN, 5, 0).astype(np.float32)
    found = minimum_projection(volume, BRAIN, GEOMETRY)
    assert (found[BRAIN] == 5).all()
    assert (found <= 5).all()


@pytest.mark.parametrize(("spacing", "slices"), [(1.0, 9), (1.5, 7), (3.0, 3), (9.0, 1), (20.0, 1)])
def test_slab_is_as_thick_as_whole_slices_allow(spacing: float, slices: int) -> None:
    volume = np.ones(SHAPE, np.float32)
    volume[..., 12] = 0
    found = minimum_projection(volume, np.ones(SHAPE, bool), geometry(SHAPE, (1, 1, spacing)))
    assert (found[0, 0] == 0).sum() == slices
