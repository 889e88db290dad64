"""An acquisition that exists is sound: everything later relies on it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from reconstruction import Acquisition, Geometry, InvalidAcquisition, NotReconstructible
from reconstruction.fourier import Window

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
        ({"magnitude": np.zeros((2, 4, 5, 7), np.float32)}, "magnitude has the shape .*order its axes"),
        (
            {"magnitude": np.full((2, 4, 5, 6), -1, np.float32)},
            "goes down to -1; expected 0 or more: give the absolute",
        ),
        ({"magnitude": None}, "magnitude is NoneType; expected a NumPy array"),
        ({"phase": np.zeros((2, 4, 5, 6))}, r"phase is float64; expected float32: use phase.astype\(numpy.float32\)"),
        ({"phase": np.full((2, 4, 5, 6), np.nan, np.float32)}, "phase holds NaN"),
        ({"mask": np.zeros((4, 5, 6))}, r"mask is float64; expected bool: use mask.astype\(numpy.bool\)"),
        ({"mask": np.zeros((4, 5, 7), bool)}, "mask has the shape"),
        ({"echo_times": (0.008, 0.004)}, "ascending"),
        ({"echo_times": (0.0, 0.004)}, "ascending"),
        ({"echo_times": (4.0, 8.0)}, "below 1: sort the echoes by their time, and divide milliseconds by 1000"),
        ({"echo_times": (np.nan, 0.004)}, "ascending"),
        ({"echo_times": ("4 ms", "8 ms")}, "ascending"),
        ({"echo_times": ()}, "ascending"),
        ({"larmor_frequency": 123.2}, "expected Hz .*: multiply MHz by 1e6"),
        ({"larmor_frequency": "123 MHz"}, "expected Hz"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidAcquisition, match=told):
        dataclasses.replace(sound(), **change)


@pytest.mark.parametrize(
    ("shape", "voxel_size", "b0_direction", "told"),
    [
        ((0, 5, 6), (1, 1, 1), (0, 0, 1), "shape is .* give the array's columns, rows, slices"),
        ((4, 5), (1, 1, 1), (0, 0, 1), "shape is"),
        ((4.0, 5, 6), (1, 1, 1), (0, 0, 1), "expected three positive whole numbers"),
        ((4, 5, 6), (1, 0, 1), (0, 0, 1), "voxel_size is"),
        ((4, 5, 6), (1, np.inf, 1), (0, 0, 1), "voxel_size is"),
        (
            (4, 5, 6),
            (1e-3, 1e-3, 2e-3),
            (0, 0, 1),
            "from 0.01 to 50 mm: give the distances between voxel centres in mm",
        ),
        ((4, 5, 6), (300, 300, 300), (0, 0, 1), "voxel_size is"),
        ((4, 5, 6), "abc", (0, 0, 1), "voxel_size is abc"),
        ((4, 5, 6), (1, 1, 1), (0, 1, 1), "b0_direction is .* divide it by its length"),
        ((4, 5, 6), (1, 1, 1), (0, 1), "b0_direction is"),
        ((4, 5, 6), (1, 1, 1), ("0", "0", "1"), "b0_direction is"),
    ],
)
def test_geometry_that_cannot_be_is_refused(shape: Any, voxel_size: Any, b0_direction: Any, told: str) -> None:
    with pytest.raises(InvalidAcquisition, match=told):
        Geometry(shape, voxel_size, b0_direction)


def test_numbers_of_numpy_are_numbers() -> None:
    found = Geometry(tuple(np.array([4, 5, 6])), tuple(np.float32([1, 1, 2])), tuple(np.array([0.0, 0.0, 1.0])))
    assert found.voxel_volume == 2


def test_no_window_is_larger_than_memory() -> None:
    """A margin of 20 mm round three voxels of 0.01 mm."""
    with pytest.raises(NotReconstructible, match=r"margin of 20 mm has 8e\+09 voxels; .* check the voxel size"):
        Window.around(np.ones((3, 3, 3), bool), (0.01, 0.01, 0.01), 20.0)
