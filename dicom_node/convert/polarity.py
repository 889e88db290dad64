"""Finds and undoes the alternating sign of neighbouring planes that some scanners leave in their complex images.

A Fourier transform whose origin lies in a corner instead of in the middle multiplies the image by (−1)ⁿ along that
axis: GE's 3D "chopping" along the slices [MEDI, SEPIA #92, ROMEO #22], Bruker's along all axes [MEDI].  Nothing in the
header tells, so the planes are asked, in the order of their positions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESEMBLANCE = 0.3
"""Neighbouring planes of a head correlate by 0.8 and more, those of noise by less than 0.1; one that alternates has the
negative of that.  Between −0.3 and 0 nothing is done."""


def correlation(magnitude: NDArray[np.float32], phase: NDArray[np.float32], axis: int) -> float:
    """Re ⟨Sᵢ, Sᵢ₊₁⟩ / ⟨|Sᵢ|, |Sᵢ₊₁|⟩ over all neighbouring planes across `axis` (0, 1, 2) of all echoes.

    magnitude, phase (rad): (echo, x, y, z).  0 where there is no signal or a single plane.
    """
    together, apart = 0.0, 0.0
    for strength, angle in zip(magnitude, phase, strict=True):
        planes, turns = np.moveaxis(strength, axis, 0), np.moveaxis(angle, axis, 0)
        product = planes[1:] * planes[:-1]
        apart += float(product.sum(dtype=np.float64))
        product *= np.cos(turns[1:] - turns[:-1])
        together += float(product.sum(dtype=np.float64))
    return together / apart if apart > 0 else 0.0


def alternates(magnitude: NDArray[np.float32], phase: NDArray[np.float32], axis: int) -> bool:
    """Whether every second plane across `axis` carries −1."""
    return correlation(magnitude, phase, axis) < -RESEMBLANCE


def turn_every_second(phase: NDArray[np.float32], axis: int) -> None:
    """Adds half a turn to every second plane across `axis` of (echo, x, y, z), in place; it stays within ±π."""
    odd = np.moveaxis(phase, axis + 1, 0)[1::2]
    odd -= np.where(odd > 0, np.float32(np.pi), np.float32(-np.pi))
