"""One code for every library of arrays: a strict one, and PyTorch where it is installed, agree with NumPy."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import array_api_strict
import numpy as np
import pytest
from array_api_compat import array_namespace

from reconstruction import Geometry, stage
from reconstruction.acquisition import FloatArray
from reconstruction.arrays import like, mover, to_numpy
from reconstruction.errors import DeviceUnavailable
from reconstruction.solvers import conjugate_gradient
from tests.laws import random_volume
from tests.reconstruction.sources import OBLIQUE, ball, field_of_sphere

GEOMETRY = Geometry((24, 22, 20), (1.0, 1.1, 1.4), OBLIQUE)
STRICT: Any = array_api_strict
OTHERS: list[Any] = [STRICT, *([import_module("array_api_compat.torch")] if find_spec("torch") else [])]
"""Namespaces beside NumPy's.  PyTorch stands for devices: what works on its CPU needs only be moved."""

in_another_namespace = pytest.mark.parametrize("xp", OTHERS, ids=lambda xp: xp.__name__.rpartition(".")[2])


def moved(data: dict[str, Any], xp: Any) -> dict[str, Any]:
    return {name: xp.asarray(value) if isinstance(value, np.ndarray) else value for name, value in data.items()}


def scene() -> dict[str, Any]:
    mask = ball(GEOMETRY, 9.0)
    noise = np.full(GEOMETRY.shape, 0.002, np.float32) * (1 + np.abs(random_volume(GEOMETRY.shape, 1)))
    noise[~mask | (random_volume(GEOMETRY.shape, 2) > 2)] = np.inf
    local = field_of_sphere(GEOMETRY, 3.0, 0.1, (0, 0, 0)).astype(np.float32)
    background = field_of_sphere(GEOMETRY, 3.0, 9.0, (-14, 3, 2)).astype(np.float32)
    return {
        "field": np.where(mask, local + background, 0).astype(np.float32),
        "local_field": np.where(mask, local, 0).astype(np.float32),
        "noise": noise.astype(np.float32),
        "mask": mask,
        "magnitude": np.where(mask, 1 + 0.05 * random_volume(GEOMETRY.shape, 3), 0.1).astype(np.float32),
        "r2star": np.where(mask, 20 + random_volume(GEOMETRY.shape, 4), 0).astype(np.float32),
        "geometry": GEOMETRY,
        "echo_times": (5e-3, 10e-3),
        "larmor_frequency": 123.2e6,
    }


def asked(name: str, method: str, data: dict[str, Any], most: int = 40, **settings: Any) -> Any:
    """The method with default settings but these, and no more iterations than tell its arithmetic."""
    settings = stage.defaults(name, method) | settings
    if "max_iterations" in settings:
        settings["max_iterations"] = min(settings["max_iterations"], most)
    return stage.run(name, method, settings, data)


OTHER_BRANCHES: list[tuple[str, str, dict[str, Any]]] = [
    ("background", "pdf", {"coarse_iterations": 0, "iterations": 4}),
    ("background", "lbv", {"peel": 0}),
    ("inversion", "fansi", {"harmonic": 150.0}),
    ("inversion", "fansi", {"nonlinear": False, "edge_weight": 0.1}),
    ("inversion", "l2", {"edge_weight": 0.1}),
    ("inversion", "medi", {"sphere_mm": 0.0, "merit": False, "max_iterations": 1}),
    ("inversion", "medi", {"sphere_mm": 3.0, "max_iterations": 1}),
    ("inversion", "tv", {"edge_weight": 1.0}),
]
"""Settings that take a method another way than its defaults do."""


@in_another_namespace
@pytest.mark.parametrize("method", stage.methods("background"))
def test_background_removal_in_another_namespace(method: str, xp: Any) -> None:
    data = scene()
    expected_field, expected_mask = asked("background", method, data)
    field, mask = asked("background", method, moved(data, xp))
    assert array_namespace(field, mask) is xp
    agree(to_numpy(field), expected_field, scale=np.abs(data["field"]).max())
    np.testing.assert_array_equal(to_numpy(mask), expected_mask)


@in_another_namespace
@pytest.mark.parametrize("method", stage.methods("inversion"))
def test_inversion_in_another_namespace(method: str, xp: Any) -> None:
    data = scene()
    expected, chi = (asked("inversion", method, inputs) for inputs in (data, moved(data, xp)))
    if isinstance(expected, tuple):
        np.testing.assert_array_equal(to_numpy(chi[1]), expected[1])
        expected, chi = expected[0], chi[0]
    assert array_namespace(chi) is xp
    agree(to_numpy(chi), expected, scale=np.abs(expected).max())


@in_another_namespace
@pytest.mark.parametrize(("name", "method", "settings"), OTHER_BRANCHES)
def test_other_settings_in_another_namespace(
    name: str, method: str, settings: dict[str, Any], xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without R2*, as of a single echo, which is another way too."""
    monkeypatch.setattr("reconstruction.inversion.medi.CG_ITERATIONS", 10)
    data = scene() | {"r2star": None}
    expected, found = (asked(name, method, inputs, most=4, **settings) for inputs in (data, moved(data, xp)))
    if isinstance(expected, tuple):
        np.testing.assert_array_equal(to_numpy(found[1]), expected[1])
        expected, found = expected[0], found[0]
    assert array_namespace(found) is xp
    agree(to_numpy(found), expected, scale=np.abs(expected).max())


def agree(found: FloatArray, expected: FloatArray, scale: float) -> None:
    assert found.dtype == np.float32
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=2e-3 * scale)


@in_another_namespace
def test_conjugate_gradient_in_another_namespace(xp: Any) -> None:
    diagonal = xp.asarray(np.linspace(1, 4, 60, dtype=np.float32).reshape(3, 4, 5))
    truth = xp.asarray(random_volume((3, 4, 5), 1))
    found, outcome = conjugate_gradient(
        lambda x: diagonal * x, diagonal * truth, xp.zeros_like(truth), tolerance=1e-5, max_iterations=50
    )
    assert outcome.converged
    np.testing.assert_allclose(to_numpy(found), to_numpy(truth), atol=1e-4)


@in_another_namespace
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_])
def test_arrays_move_there_and_back(dtype: type, xp: Any) -> None:
    array = (random_volume((3, 4, 5), 1) > 0).astype(dtype)
    there = like(array, xp.asarray(np.zeros(1)))
    assert array_namespace(there) is xp
    np.testing.assert_array_equal(to_numpy(there), array)
    assert like(array, array) is array
    assert to_numpy(array) is array
    assert mover("cpu")(array) is array


def test_a_device_that_is_not_there_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("reconstruction.arrays.import_module", absent)
    with pytest.raises(DeviceUnavailable, match=r'cupy: ImportError.*torch: ImportError.*device = "cpu"'):
        mover("cuda")
