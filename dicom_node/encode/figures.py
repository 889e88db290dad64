"""The figures of a report: susceptibility and R2* over regions, in the units that are reported (ppb, 1/s, ml)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.encode.quantity import QSM, R2STAR, Quantity, values
from reconstruction import Maps

WHOLE_BRAIN = "whole_brain"
MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class Summary:
    """Over the voxels of a region, in the quantity's unit; sd is that of the population (divided by n)."""

    mean: float
    sd: float
    median: float
    minimum: float
    maximum: float


@dataclass(frozen=True, eq=False)
class Region:
    """mask: bool (x, y, z).  volume: ml.  chi: ppb.  r2star: 1/s, None without an R2* map."""

    name: str
    mask: NDArray[np.bool_]
    voxels: int
    volume: float
    chi: Summary
    r2star: Summary | None

    def figures(self) -> dict[str, Any]:
        """Everything but name and mask, as plain data."""
        return {
            "voxels": self.voxels,
            "volume": self.volume,
            "chi": asdict(self.chi),
            "r2star": None if self.r2star is None else asdict(self.r2star),
        }


def regions(maps: Maps) -> tuple[Region, ...]:
    """The whole brain, as far as χ is valid in it, and the reference region; none is empty.

    Where the whole brain is the reference it is the voxels that were averaged: the reliable ones, whose mean is 0.
    """
    masks = {WHOLE_BRAIN: maps.mask, maps.reference.name: maps.reference.mask & maps.mask}
    return tuple(_region(maps, name, mask) for name, mask in masks.items() if mask.any())


def _region(maps: Maps, name: str, mask: NDArray[np.bool_]) -> Region:
    voxels = int(np.count_nonzero(mask))
    return Region(
        name=name,
        mask=mask,
        voxels=voxels,
        volume=voxels * maps.geometry.voxel_volume / MM3_PER_ML,
        chi=_summary(maps, QSM, mask),
        r2star=None if maps.r2star is None else _summary(maps, R2STAR, mask),
    )


def _summary(maps: Maps, quantity: Quantity, mask: NDArray[np.bool_]) -> Summary:
    inside = values(maps, quantity)[mask]
    return Summary(
        mean=float(inside.mean()),
        sd=float(inside.std()),
        median=float(np.median(inside)),
        minimum=float(inside.min()),
        maximum=float(inside.max()),
    )
