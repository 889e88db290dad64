"""The figures of a report: susceptibility and R2* over regions, in the units that are reported (ppb, 1/s, mm³)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.encode.anatomy import WHOLE_BRAIN, place, split
from dicom_node.encode.quantity import QSM, R2STAR, values
from reconstruction import Maps

OUTER_PERCENTILES = (5, 95)


@dataclass(frozen=True)
class Summary:
    """Over the voxels of a region, in the quantity's unit; sd is that of the population (divided by n).

    p5, p95: percentiles, linear between order statistics.
    """

    mean: float
    sd: float
    median: float
    p5: float
    p95: float
    minimum: float
    maximum: float


@dataclass(frozen=True, eq=False)
class Region:
    """mask: bool (x, y, z).  volume: mm³.  covered: the part of the structure in which χ is known.  chi: ppb.

    r2star: 1/s, None without an R2* map.
    """

    name: str
    mask: NDArray[np.bool_]
    voxels: int
    volume: float
    covered: float
    chi: Summary
    r2star: Summary | None

    def figures(self) -> dict[str, Any]:
        """Everything but name and mask, as plain data."""
        return {
            "voxels": self.voxels,
            "volume": self.volume,
            "covered": self.covered,
            "chi": asdict(self.chi),
            "r2star": None if self.r2star is None else asdict(self.r2star),
        }


@dataclass(frozen=True)
class Asymmetry:
    """Left minus right of one structure.  chi: ppb.  r2star: 1/s.  volume: percent of the mean of both sides."""

    structure: str
    chi: float
    r2star: float | None
    volume: float


def regions(maps: Maps) -> tuple[Region, ...]:
    """The whole brain, as far as χ is valid in it, the reference region, the structures of the atlas; none is empty.

    Where the whole brain is the reference it is the voxels that were averaged: the reliable ones, whose mean is 0.
    Of regions that are not trusted there is none: `Regions.reason` says why.
    """
    masks = {WHOLE_BRAIN: maps.mask, maps.reference.name: maps.reference.mask}
    if maps.regions is not None and maps.regions.trusted:
        named = sorted(enumerate(maps.regions.names, start=1), key=lambda item: place(item[1]))
        masks |= {name: maps.regions.labels == number for number, name in named}
    chi = values(maps, QSM)
    r2star = None if maps.r2star is None else values(maps, R2STAR)
    return tuple(_region(maps, name, mask, chi, r2star) for name, mask in masks.items() if (mask & maps.mask).any())


def asymmetries(found: Sequence[Region]) -> tuple[Asymmetry, ...]:
    """Of every structure that was found on both sides, in the order of the regions."""
    by_name = {region.name: region for region in found}
    pairs = [
        (structure, left, by_name[f"right_{structure}"])
        for left in found
        for structure, side in [split(left.name)]
        if side == "left" and f"right_{structure}" in by_name
    ]
    return tuple(
        Asymmetry(
            structure=structure,
            chi=left.chi.mean - right.chi.mean,
            r2star=left.r2star.mean - right.r2star.mean if left.r2star and right.r2star else None,
            volume=200 * (left.volume - right.volume) / (left.volume + right.volume),
        )
        for structure, left, right in pairs
    )


def _region(
    maps: Maps,
    name: str,
    whole: NDArray[np.bool_],
    chi: NDArray[np.float64],
    r2star: NDArray[np.float64] | None,
) -> Region:
    mask = whole & maps.mask
    voxels = int(np.count_nonzero(mask))
    return Region(
        name=name,
        mask=mask,
        voxels=voxels,
        volume=voxels * maps.geometry.voxel_volume,
        covered=voxels / int(np.count_nonzero(whole)),
        chi=_summary(chi[mask]),
        r2star=None if r2star is None else _summary(r2star[mask]),
    )


def _summary(inside: NDArray[np.float64]) -> Summary:
    p5, median, p95 = np.quantile(inside, (OUTER_PERCENTILES[0] / 100, 0.5, OUTER_PERCENTILES[1] / 100))
    return Summary(
        mean=float(inside.mean()),
        sd=float(inside.std()),
        median=float(median),
        p5=float(p5),
        p95=float(p95),
        minimum=float(inside.min()),
        maximum=float(inside.max()),
    )
