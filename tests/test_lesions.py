"""A lesion is found where a head has one, and its mean is that of the map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.accuracy import load_recipe
from benchmarks.lesions import lesion_means
from reconstruction import reconstruct
from tests.simulation.head import BLEED_MM, SimulatedHead
from tests.simulation.scenes import scene, small_head
from tests.test_accuracy import perfect


def with_a_bleed() -> SimulatedHead:
    """A voxel of 1.2 ppm, 5 mm from where the canonical head has its bleed."""
    head = small_head()
    place = np.linalg.solve(head.affine, [BLEED_MM[0][0], BLEED_MM[0][1] + 5, BLEED_MM[0][2], 1])[:3]
    chi = head.chi.copy()
    chi[tuple(np.round(place).astype(int))] = 1.2
    return dataclasses.replace(head, chi=chi)


def test_a_head_without_lesions_has_none() -> None:
    assert lesion_means(small_head(), perfect()) == {}


def test_a_lesions_own_value_is_told() -> None:
    head = with_a_bleed()
    ((name, (found, true)),) = lesion_means(head, dataclasses.replace(perfect(), chi=2 * head.chi)).items()
    assert name == "bleed"
    assert true == pytest.approx(1200 - 1000 * head.chi[head.brain_mask].mean(), abs=0.1)
    assert found == pytest.approx(2 * true, rel=1e-3)


@pytest.mark.slow
def test_the_default_finds_a_bleed_and_a_calcification() -> None:
    head = scene("lesions")
    found = lesion_means(head, reconstruct(head.acquisition, load_recipe("default")))
    assert set(found) == {"bleed", "calcification"}
    for value, true in found.values():
        assert value == pytest.approx(true, rel=0.2)
