"""The force is the derivative of the likeness, images are read where they are asked for, and a bend is found again."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import ndimage

from reconstruction.acquisition import FloatArray
from reconstruction.regions._correlation import FEWEST, RADIUS, add_force, patches
from reconstruction.regions._deform import Level, bend, pulled
from reconstruction.regions._sampling import resliced, sampled

FLAT = 0.0025


def blobs(seed: int, shape: tuple[int, int, int] = (12, 13, 14), sd: float = 1.5) -> FloatArray:
    image = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sd)
    return (image / image.std()).astype(np.float32)


def likeness(fixed: FloatArray, moving: FloatArray, counts: FloatArray) -> float:
    """Signed squared correlation, summed over all patches of which enough counts."""
    total, size = 0.0, 2 * RADIUS + 1
    for i, j, k in np.ndindex(fixed.shape):
        patch = tuple(slice(max(0, n - RADIUS), n + RADIUS + 1) for n in (i, j, k))
        w, f, m = (v[patch].astype(np.float64) for v in (counts, fixed, moving))
        if (n := w.sum()) >= FEWEST * size**3:
            f, m = f - (w * f).sum() / n, m - (w * m).sum() / n
            fm = (w * f * m).sum() / n
            total += fm * abs(fm) / (((w * f * f).sum() / n + FLAT) * ((w * m * m).sum() / n + FLAT))
    return total


def test_the_force_is_the_derivative_of_the_likeness() -> None:
    """A ramp moved along each axis has the same slope everywhere: the force is the derivative by its values."""
    fixed = blobs(0)
    counts = np.ones_like(fixed)
    counts[:3] = 0
    moving = (fixed + 0.4 * blobs(1)).astype(np.float32)
    force = np.zeros((3, *fixed.shape), np.float32)
    add_force(fixed, patches(fixed, counts), moving, counts, np.float32(1), np.float32(FLAT), force)
    slope = np.stack(np.gradient(moving))
    h = 1e-2
    for at in ((6, 6, 6), (4, 3, 9), (9, 10, 5)):
        change = np.zeros_like(moving)
        change[at] = h
        by_value = (likeness(fixed, moving + change, counts) - likeness(fixed, moving - change, counts)) / (2 * h)
        np.testing.assert_allclose(
            force[(slice(None), *at)], by_value * slope[(slice(None), *at)], rtol=2e-2, atol=1e-4
        )
    assert not force[:, :3].any()


def test_equal_and_flat_images_pull_at_nothing() -> None:
    fixed, force = blobs(2), np.zeros((3, 12, 13, 14), np.float32)
    everywhere = np.ones_like(fixed)
    around = patches(fixed, everywhere)
    add_force(fixed, around, np.ones_like(fixed), everywhere, np.float32(1), np.float32(FLAT), force)
    assert not force.any()
    add_force(fixed, around, fixed, everywhere, np.float32(1), np.float32(0), force)
    assert np.abs(force).max() < 1e-4


def test_a_linear_image_is_read_exactly_and_goes_on_at_its_edge() -> None:
    x = np.indices((6, 7, 8), dtype=np.float32)
    ramp = (2 * x[0] - x[1] + 0.5 * x[2])[None]
    at = np.random.default_rng(0).uniform(0, 5, (3, 4, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(sampled(ramp, at)[0], 2 * at[0] - at[1] + 0.5 * at[2], atol=1e-5)
    beyond = sampled(ramp, np.full((3, 1, 1, 1), -4, np.float32))
    assert beyond[0, 0, 0, 0] == ramp[0, 0, 0, 0]
    turn = np.array([[0.0, 1, 0], [0, 0, 0.5], [1, 0, 0]])
    there = resliced(ramp, turn, np.array([0.5, 1, 0]), (3, 4, 5))
    points = np.einsum("ij,jxyz->ixyz", turn, np.indices((3, 4, 5))) + np.array([0.5, 1, 0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(there[0], 2 * points[0] - points[1] + 0.5 * points[2], atol=1e-5)


@pytest.fixture(scope="module")
def found() -> tuple[FloatArray, FloatArray, FloatArray]:
    """(2, x, y, z) images, the same bent, and the warp that is found between them."""
    images = np.stack([blobs(seed, (32, 32, 32), 3.0) for seed in (3, 4)])
    bump = np.exp(-((np.indices((32, 32, 32)) - 16) ** 2).sum(0) / 2 / 7**2)
    bent = pulled(images, np.stack([2 * bump, -1.5 * bump, bump]).astype(np.float32))
    return images, bent, bent_by(images, bent)


def bent_by(images: FloatArray, bent: FloatArray) -> FloatArray:
    names = dict.fromkeys("ab", 1.0)
    fixed, moving = (dict(zip("ab", volumes, strict=True)) for volumes in (bent, images))
    return bend(fixed, moving, names, np.ones(bent.shape[1:], bool), (Level(2, 15), Level(1, 10)))


def test_a_bend_is_found_again(found: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    images, bent, warp = found
    inner = (slice(None), *[slice(6, -6)] * 3)
    before, after = (np.abs(bent - image)[inner].mean() for image in (images, pulled(images, warp)))
    assert after < 0.3 * before
    assert warp[0, 16, 16, 16] == pytest.approx(2, abs=0.4)
    assert warp[1, 16, 16, 16] == pytest.approx(-1.5, abs=0.4)


def test_the_number_of_threads_does_not_matter(found: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    images, bent, warp = found
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(bent_by(images, bent), warp)
    finally:
        numba.set_num_threads(threads)
