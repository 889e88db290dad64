"""What the physics gives back: named volumes with their units, the mask they hold in, and the figures beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray, Geometry

VOLUMES = {
    "chi": "ppm",
    "r2star": "1/s",
    "field": "ppm",
    "local_field": "ppm",
    "magnitude": "1",
    "swi": "1",
    "swi_projection": "1",
    "chi_para": "ppm",
    "chi_dia": "ppm",
}
"""Every volume that `Maps` may hold, with its unit."""

Grade = Literal["good", "review", "failed"]


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
class Regions:
    """Anatomical regions of this brain, from an atlas.

    names: "left_caudate", "right_caudate", …, by the patient's left and right.  labels: uint8 (x, y, z); i + 1 is
    names[i], 0 none.  match: named figures of how well the brain fits the atlas' template.  trusted: whether that is
    well enough to read figures from; if not, there are no names, all labels are 0, and reason says what was found.
    cut: regions that the atlas has and the scan has not, or not wholly: nothing is said of them.
    """

    names: tuple[str, ...]
    labels: NDArray[np.uint8]
    match: Mapping[str, float]
    trusted: bool
    reason: str = ""
    cut: tuple[str, ...] = ()

    def mask(self, name: str) -> BoolArray:
        """Bool (x, y, z): one region, or both sides of a structure ("caudate").  Raises KeyError for others."""
        wanted = {name, f"left_{name}", f"right_{name}"}
        numbers = [number for number, known in enumerate(self.names, start=1) if known in wanted]
        if not numbers:
            raise KeyError(f"there is no region {name!r}; expected one of {', '.join(self.names) or '(none)'}")
        wanted_numbers = np.zeros(np.iinfo(self.labels.dtype).max + 1, bool)
        wanted_numbers[numbers] = True
        return wanted_numbers[self.labels]


@dataclass(frozen=True, eq=False)
class Maps:
    """The result of one reconstruction.

    All volumes are float32 (x, y, z), 0 outside `mask` (magnitude and field: everywhere they are known).
    chi: ppm relative to `reference`.  r2star: 1/s (None for a single echo).  field: unwrapped total field, ppm.
    local_field: background removed, ppm.  magnitude: root sum of squares over echoes, arbitrary unit.
    brain_mask: the brain as found; mask: where χ is valid (eroded, unreliable voxels excluded).
    swi, swi_projection: susceptibility-weighted magnitude and its minimum over a slab of slices, arbitrary unit.
    regions: of the atlas, None where the recipe asks for none.
    chi_para, chi_dia: sources above and below zero in ppm, where they were told apart.
    timings: seconds by stage.  quality: named figures.  warnings: sentences for the report.
    grade: what the figures make of the result, and the grounds for anything but "good".
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
    swi: FloatArray | None = None
    swi_projection: FloatArray | None = None
    chi_para: FloatArray | None = None
    chi_dia: FloatArray | None = None
    regions: Regions | None = None
    grade: Grade = "good"
    grounds: tuple[str, ...] = ()
