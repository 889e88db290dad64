"""From what is stored to phase as the physics wants it: scale, sign and polarity, and the reason for each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dicom_node.convert.matrix import POLAR
from dicom_node.convert.override import Override
from dicom_node.convert.polarity import alternates, turn_every_second
from dicom_node.convert.reader import Reader, Scale, the_one_that_fits
from dicom_node.errors import NotConvertible
from dicom_node.model import Component

PHASE_LIMIT = 1.01 * math.pi
"""Phase beyond this was not what its scale said (Philips' π is 3.142)."""

_AXES = ("columns", "rows", "slices")


@dataclass
class Findings:
    """What was decided about the phase of one acquisition, in sentences; sets that keep their order."""

    warnings: dict[str, None] = field(default_factory=dict)
    decisions: dict[str, None] = field(default_factory=dict)


def require_one_turn(phase: NDArray[np.float32]) -> None:
    """Raises NotConvertible for phase (rad) beyond −π…π.  NaN is not looked at."""
    # fmax and fmin pass NaN over, as nanmax does at twice the time
    furthest = float(max(np.fmax.reduce(phase, axis=None, initial=0), -np.fmin.reduce(phase, axis=None, initial=0)))
    if furthest > PHASE_LIMIT:
        raise NotConvertible(
            f"phase reaches {furthest:.4g} rad after the vendor's rule; expected −π…π: the images were not "
            "stored as their header says"
        )


def scaled(stored: NDArray[np.float32], candidates: tuple[Scale, ...], findings: Findings) -> None:
    """Brings stored phase to radian in place by the candidate that fits its range.  NaN is left."""
    lowest, highest = float(np.nanmin(stored)), float(np.nanmax(stored))
    scale = the_one_that_fits(candidates, lowest, highest)
    stored *= np.float32(scale.slope)
    stored += np.float32(scale.intercept)
    findings.warnings[
        "the scale of phase is not in the header; it was inferred from the stored values, which run from "
        f"{lowest:g} to {highest:g}: {_law(scale)}"
    ] = None


def say_scale(scale: Scale, override: Override, findings: Findings) -> None:
    why = "as configured for this scanner" if override.half_turn is not None else "by the header"
    findings.decisions[f"phase = {_law(scale)}, {why}"] = None


def _law(scale: Scale) -> str:
    return f"{scale.slope:.6g} × stored {scale.intercept:+.6g} rad"


def polar(
    components: tuple[Component, Component],
    volumes: dict[Component, NDArray[np.float32]],
    reader: Reader,
    override: Override,
    findings: Findings,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Magnitude and phase (rad) with this project's sign, neighbouring planes of one polarity; reuses the volumes."""
    first, second = (volumes[component] for component in components)
    if components == POLAR:
        magnitude, phase = first, second
    else:
        findings.decisions["phase and magnitude are those of the real and imaginary parts"] = None
        phase = np.arctan2(second, first)
        magnitude = np.hypot(first, second, out=first)
    if _sign(reader, override, findings) < 0:
        np.negative(phase, out=phase)
    for axis in reader.ALTERNATING:
        if alternates(magnitude, phase, axis):
            turn_every_second(phase, axis)
            findings.decisions[f"neighbouring {_AXES[axis]} alternated in sign; every second one was turned"] = None
    return magnitude, phase


def _sign(reader: Reader, override: Override, findings: Findings) -> int:
    sign = {"keep": 1, "flip": -1, "auto": reader.SIGN}[override.sign]
    why = f"as {reader.__name__.rpartition('.')[2]} writes it" if override.sign == "auto" else "as configured"
    findings.decisions[f"sign: {'conjugate of what is stored' if sign < 0 else 'as stored'}, {why}"] = None
    return sign
