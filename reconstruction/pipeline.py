"""The straight line from an acquisition to its maps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from reconstruction import quality, stage
from reconstruction.acquisition import Acquisition, BoolArray, FloatArray
from reconstruction.errors import NotReconstructible
from reconstruction.maps import Maps
from reconstruction.recipe import Recipe
from reconstruction.reliability import reliable
from reconstruction.steepness import steepness_noise


def reconstruct(acquisition: Acquisition, recipe: Recipe, on_stage: Callable[[str], None] | None = None) -> Maps:
    """Makes χ, R2* and what lies between from a multi-echo gradient echo.

    on_stage: is told each stage's name when it begins.  Raises NotReconstructible when no brain or signal is found.
    """
    timings: dict[str, float] = {}

    def run(name: str, *data: Any) -> Any:
        if on_stage is not None:
            on_stage(name)
        began = time.perf_counter()
        step = recipe.steps[name]
        result = stage.find(name, step.method)(*data, **step.settings)
        timings[name] = time.perf_counter() - began
        return result

    magnitude = _of_order_one(acquisition.magnitude)
    echo_times, geometry = acquisition.echo_times, acquisition.geometry
    hz_per_ppm = np.float32(acquisition.larmor_frequency * 1e-6)
    root_sum_of_squares = np.sqrt(np.einsum("exyz,exyz->xyz", magnitude, magnitude))

    with quality.ledger() as ledger:
        if len(echo_times) == 1:
            quality.warn(
                "offset: a single echo cannot tell the receivers' phase offset from the field; it was left in, and χ "
                "holds what of it was not taken for background"
            )
        phase = run("offset", acquisition.phase, magnitude, echo_times, geometry)
        brain = run("mask", phase, magnitude, echo_times, geometry) if acquisition.mask is None else acquisition.mask
        if not brain.any():
            raise NotReconstructible("the brain mask is empty; expected a brain: check magnitude, or supply a mask")
        unwrapped = run("unwrap", phase, magnitude, echo_times, brain, geometry)
        del phase
        field_hz, noise_hz, residual = run("combine", unwrapped, magnitude, echo_times, brain)
        del unwrapped
        field, noise = field_hz / hz_per_ppm, noise_hz / hz_per_ppm
        quality.figure("combine.noise_ppb", 1000 * float(np.median(noise[brain])))
        trusted = reliable(residual, noise, brain)
        noise = np.where(trusted, noise * np.maximum(residual, 1), np.float32(np.inf))

        local_field, mask = run("background", field, noise, brain, geometry)
        noise = np.hypot(noise, steepness_noise(field - local_field, mask))
        chi = run("inversion", local_field, noise, mask, root_sum_of_squares, geometry)
        valid = _without_open_holes(mask, trusted)
        r2star = run("relaxation", magnitude, echo_times, brain)
        reference = run("reference", chi, r2star, valid & trusted, geometry)

    if reference.mask.any():
        chi = chi - chi[reference.mask].mean()
    figures = {
        "mask.brain_ml": brain.sum() * geometry.voxel_volume / 1000,
        "mask.covered": valid.sum() / brain.sum(),
        "mask.excluded": (brain & ~trusted).sum() / brain.sum(),
        "combine.residual": float(np.median(residual[brain])),
    }
    return Maps(
        geometry=geometry,
        chi=_within(valid, chi),
        r2star=None if r2star is None else _within(brain, r2star),
        field=field,
        local_field=_within(mask, local_field),
        magnitude=root_sum_of_squares,
        brain_mask=brain,
        mask=valid,
        reference=reference,
        timings=timings,
        quality={name: float(value) for name, value in (figures | ledger.figures).items()},
        warnings=tuple(ledger.warnings),
    )


def _of_order_one(magnitude: FloatArray) -> FloatArray:
    """The magnitude over a power of two, which rounds nothing, so that no square of it leaves float32."""
    _, exponent = np.frexp(magnitude.max())
    scaled: FloatArray = np.ldexp(magnitude, -exponent)
    return scaled


def _without_open_holes(mask: BoolArray, trusted: BoolArray) -> BoolArray:
    """The mask without those unreliable voxels that are connected to its outside.

    An unreliable voxel amid reliable ones (a bleed, a vein, a calcification) is determined by the field around it and
    shown; where the signal is lost towards the sinuses, nothing on the far side determines it.
    """
    closed: BoolArray = ndimage.binary_fill_holes(mask & trusted)
    return closed & mask


def _within(mask: BoolArray, volume: FloatArray) -> FloatArray:
    return np.where(mask, volume, np.float32(0)).astype(np.float32)
