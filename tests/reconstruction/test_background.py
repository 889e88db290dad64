"""Background removal takes what comes from outside, leaves what comes from inside, and asks nothing of the grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from reconstruction import Geometry, fourier, quality
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.background._harmonics import fit_harmonics, solid_harmonics
from reconstruction.background.pdf import pdf
from reconstruction.background.vsharp import _deconvolve, vsharp
from reconstruction.steepness import CENTROID_SHIFT, steepness_noise
from tests.laws import assert_linear, random_volume
from tests.reconstruction.sources import AXIAL, OBLIQUE, ball, field_of_sphere, places

Method = Callable[..., tuple[FloatArray, BoolArray]]
METHODS = [pdf, vsharp]
GEOMETRIES = [
    Geometry((48, 44, 40), (2.0, 2.0, 2.0), AXIAL),
    Geometry((47, 53, 23), (2.0, 1.7, 3.5), OBLIQUE),
]
BRAIN_MM = 34.0


def brain(geometry: Geometry) -> BoolArray:
    return ball(geometry, BRAIN_MM)


def outside_field(geometry: Geometry) -> FloatArray:
    """Two strong sources some millimetres from the brain, and a shim."""
    x, y, z = places(geometry) / 50
    shim = 0.2 + 0.3 * x - 0.1 * z + 0.2 * (x * x - y * y) + 0.1 * y * z
    above = field_of_sphere(geometry, 8.0, 9.4, (0.0, 36.0, 26.0))
    below = field_of_sphere(geometry, 6.0, 9.4, (30.0, -20.0, -26.0))
    return (shim + above + below).astype(np.float32)


def even_noise(geometry: Geometry) -> FloatArray:
    return np.full(geometry.shape, 0.001, np.float32)


def interior(mask: BoolArray, geometry: Geometry, depth: float) -> BoolArray:
    distance = ndimage.distance_transform_edt(np.pad(mask, 1), geometry.voxel_size)[1:-1, 1:-1, 1:-1]
    return np.asarray(distance > depth)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_field_from_outside_goes(method: Method, geometry: Geometry) -> None:
    field, mask = outside_field(geometry), brain(geometry)
    local, kept = method(field, even_noise(geometry), mask, geometry)
    assert not (kept & ~mask).any()
    assert not local[~kept].any()
    deep = kept & interior(mask, geometry, 6.0)
    left = local[deep] - local[deep].mean()
    assert left.std() < (0.015 if method is pdf else 0.06) * field[deep].std()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_field_from_inside_stays(method: Method, geometry: Geometry) -> None:
    own = field_of_sphere(geometry, 6.0, 0.2, (4.0, -3.0, 2.0))
    mask = brain(geometry)
    local, kept = method(outside_field(geometry) + own, even_noise(geometry), mask, geometry)
    near = kept & ball(geometry, 18.0, (4.0, -3.0, 2.0)) & ~ball(geometry, 8.5, (4.0, -3.0, 2.0))
    slope = np.polyfit(own[near], local[near], 1)[0]
    assert 0.85 < slope < 1.1


@pytest.mark.parametrize("method", METHODS)
def test_pdf_keeps_the_brain_and_vsharp_its_inside(method: Method) -> None:
    geometry = GEOMETRIES[0]
    mask = brain(geometry)
    _, kept = method(outside_field(geometry), even_noise(geometry), mask, geometry)
    if method is pdf:
        np.testing.assert_array_equal(kept, mask)
    else:
        np.testing.assert_array_equal(kept, mask & interior(mask, geometry, 2.0))


@pytest.mark.parametrize("method", METHODS)
def test_removal_is_linear(method: Method) -> None:
    geometry = GEOMETRIES[0]
    mask, noise = brain(geometry), even_noise(geometry)
    settings = {"iterations": 300} if method is pdf else {}
    smooth = field_of_sphere(geometry, 8.0, 9.4, (0.0, 36.0, 26.0))

    def removed(x: FloatArray) -> FloatArray:
        weights = ndimage.gaussian_filter(x, 4)
        return method(smooth * weights, noise, mask, geometry, **settings)[0]

    assert_linear(removed, geometry.shape, rtol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_voxels_of_which_nothing_is_known_have_no_say(method: Method) -> None:
    geometry = GEOMETRIES[0]
    field, mask, noise = outside_field(geometry), brain(geometry), even_noise(geometry)
    all_known, _ = method(field, noise, mask, geometry)
    spoilt = ball(geometry, 5.0, (10.0, 0.0, 0.0))
    noise[spoilt] = np.inf
    clean, kept = method(field, noise, mask, geometry)
    field[spoilt] += 50
    local, _ = method(field, noise, mask, geometry)
    np.testing.assert_allclose(local[mask & ~spoilt], clean[mask & ~spoilt], atol=1e-5)
    around = kept & ball(geometry, 12.0, (10.0, 0.0, 0.0)) & ~spoilt
    assert np.abs(clean - all_known)[around].max() < 0.1 * field[kept & ~spoilt].std()


def test_pdf_believes_voxels_as_their_noise_says() -> None:
    """One half is fifty times as noisy, and its noise map tells: the other half's background is not moved by it."""
    geometry = GEOMETRIES[0]
    field, mask, noise = outside_field(geometry), brain(geometry), even_noise(geometry)
    noisy = places(geometry)[0] > 6
    noise[noisy] *= 50
    spoilt = field + np.where(noisy, noise * random_volume(geometry.shape, 1), 0).astype(np.float32)
    (clean, _), (told, _), (untold, _) = (
        pdf(volume, sigma, mask, geometry, coarse_iterations=5, iterations=2)
        for volume, sigma in ((field, noise), (spoilt, noise), (spoilt, even_noise(geometry)))
    )
    quiet = mask & (places(geometry)[0] < 0)
    assert (told - clean)[quiet].std() < 0.1 * (untold - clean)[quiet].std()


def test_pdf_looks_for_sources_where_there_is_no_signal() -> None:
    """Signal all around tells nothing; a hole in it where the air is brings the field at the rim nearer."""
    geometry = Geometry((56, 56, 56), (2.0, 2.0, 2.0), AXIAL)
    field, noise, mask = outside_field(geometry), even_noise(geometry), brain(geometry)
    rim = mask & ~interior(mask, geometry, 4.0)
    magnitude = np.ones(geometry.shape, np.float32)
    blind, _ = pdf(field, noise, mask, geometry)
    bright, _ = pdf(field, noise, mask, geometry, magnitude)
    np.testing.assert_allclose(bright, blind, atol=2e-4 * float(field[mask].std()))
    air = ball(geometry, 8.0, (0.0, 36.0, 26.0)) | ball(geometry, 6.0, (30.0, -20.0, -26.0))
    told, _ = pdf(field, noise, mask, geometry, np.where(air, np.float32(0.02), magnitude))
    assert told[rim].std() < 0.95 * blind[rim].std()


def test_a_coarse_grid_saves_steps_on_the_fine_one() -> None:
    geometry = GEOMETRIES[1]
    field, noise, mask = outside_field(geometry), even_noise(geometry), brain(geometry)
    begun, _ = pdf(field, noise, mask, geometry, iterations=8)
    not_begun, _ = pdf(field, noise, mask, geometry, coarse_iterations=0, iterations=8)
    deep = interior(mask, geometry, 6.0)
    assert begun[deep].std() < 0.5 * not_begun[deep].std()


@pytest.mark.parametrize("side", [2, 5])
def test_a_few_voxels_are_not_divided_by_rounding(side: int) -> None:
    """Fewer unknowns than steps: the iteration ends when nothing is left."""
    geometry = Geometry((24, 24, 24), (1.0, 1.0, 1.0), AXIAL)
    mask = np.zeros(geometry.shape, bool)
    mask[9 : 9 + side, 9 : 9 + side, 9 : 9 + side] = True
    field = np.where(mask, random_volume(geometry.shape, 1), 0).astype(np.float32)
    local, _ = pdf(field, even_noise(geometry), mask, geometry)
    assert np.abs(local).max() <= 3 * np.abs(field).max()


def test_pdf_moves_with_the_head() -> None:
    geometry = Geometry((40, 40, 40), (2.0, 2.0, 2.0), AXIAL)
    field, noise, mask = outside_field(geometry), even_noise(geometry), ball(geometry, 30.0)
    larger = Geometry((45, 43, 47), geometry.voxel_size, AXIAL)
    here, _ = pdf(*(np.pad(v, ((0, 5), (0, 3), (0, 7))) for v in (field, noise, mask)), larger)
    there, _ = pdf(*(np.pad(v, ((5, 0), (3, 0), (7, 0))) for v in (field, noise, mask)), larger)
    np.testing.assert_allclose(there[5:, 3:, 7:], here[:-5, :-3, :-7], atol=1e-4 * float(field[mask].std()))


def test_pdf_may_stay_on_its_coarse_grid() -> None:
    """What is far from the brain is gone then; what is near to its surface is left to steps on the image's own grid."""
    geometry = Geometry((60, 60, 60), (1.0, 1.0, 1.0), AXIAL)
    mask, noise = ball(geometry, 20.0), even_noise(geometry)
    own = 0.02 * random_volume(geometry.shape, 5)
    far, near = (field_of_sphere(geometry, 2.0, 9.4, (0.0, 0.0, z)) for z in (28.0, 22.5))
    assert pdf(far, noise, mask, geometry, iterations=0)[0][mask].std() < 0.2 * far[mask].std()
    left, less = (pdf(near, noise, mask, geometry, iterations=steps)[0][mask].std() for steps in (0, 12))
    assert less < 0.7 * left < 0.7 * near[mask].std()
    local, _ = pdf(own, noise, mask, geometry, iterations=0)
    assert local[mask].std() == pytest.approx(own[mask].std(), rel=0.1)


def test_pdf_reports_how_it_ended() -> None:
    geometry = GEOMETRIES[0]
    with quality.ledger() as ledger:
        pdf(outside_field(geometry), even_noise(geometry), brain(geometry), geometry, iterations=2)
    assert ledger.figures["background.iterations"] == 2
    assert ledger.figures["background.residual"] > 3e-3


def test_vsharp_divides_by_what_is_above_its_threshold_and_by_nothing_else() -> None:
    shape = (12, 10, 9)
    transfer = np.abs(fourier.forward(random_volume(shape, 1), shape)).astype(np.float32)
    transfer /= transfer.max()
    truth = random_volume(shape, 2)
    for threshold in (0.05, 0.3):
        found = _deconvolve(fourier.apply(transfer, truth), transfer, threshold)
        kept = (transfer > threshold).astype(np.float32)
        np.testing.assert_allclose(found, fourier.apply(kept, truth), atol=1e-4)


def test_vsharp_with_a_higher_threshold_keeps_less() -> None:
    geometry = GEOMETRIES[0]
    own = field_of_sphere(geometry, 6.0, 0.2, (4.0, -3.0, 2.0))
    sizes = [
        np.linalg.norm(vsharp(own, even_noise(geometry), brain(geometry), geometry, radii=1, threshold=threshold)[0])
        for threshold in (0.05, 0.5)
    ]
    assert sizes[1] < 0.95 * sizes[0]


def test_solid_harmonics_obey_laplace() -> None:
    geometry = Geometry((12, 12, 12), (1.0, 1.0, 1.0), AXIAL)
    x, y, z = (np.broadcast_to(along / 12, geometry.shape).ravel() for along in places(geometry))
    functions = solid_harmonics(x, y, z, 3)
    assert functions.shape == (12**3, 16)
    for column in functions.T:
        volume = column.reshape(geometry.shape)
        laplacian = sum(np.diff(volume, 2, axis=a)[tuple(slice(1, -1) if b != a else slice(None) for b in range(3))]
                        for a in range(3))  # fmt: skip
        assert np.abs(laplacian).max() < 1e-5
    assert np.linalg.matrix_rank(functions) == 16


def test_harmonics_are_fitted_exactly() -> None:
    geometry = GEOMETRIES[1]
    mask = brain(geometry)
    x, y, z = places(geometry)
    shim = np.where(mask, 0.3 + 0.01 * z - 0.02 * x + 1e-4 * (x * x - z * z) + 2e-4 * x * y, 0).astype(np.float32)
    fitted = fit_harmonics(shim, np.ones(geometry.shape, np.float32), mask, geometry, 2)
    np.testing.assert_allclose(fitted, shim, atol=1e-5)


def test_steepness_counts_changes_within_the_mask_only() -> None:
    background = np.zeros((6, 5, 4), np.float32)
    background[3:] = 2.0
    mask = np.ones(background.shape, bool)
    noise = steepness_noise(background, mask)
    assert set(np.unique(noise[2:4])) == {np.float32(2 * CENTROID_SHIFT)}
    assert not noise[[0, 1, 4, 5]].any()
    mask[3:] = False
    assert not steepness_noise(background, mask).any()
