"""Acquisitions spoilt one way at a time: what a quality figure has to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction import Acquisition
from tests.simulation.head import SimulatedHead

Signal = NDArray[np.complexfloating]

PHASE_ENCODED = 1
"""The axis of (x, y, z) along which movement and ghosts appear."""


def _with(acquisition: Acquisition, signal: Signal) -> Acquisition:
    return replace(acquisition, magnitude=np.abs(signal).astype(np.float32), phase=np.angle(signal).astype(np.float32))


def _signal(head: SimulatedHead) -> Signal:
    signal: Signal = head.acquisition.magnitude * np.exp(1j * head.acquisition.phase)
    return signal


def whole(head: SimulatedHead) -> Acquisition:
    """As it is."""
    return head.acquisition


def noisy(head: SimulatedHead) -> Acquisition:
    """With noise of a seventh of the brain's first echo."""
    rng, signal = np.random.default_rng(1), _signal(head)
    sigma = np.median(head.acquisition.magnitude[0][head.brain_mask]) / 7
    noise = rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape)
    return _with(head.acquisition, signal + sigma * noise)


def turned(head: SimulatedHead) -> Acquisition:
    """With the sign of the phase turned."""
    return replace(head.acquisition, phase=-head.acquisition.phase)


def ghosted(head: SimulatedHead) -> Acquisition:
    """With a ghost of 30 % a quarter of the image away."""
    signal = _signal(head)
    axis = 1 + PHASE_ENCODED
    return _with(head.acquisition, signal + 0.3 * np.roll(signal, signal.shape[axis] // 4, axis=axis))


def moved(head: SimulatedHead) -> Acquisition:
    """With two fifths of the lines of k-space acquired after the head had moved along x, its phase with it."""
    axis = 1 + PHASE_ENCODED
    still, after = (np.fft.fft(s, axis=axis) for s in (_signal(head), np.roll(_signal(head), 3, axis=1) * np.exp(1.5j)))
    late = np.arange(still.shape[axis]) % 5 < 2
    return _with(head.acquisition, np.fft.ifft(np.where(late[None, None, :, None], after, still), axis=axis))


def without_phase(head: SimulatedHead) -> Acquisition:
    """With a phase of 0 everywhere."""
    return replace(head.acquisition, phase=np.zeros_like(head.acquisition.phase))


def with_a_random_echo(head: SimulatedHead) -> Acquisition:
    """With no phase in the second echo."""
    phase = head.acquisition.phase.copy()
    phase[1] = np.random.default_rng(1).uniform(-np.pi, np.pi, phase[1].shape)
    return replace(head.acquisition, phase=phase)


def with_echoes_swapped(head: SimulatedHead) -> Acquisition:
    """With the phase of the second echo in the place of the third."""
    phase = head.acquisition.phase.copy()
    phase[[1, 2]] = phase[[2, 1]]
    return replace(head.acquisition, phase=phase)


def filtered(head: SimulatedHead) -> Acquisition:
    """With the phase high-pass filtered, as scanners make it for SWI."""
    signal, width = _signal(head), tuple(12 / size for size in head.acquisition.geometry.voxel_size)
    smooth = ndimage.gaussian_filter(signal.real, (0, *width)) + 1j * ndimage.gaussian_filter(signal.imag, (0, *width))
    return _with(head.acquisition, signal * np.exp(-1j * np.angle(smooth)))


def with_another_mask(head: SimulatedHead) -> Acquisition:
    """With a mask that was drawn for the head 16 mm further back."""
    steps = round(16 / head.acquisition.geometry.voxel_size[1])
    return replace(head.acquisition, mask=np.roll(head.brain_mask, steps, axis=1))


def with_a_large_mask(head: SimulatedHead) -> Acquisition:
    """With a mask that reaches 8 mm beyond the brain."""
    distance = ndimage.distance_transform_edt(~head.brain_mask, sampling=head.acquisition.geometry.voxel_size)
    return replace(head.acquisition, mask=distance <= 8)


def with_another_field(head: SimulatedHead) -> Acquisition:
    """With B₀ told to lie along y."""
    return replace(head.acquisition, geometry=replace(head.acquisition.geometry, b0_direction=(0.0, 1.0, 0.0)))


def cut(head: SimulatedHead) -> Acquisition:
    """With a signal in 16 mm of the head's height only, and a mask of the brain there."""
    acquisition = head.acquisition
    planes, size = acquisition.geometry.shape[2], acquisition.geometry.voxel_size[2]
    there = np.abs(np.arange(planes) - planes // 2) * size < 8
    return replace(
        acquisition,
        magnitude=acquisition.magnitude * there,
        phase=acquisition.phase * there,
        mask=head.brain_mask & there,
    )


def with_a_small_mask(head: SimulatedHead) -> Acquisition:
    """With a mask of what lies within 20 mm of the brain's middle."""
    size = head.acquisition.geometry.voxel_size
    middle = [np.mean(along) for along in np.nonzero(head.brain_mask)]
    squares = [(v * (np.arange(n) - c)) ** 2 for n, c, v in zip(head.brain_mask.shape, middle, size, strict=True)]
    return replace(head.acquisition, mask=head.brain_mask & (sum(np.ix_(*squares)) < 20**2))


def of_one_echo(head: SimulatedHead) -> Acquisition:
    """With the second echo only."""
    acquisition, one = head.acquisition, slice(1, 2)
    return replace(
        acquisition,
        magnitude=acquisition.magnitude[one],
        phase=acquisition.phase[one],
        echo_times=acquisition.echo_times[one],
    )


SPOILT: dict[str, Callable[[SimulatedHead], Acquisition]] = {
    function.__name__: function
    for function in (
        whole, noisy, turned, ghosted, moved, without_phase, with_a_random_echo, with_echoes_swapped, filtered,
        with_another_mask, with_a_large_mask, with_another_field, cut, with_a_small_mask, of_one_echo,
    )
}  # fmt: skip
"""Three echoes at least."""
