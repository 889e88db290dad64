"""The straight line from an acquisition to its maps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from reconstruction import grade, quality, stage
from reconstruction.acquisition import Acquisition, BoolArray, FloatArray
from reconstruction.arrays import mover, to_numpy
from reconstruction.atlas import Atlas
from reconstruction.errors import NotReconstructible
from reconstruction.intensity import root_sum_of_squares
from reconstruction.maps import Maps
from reconstruction.noise import roughness
from reconstruction.passes.two_pass import filled
from reconstruction.pieces import without_holes
from reconstruction.projection import minimum_projection
from reconstruction.receive_phase import turn_of_ppm, without_curvature
from reconstruction.recipe import Recipe
from reconstruction.reliability import reliable
from reconstruction.rim import without_bone
from reconstruction.steepness import steepness_noise

EXPONENT = 20
"""Of 2, which no scanner's unit reaches: 16 bits and their fourth power are far from float32's 2¹²⁷."""

ON_DEVICE = ("background", "inversion")
"""Stages that are written against the array's own namespace."""


def reconstruct(
    acquisition: Acquisition,
    recipe: Recipe,
    on_stage: Callable[[str], None] | None = None,
    atlas: Atlas | None = None,
    *,
    device: str = "cpu",
) -> Maps:
    """Makes χ, R2* and what lies between from a multi-echo gradient echo.

    on_stage: is told each stage's name when it begins.  atlas: what the stage `regions` lays the brain over; without
    one there are no regions.  device: one of `arrays.DEVICES`, on which the stages of
    ON_DEVICE run; the others are loops of the CPU.  Raises NotReconstructible when no brain or signal is found,
    DeviceUnavailable when the device is not there.
    """
    move = mover(device)
    timings: dict[str, float] = {}

    def run(name: str, **data: Any) -> Any:
        """What the stage's method makes of the data; None where the recipe leaves the stage out."""
        step = recipe.steps.get(name)
        if step is None:
            return None
        if on_stage is not None:
            on_stage(name)
        began = time.perf_counter()
        if name in ON_DEVICE:
            data = {key: move(value) if isinstance(value, np.ndarray) else value for key, value in data.items()}
        result = stage.run(name, step.method, step.settings, data)
        if name in ON_DEVICE:
            result = tuple(map(to_numpy, result)) if isinstance(result, tuple) else to_numpy(result)
        timings[name] = timings.get(name, 0.0) + time.perf_counter() - began
        return result

    magnitude, phase = _of_order_one(acquisition.magnitude), acquisition.phase
    shared: dict[str, Any] = {
        "echo_times": acquisition.echo_times,
        "larmor_frequency": acquisition.larmor_frequency,
        "geometry": acquisition.geometry,
    }
    hz_per_ppm = np.float32(acquisition.larmor_frequency * 1e-6)
    combined = root_sum_of_squares(magnitude)

    _require_signal(magnitude, True, "anywhere")
    with quality.ledger() as ledger:
        curved = (
            len(acquisition.echo_times) == 1
            and recipe.steps["offset"].method != "none"
            and recipe.steps["background"].method != "none"
        )
        if len(acquisition.echo_times) == 1:
            quality.warn(
                "offset: a single echo cannot tell the receivers' phase offset from the field; of what is no "
                f"background {'its even curvature' if curved else 'nothing'} was taken off, and χ holds the rest"
            )
        if "readout" in recipe.steps:
            phase = run("readout", phase=phase, magnitude=magnitude, **shared)
        phase = run("offset", phase=phase, magnitude=magnitude, **shared)
        brain = acquisition.mask
        if brain is None:
            brain = run("mask", phase=phase, magnitude=magnitude, **shared)
        if not brain.any():
            raise NotReconstructible("the brain mask is empty; expected a brain: check magnitude, or supply a mask")
        _require_signal(magnitude, brain, "in the brain")
        if np.may_share_memory(phase, acquisition.phase):  # the caller's, which unwrapping would use up
            phase = phase.copy()
        unwrapped = run("unwrap", phase=phase, magnitude=magnitude, mask=brain, **shared)
        del phase
        field_hz, noise_hz, residual = run("combine", unwrapped=unwrapped, magnitude=magnitude, mask=brain, **shared)
        del unwrapped
        field, noise = field_hz / hz_per_ppm, noise_hz / hz_per_ppm
        quality.figure("combine.noise_ppb", 1000 * float(np.median(noise[brain])))
        trusted = reliable(residual, noise, brain)
        r2star = run("relaxation", magnitude=magnitude, mask=brain, **shared)
        if r2star is not None and not r2star[brain].any():
            quality.warn(
                "relaxation: R2* is 0 in the whole brain; the signal does not decay from echo to echo: check that the "
                "echoes are different images and their times right"
            )
        shared |= {"magnitude": combined, "r2star": r2star}
        first = run("passes", noise=noise, residual=residual, mask=brain, geometry=acquisition.geometry)
        weight_noise = noise * np.maximum(residual, 1)
        if first is None:  # else a pass of its own leaves out what is not trusted, and the other is to show it
            weight_noise = np.where(trusted, weight_noise, np.float32(np.inf))

        def sources_within(mask: BoolArray) -> tuple[FloatArray, BoolArray, FloatArray, FloatArray]:
            """χ, the mask that it holds in, local field and noise, of the field within a mask."""
            whole: dict[str, Any] = {"noise": weight_noise, "mask": mask, "geometry": acquisition.geometry}
            removed = partial(run, "background", magnitude=combined, **whole)
            if curved:
                turn = turn_of_ppm(acquisition.larmor_frequency, acquisition.echo_times[0])
                local_field, mask = without_curvature(field, removed=removed, turn=turn, **whole)
            else:
                local_field, mask = removed(field=field)
            known = mask & np.isfinite(weight_noise)  # elsewhere some methods leave no background to be steep
            noise = np.hypot(weight_noise, steepness_noise(field - local_field, known))
            rough = roughness(local_field, noise, known)
            quality.figure("background.roughness", rough)
            noise *= np.float32(rough)
            chi = run("inversion", local_field=local_field, noise=noise, mask=mask, **shared)
            return (*chi, local_field, noise) if isinstance(chi, tuple) else (chi, mask, local_field, noise)

        chi, mask, local_field, noise = sources_within(brain)
        if first is not None:
            better, held, cleaner, _ = sources_within(first)
            chi, local_field = filled(better, held, chi, mask), np.where(held, cleaner, local_field)
            del better, held, cleaner
        valid = _without_open_holes(mask, trusted)
        regions = None
        if atlas is not None:
            regions = run("regions", atlas=atlas, chi=_within(valid, chi), mask=brain, **shared)
        reference = run("reference", chi=chi, mask=valid & trusted, regions=regions, **shared)
        if reference.mask.any():
            chi = chi - chi[reference.mask].mean()
        if acquisition.mask is None:  # else the site has said what is brain
            valid = without_bone(valid, chi, acquisition.geometry)
        swi = run(
            "weighting",
            **shared | {"magnitude": magnitude, "local_field": local_field * hz_per_ppm, "chi": chi, "mask": valid},
        )
        sources = run(
            "separation",
            **shared, chi=chi, local_field=local_field, noise=noise, mask=valid, reference=reference.name,
        )  # fmt: skip

    chi_para, chi_dia = (None, None) if sources is None else sources
    figures = (
        ledger.figures
        | {
            "echoes": len(acquisition.echo_times),
            "mask.brain_ml": brain.sum() * acquisition.geometry.voxel_volume / 1000,
            "mask.covered": valid.sum() / brain.sum(),
            "mask.excluded": (brain & ~trusted).sum() / brain.sum(),
        }
        | grade.extent(valid, acquisition.geometry)
    )
    if valid.any():
        removed = None if recipe.steps["background"].method == "none" else local_field
        figures |= grade.figures(chi, r2star, removed, combined, valid, acquisition.geometry)
    verdict, grounds = grade.judge(figures)
    return Maps(
        geometry=acquisition.geometry,
        chi=_within(valid, chi),
        r2star=None if r2star is None else _within(brain, r2star),
        field=field,
        local_field=_within(mask, local_field),
        magnitude=combined,
        brain_mask=brain,
        mask=valid,
        reference=reference,
        timings=timings,
        quality={name: float(value) for name, value in figures.items()},
        warnings=tuple(ledger.warnings),
        swi=swi,
        swi_projection=None if swi is None else minimum_projection(swi, valid, acquisition.geometry),
        chi_para=chi_para,
        chi_dia=chi_dia,
        regions=regions,
        grade=verdict,
        grounds=grounds,
    )


def _of_order_one(magnitude: FloatArray) -> FloatArray:
    """The magnitude, and where products of four would leave float32, that over a power of two, which rounds nothing."""
    _, exponent = np.frexp(magnitude.max())
    if abs(exponent) <= EXPONENT:
        return magnitude
    scaled: FloatArray = np.ldexp(magnitude, -exponent)
    return scaled


def _require_signal(magnitude: FloatArray, where: BoolArray | bool, place: str) -> None:
    """Raises NotReconstructible for an echo of zeros: its phase is none, and would be weighed as if it were."""
    silent = [str(number) for number, echo in enumerate(magnitude, 1) if not echo.max(where=where, initial=0)]
    if silent:
        raise NotReconstructible(
            f"of {len(magnitude)} echoes number {', '.join(silent)} has no signal {place}: its magnitude is 0; "
            "expected signal in every echo: check the magnitude images and the mask, or leave that echo out"
        )


def _without_open_holes(mask: BoolArray, trusted: BoolArray) -> BoolArray:
    """The mask without those unreliable voxels that are connected to its outside.

    An unreliable voxel amid reliable ones (a bleed, a vein, a calcification) is determined by the field around it and
    shown; where the signal is lost towards the sinuses, nothing on the far side determines it.
    """
    return without_holes(mask & trusted) & mask


def _within(mask: BoolArray, volume: FloatArray) -> FloatArray:
    return np.where(mask, volume, np.float32(0)).astype(np.float32, copy=False)
