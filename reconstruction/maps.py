"""What the physics gives back: named volumes with their units, the mask they hold in, and the figures beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from reconstruction.acquisition import BoolArray, FloatArray, Geometry

VOLUMES = {
    "chi": "ppm",
    "r2star": "1/s",
    "field": "ppm",
    "local_field": "ppm",
    "magnitude": "1",
}
"""Every volume that `Maps` holds, with its unit."""


@dataclass(frozen=True)
class Reference:
    """The zero of the susceptibility scale.

    name: "csf", "whole_brain", ….  mask: bool (x, y, z).  mean, sd: ppm, of the region relative to the whole-brain
    mean, before χ was shifted (what the consensus asks a report to state, doi:10.1002/mrm.30006).
    """

    name: str
    mask: BoolArray
    mean: float
    sd: float


@dataclass(frozen=True, eq=False)
class Maps:
    """The result of one reconstruction.

    All volumes are float32 (x, y, z), 0 outside `mask` (magnitude and field: everywhere they are known).
    chi: ppm relative to `reference`.  r2star: 1/s (None for a single echo).  field: unwrapped total field, ppm.
    local_field: background removed, ppm.  magnitude: root sum of squares over echoes, arbitrary unit.
    brain_mask: the brain as found; mask: where χ is valid (eroded, unreliable voxels excluded).
    timings: seconds by stage.  quality: named figures.  warnings: sentences for the report.
    """

    geometry: Geometry
    chi: FloatArray
    r2star: FloatArray | None
    field: FloatArray
    local_field: FloatArray
    magnitude: FloatArray
    brain_mask: BoolArray
    mask: BoolArray
    reference: Reference
    timings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    quality: Mapping[str, float] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
