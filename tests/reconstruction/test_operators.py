"""Transforms, dipole and gradient: laws first, then a sphere whose field is known."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconstruction import Geometry, dipole, fourier, gradient
from reconstruction.acquisition import FloatArray
from reconstruction.fourier import Window
from tests.laws import assert_adjoint, assert_linear, assert_self_adjoint, random_volume
from tests.reconstruction.sources import AXIAL, OBLIQUE, ball, field_of_sphere, softened_ball

SHAPES = [(16, 18, 20), (15, 17, 13), (16, 9, 5)]
VOXELS = [(1.0, 1.0, 1.0), (0.5, 0.6, 3.0)]


def field_of(chi: FloatArray, geometry: Geometry) -> FloatArray:
    D = dipole.kernel(geometry.shape, geometry.voxel_size, geometry.b0_direction)
    return fourier.apply(D, chi)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("voxel_size", VOXELS)
@pytest.mark.parametrize("b0", [AXIAL, OBLIQUE])
def test_dipole_is_linear_and_self_adjoint(
    shape: tuple[int, int, int], voxel_size: tuple[float, float, float], b0: tuple[float, float, float]
) -> None:
    geometry = Geometry(shape, voxel_size, b0)
    assert_linear(lambda x: field_of(x, geometry), shape)
    assert_self_adjoint(lambda x: field_of(x, geometry), shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_and_its_adjoint(shape: tuple[int, int, int]) -> None:
    size = (0.5, 1.0, 3.0)
    assert_linear(lambda x: gradient.forward(x, size), shape)
    assert_adjoint(
        lambda x: gradient.forward(x, size), lambda v: gradient.adjoint(v, size), shape, (3, *shape)
    )  # fmt: skip


@pytest.mark.parametrize("xp", [np, array_api_strict])
def test_squares_are_of_differences_between_voxels_inside(xp: Any) -> None:
    """By hand, and by the periodic differences where nothing is outside but the last plane of each axis."""
    size = (1.0, 2.0, 0.5)
    x, inside = random_volume((5, 4, 6), seed=3), np.ones((5, 4, 6), bool)
    inside[-1], inside[:, -1], inside[..., -1] = False, False, False
    expected = np.zeros_like(x)
    for axis, change in enumerate(gradient.forward(x, size)):
        expected += np.where(inside & np.roll(inside, -1, axis=axis), change**2, 0)
    found = gradient.squares_within(xp.asarray(inside), xp.asarray(x), size)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5)
    line = np.array([0.0, 3.0, 4.0, 9.0], np.float32).reshape(1, 4, 1)
    whole = gradient.squares_within(xp.asarray(line < 9), xp.asarray(line), size)
    np.testing.assert_allclose(np.asarray(whole).ravel(), [2.25, 0.25, 0, 0])


@pytest.mark.parametrize("xp", [np, array_api_strict])
def test_differences_go_to_the_next_voxel_and_round_the_end(xp: Any) -> None:
    x = random_volume((3, 4, 5), seed=4)
    found = np.asarray(gradient.forward(xp.asarray(x), (1.0, 2.0, 0.5)))
    for axis, step in enumerate((1.0, 2.0, 0.5)):
        np.testing.assert_allclose(found[axis], (np.roll(x, -1, axis=axis) - x) / step, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_spectrum_is_that_of_the_two_in_a_row(shape: tuple[int, int, int]) -> None:
    size = (0.5, 1.0, 3.0)
    x = random_volume(shape, 0)
    np.testing.assert_allclose(
        fourier.apply(gradient.spectrum(shape, size), x), gradient.adjoint(gradient.forward(x, size), size), atol=2e-4
    )


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.6)])
@pytest.mark.parametrize("b0", [AXIAL, (1.0, 0.0, 0.0), OBLIQUE])
def test_field_of_a_sphere(voxel_size: tuple[float, float, float], b0: tuple[float, float, float]) -> None:
    shape = (int(72 / voxel_size[0]), int(72 / voxel_size[1]), int(72 / voxel_size[2]))
    geometry = Geometry(shape, voxel_size, b0)
    radius, chi = 9.0, 1.0
    found = field_of(softened_ball(geometry, radius) * np.float32(chi), geometry)
    expected = field_of_sphere(geometry, radius, chi, (0, 0, 0))
    near = ball(geometry, 25.0)
    rim = ball(geometry, radius + 2.5) & ~ball(geometry, radius - 2.5)
    error = (found - expected)[near & ~rim]
    assert np.abs(error).max() < 0.03
    assert error.std() < 0.006


@given(
    shape=st.tuples(*[st.integers(1, 24)] * 3),
    direction=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda b: np.linalg.norm(b) > 0.1),
)
@settings(max_examples=50, deadline=None)
def test_dipole_stays_within_its_bounds(shape: tuple[int, int, int], direction: tuple[float, float, float]) -> None:
    b = np.array(direction) / np.linalg.norm(direction)
    D = dipole.kernel(shape, (0.5, 1.0, 3.0), (float(b[0]), float(b[1]), float(b[2])))
    assert np.isfinite(D).all()
    assert D[0, 0, 0] == 0
    assert D.max() <= 1 / 3 + 1e-4
    assert D.min() >= -2 / 3 - 0.15  # differences of two orders along two axes overshoot a little near Nyquist


def test_dipole_turns_with_the_axes() -> None:
    shape, size = (12, 14, 16), (1.0, 2.0, 3.0)
    x = random_volume(shape, 5)
    b = (0.6, 0.0, 0.8)
    straight = field_of(x, Geometry(shape, size, b))
    turned = field_of(
        np.ascontiguousarray(x.transpose(2, 0, 1)), Geometry((16, 12, 14), (3.0, 1.0, 2.0), (0.8, 0.6, 0.0))
    )
    np.testing.assert_allclose(turned, straight.transpose(2, 0, 1), atol=1e-5)


def test_dipole_shifts_with_the_source() -> None:
    shape = (12, 15, 16)
    geometry = Geometry(shape, (1.0, 1.0, 2.0), OBLIQUE)
    x = random_volume(shape, 6)
    shifted = field_of(np.roll(x, (1, -2, 3), axis=(0, 1, 2)), geometry)
    np.testing.assert_allclose(shifted, np.roll(field_of(x, geometry), (1, -2, 3), axis=(0, 1, 2)), atol=1e-5)


def test_transforms_do_not_depend_on_threads() -> None:
    x = random_volume((32, 30, 28), 7)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            results.append(fourier.inverse(fourier.forward(x, (32, 30, 28)), (32, 30, 28)))
    finally:
        numba.set_num_threads(before)
    for result in results:
        np.testing.assert_allclose(result, results[0], atol=1e-6)
        np.testing.assert_allclose(result, x, atol=1e-5)


@given(shape=st.tuples(*[st.integers(1, 40)] * 3), margin=st.floats(0, 30), data=st.data())
@settings(max_examples=50, deadline=None)
def test_window_gives_back_what_it_cut(shape: tuple[int, int, int], margin: float, data: st.DataObject) -> None:
    mask = np.zeros(shape, bool)
    for _ in range(2):
        mask[tuple(data.draw(st.integers(0, n - 1)) for n in shape)] = True
    window = Window.around(mask, (1.0, 2.0, 3.0), margin)
    x = random_volume(shape, 8) * mask
    np.testing.assert_array_equal(window.paste(window.cut(x)), x)
    sizes = [s.stop - s.start for s in window.box]
    for total, size, step in zip(window.shape, sizes, (1.0, 2.0, 3.0), strict=True):
        assert total >= size + margin / step


def test_sampled_dipole_is_the_continuous_one() -> None:
    """On odd sizes, which have no Nyquist frequency, it is what the whole complex transform makes of the formula."""
    shape, voxel_size, b = (15, 13, 11), (1.0, 1.2, 2.5), (0.0, -0.6, 0.8)
    k = np.meshgrid(*(np.fft.fftfreq(n, h) for n, h in zip(shape, voxel_size, strict=True)), indexing="ij")
    k_squared = np.sum(np.square(k), axis=0)
    k_squared[0, 0, 0] = np.inf
    D = 1 / 3 - np.tensordot(b, k, 1) ** 2 / k_squared
    D[0, 0, 0] = 0
    chi = random_volume(shape, 1)
    expected = np.fft.ifftn(D * np.fft.fftn(chi)).real
    np.testing.assert_allclose(fourier.apply(dipole.sampled(shape, voxel_size, b), chi), expected, atol=1e-5)


def test_sampled_dipole_is_self_adjoint_at_the_nyquist_frequency() -> None:
    shape = (12, 10, 8)
    D = dipole.sampled(shape, (1.0, 1.2, 2.5), (0.0, -0.6, 0.8))
    assert D.dtype == np.float32
    assert_self_adjoint(lambda x: fourier.apply(D, x), shape)


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 3, 1)])
def test_a_window_on_a_finer_grid_is_the_same_window(factors: tuple[int, int, int]) -> None:
    mask = np.zeros((9, 8, 7), bool)
    mask[2:7, 1:8, 0:5] = True
    coarse = Window.around(mask, (1.0, 1.0, 1.0), 4.0)
    values = np.random.default_rng(0).random(mask.shape).astype(np.float32)
    blocks = np.ones(factors, np.float32)
    fine_values = np.kron(values, blocks)[:-1] if factors[0] > 1 else np.kron(values, blocks)
    fine = coarse.refined(factors, fine_values.shape)
    np.testing.assert_array_equal(fine.cut(fine_values), np.kron(coarse.cut(values), blocks))


def test_a_window_goes_round_the_image_and_ends_with_it() -> None:
    """What lies behind the box comes after it, what lies before it comes last, and beyond the image is what is said."""
    line = np.arange(10, dtype=np.float32)[:, None, None]
    window = Window((10, 1, 1), (slice(2, 6), slice(0, 1), slice(0, 1)), (9, 1, 1))
    assert window.cut_round(line, -1)[:, 0, 0].tolist() == [2, 3, 4, 5, 6, 7, -1, 0, 1]
