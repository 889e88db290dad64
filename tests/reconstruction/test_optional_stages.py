"""Stages that a recipe may leave out, in the whole line: what they make is in the maps, and nothing else changes."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np

from reconstruction import Acquisition, Maps, Recipe, reconstruct
from reconstruction.stage import OPTIONAL
from tests.reconstruction.test_pipeline import default_recipe
from tests.simulation.scenes import small_head

QUICK = {"background": {"method": "vsharp"}, "inversion": {"method": "tkd"}}


def made(acquisition: Acquisition, *optional: tuple[str, str]) -> Maps:
    needed = {name: table for name, table in default_recipe().items() if name not in OPTIONAL}
    content: dict[str, Any] = needed | QUICK | {name: {"method": method} for name, method in optional}
    return reconstruct(dataclasses.replace(acquisition, mask=small_head().brain_mask), Recipe.from_mapping(content))


@lru_cache(maxsize=2)
def maps(*optional: tuple[str, str]) -> Maps:
    return made(small_head().acquisition, *optional)


EVERY = (("readout", "bipolar"), ("weighting", "tswi"), ("separation", "chi_separation"))


def test_without_tables_there_are_no_such_maps() -> None:
    plain = maps()
    assert plain.swi is None
    assert plain.swi_projection is None
    assert plain.chi_para is None
    assert plain.chi_dia is None


def test_the_map_itself_is_the_same() -> None:
    """The read-out of the simulated head goes one way."""
    np.testing.assert_array_equal(maps(*EVERY).chi, maps().chi)


def test_a_bipolar_read_out_is_mended() -> None:
    """The map is that of a read-out in one direction; uncorrected it is graded otherwise."""
    acquisition = small_head().acquisition
    across = 0.4 + 0.05 * np.arange(acquisition.geometry.shape[0], dtype=np.float32)[:, None, None]
    turns = np.exp(1j * across * np.array([0, 1, 0], np.float32)[:, None, None, None])
    phase = np.angle(np.exp(1j * acquisition.phase) * turns).astype(np.float32)
    both_ways = dataclasses.replace(acquisition, phase=phase)
    mended, spoilt, plain = made(both_ways, EVERY[0]), made(both_ways), maps()
    assert np.abs(mended.chi - plain.chi).mean() < 0.1 * np.abs(spoilt.chi - plain.chi).mean()
    assert mended.grade == plain.grade != spoilt.grade
    assert mended.quality["readout.alternation_rad"] > 0.4


def test_weighted_magnitude_and_its_projection() -> None:
    found = maps(*EVERY)
    assert found.swi is not None
    assert found.swi_projection is not None
    assert found.swi.dtype == found.swi_projection.dtype == np.float32
    assert (found.swi_projection <= found.swi)[found.mask].all()
    veins = found.mask & (found.chi > 0.3)
    tissue = found.mask & (np.abs(found.chi) < 0.03)
    mean = small_head().acquisition.magnitude.mean(axis=0)
    contrast = [float(image[veins].mean() / image[tissue].mean()) for image in (found.swi, mean)]
    assert contrast[0] < 0.7 * contrast[1]


def test_sources_add_up_to_the_map() -> None:
    found = maps(*EVERY)
    assert found.chi_para is not None
    assert found.chi_dia is not None
    np.testing.assert_allclose(found.chi_para + found.chi_dia, found.chi, atol=1e-5)
    assert any("experimental" in warning for warning in found.warnings)
    assert found.quality["separation.relaxivity"] > 0
    assert "readout.alternation_rad" not in found.quality
