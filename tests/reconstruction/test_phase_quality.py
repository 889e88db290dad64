"""The mask of coherent phase: all of the brain, none of the air, and of phantoms too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from reconstruction import NotReconstructible
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.mask.phase_quality import phase_quality
from reconstruction.offset.mcpc3ds import mcpc3ds
from tests.reconstruction.echoes import EVEN, acquire, ball, geometry, grid, steep_field
from tests.simulation.scenes import small_head

SHAPE = (40, 40, 32)
GEOMETRY = geometry(SHAPE)


def phantom(inside: BoolArray, snr: float = 60) -> tuple[FloatArray, FloatArray]:
    return acquire(inside, 0.3 * steep_field(SHAPE), EVEN, snr=snr)


def test_brain_of_the_simulated_head_is_in_it_and_air_is_not() -> None:
    head = small_head()
    a = head.acquisition
    mask = phase_quality(mcpc3ds(a.phase, a.magnitude, a.echo_times, a.geometry), a.magnitude, a.echo_times, a.geometry)
    assert (mask & head.brain_mask).sum() > 0.94 * head.brain_mask.sum()
    assert (mask & ~ndimage.binary_dilation(head.head_mask)).sum() < 0.01 * mask.sum()
    assert ndimage.label(mask)[1] == 1


@pytest.mark.parametrize("snr", [20, 60])
def test_phantom_is_found_to_a_voxel(snr: float) -> None:
    inside = ball(SHAPE)
    phase, magnitude = phantom(inside, snr)
    mask = phase_quality(phase, magnitude, EVEN, GEOMETRY)
    assert not (mask & ~ndimage.binary_dilation(inside)).any()
    assert not (ndimage.binary_erosion(inside) & ~mask).any()


def test_holes_are_filled_or_left() -> None:
    hole = ball(SHAPE, 0.25)
    phase, magnitude = phantom(ball(SHAPE) & ~hole)
    core = ball(SHAPE, 0.15)
    assert phase_quality(phase, magnitude, EVEN, GEOMETRY)[core].all()
    assert not phase_quality(phase, magnitude, EVEN, GEOMETRY, fill=False)[core].any()


def test_what_hangs_on_by_a_thread_is_cut_off() -> None:
    """As scalp does by a vessel: two balls with a bar of three by three voxels between them."""
    x, y, z = grid(SHAPE)
    large, small = x**2 + y**2 + (z + 0.2) ** 2 < 0.4, (x - 0.9) ** 2 + y**2 + (z + 0.2) ** 2 < 0.03
    index = np.indices(SHAPE)
    bar = (np.abs(index[1] - 20) <= 1) & (np.abs(index[2] - 12) <= 1) & (x > 0) & (x < 0.9)
    phase, magnitude = phantom(large | small | bar)
    hanging, cut = (phase_quality(phase, magnitude, EVEN, GEOMETRY, opening_mm=mm) for mm in (0.0, 4.0))
    assert hanging[small].mean() > 0.6
    assert not cut[small].any()
    assert cut[large].mean() > 0.9


def test_a_stricter_quality_gives_no_larger_mask() -> None:
    phase, magnitude = phantom(ball(SHAPE), snr=15)
    sizes = [phase_quality(phase, magnitude, EVEN, GEOMETRY, quality=q).sum() for q in (0.3, 0.6, 0.9)]
    assert sizes == sorted(sizes, reverse=True)


def test_scale_of_the_magnitude_changes_nothing() -> None:
    phase, magnitude = phantom(ball(SHAPE))
    np.testing.assert_array_equal(
        phase_quality(phase, magnitude * np.float32(2.0**12), EVEN, GEOMETRY),
        phase_quality(phase, magnitude, EVEN, GEOMETRY),
    )


def test_random_phase_is_refused() -> None:
    random = np.random.default_rng(0)
    noise = random.uniform(-np.pi, np.pi, (len(EVEN), *SHAPE)).astype(np.float32)
    with pytest.raises(NotReconstructible, match="incoherent"):
        phase_quality(noise, phantom(ball(SHAPE))[1], EVEN, GEOMETRY)


def test_settings_that_leave_nothing_are_named() -> None:
    phase, magnitude = phantom(ball(SHAPE))
    with pytest.raises(NotReconstructible, match=r"wider than twice 40 mm.* set a lower quality or opening_mm"):
        phase_quality(phase, magnitude, EVEN, GEOMETRY, opening_mm=40.0)


def test_nothing_is_refused() -> None:
    empty = np.zeros((len(EVEN), *SHAPE), np.float32)
    with pytest.raises(NotReconstructible):
        phase_quality(empty, empty, EVEN, GEOMETRY)
