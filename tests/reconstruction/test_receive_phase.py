"""The receivers' phase that is left in the field of a single echo."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from reconstruction import Recipe, quality, reconstruct
from reconstruction.acquisition import FloatArray, Geometry
from reconstruction.background.pdf import pdf
from reconstruction.receive_phase import Removal, turn_of_ppm, without_curvature
from tests.reconstruction.test_pipeline import default_recipe
from tests.simulation.scenes import small_head

TURN = turn_of_ppm(123.2e6, 0.02)


def bowl(geometry: Geometry, curvature: float, place: tuple[float, float, float]) -> FloatArray:
    """ppm: the field that a phase of this ∇²φ (rad/m²) is taken for, with its bottom anywhere."""
    axes = (np.arange(n) * size - at for n, size, at in zip(geometry.shape, geometry.voxel_size, place, strict=True))
    squares = sum(along**2 for along in np.meshgrid(*axes, indexing="ij", sparse=True))
    return np.float32(curvature / TURN * 1e-6 / 6) * squares.astype(np.float32)


def test_an_even_curvature_is_found_and_taken_off() -> None:
    """Wherever its bottom is: what differs with the place is a slope, which is background."""
    head = small_head()
    mask, geometry = head.brain_mask, head.acquisition.geometry
    whole = {"noise": np.full(mask.shape, 0.002, np.float32), "mask": mask, "geometry": geometry}
    removed: Removal = partial(pdf, coarse_iterations=10, iterations=5, **whole)
    field = np.where(mask, head.field, np.float32(0))

    def found(curvature: float, place: tuple[float, float, float] = (0, 0, 0)) -> tuple[FloatArray, float]:
        with quality.ledger() as ledger:
            curved = np.where(mask, field + bowl(geometry, curvature, place), np.float32(0))
            local_field, held = without_curvature(curved, removed=removed, turn=TURN, **whole)
        return np.where(held, local_field, np.float32(0)), ledger.figures["offset.curvature"]

    plain, of_brain = found(0)
    assert abs(of_brain) < 60, "the brain itself has next to none"
    for curvature, place in ((480.0, (60, 90, 20)), (-480.0, (110, 60, 50))):
        local_field, figure = found(curvature, place)
        assert figure - of_brain == pytest.approx(curvature, rel=0.05)
        left = np.where(mask, bowl(geometry, curvature, place), np.float32(0))
        assert np.linalg.norm(local_field - plain) < 0.1 * np.linalg.norm(removed(field=left)[0])


def test_it_is_where_the_recipe_takes_the_offset_off() -> None:
    head = small_head()
    full = dataclasses.replace(head.acquisition, mask=head.brain_mask)
    single = dataclasses.replace(
        full, magnitude=full.magnitude[1:2], phase=full.phase[1:2], echo_times=full.echo_times[1:2]
    )
    taken = default_recipe()
    left_in = default_recipe() | {"offset": {"method": "none"}}
    for recipe, known in ((taken, True), (left_in, False)):
        maps = reconstruct(single, Recipe.from_mapping(recipe))
        assert ("offset.curvature" in maps.quality) == known
        said = [warning for warning in maps.warnings if warning.startswith("offset: ")]
        assert ["its even curvature was taken off" in warning for warning in said] == [known]
