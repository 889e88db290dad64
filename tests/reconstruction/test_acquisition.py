"""An acquisition that exists is sound: everything later relies on it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from reconstruction import Acquisition, Geometry, InvalidAcquisition

GEOMETRY = Geometry((4, 5, 6), (1.0, 1.0, 2.0), (0.0, 0.0, 1.0))


def sound() -> Acquisition:
    echoes = np.zeros((2, 4, 5, 6), np.float32)
    return Acquisition(echoes, echoes.copy(), (0.004, 0.008), 123.2e6, GEOMETRY)


def test_a_sound_acquisition() -> None:
    assert sound().field_strength == pytest.approx(2.894, abs=1e-3)
    assert GEOMETRY.voxel_volume == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"magnitude": np.zeros((2, 4, 5, 7), np.float32)}, "magnitude is float32"),
        ({"phase": np.zeros((2, 4, 5, 6))}, "phase is float64"),
        ({"phase": np.full((2, 4, 5, 6), np.nan, np.float32)}, "phase holds NaN"),
        ({"mask": np.zeros((4, 5, 6))}, "mask is float64"),
        ({"echo_times": (0.008, 0.004)}, "ascending"),
        ({"echo_times": (0.0, 0.004)}, "ascending"),
        ({"echo_times": (4.0, 8.0)}, "below 1"),
        ({"larmor_frequency": 123.2}, "expected Hz"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidAcquisition, match=told):
        dataclasses.replace(sound(), **change)


@pytest.mark.parametrize(
    ("shape", "voxel_size", "b0_direction"),
    [
        ((0, 5, 6), (1, 1, 1), (0, 0, 1)),
        ((4, 5, 6), (1, 0, 1), (0, 0, 1)),
        ((4, 5, 6), (1, np.inf, 1), (0, 0, 1)),
        ((4, 5, 6), (1, 1, 1), (0, 1, 1)),
    ],
)
def test_geometry_that_cannot_be_is_refused(shape: Any, voxel_size: Any, b0_direction: Any) -> None:
    with pytest.raises(InvalidAcquisition, match="expected"):
        Geometry(shape, voxel_size, b0_direction)
