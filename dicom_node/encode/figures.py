"""The figures of a report: susceptibility and R2* over regions, in the units that are reported (ppb, 1/s, mm³)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.encode.anatomy import place
from dicom_node.encode.quantity import QSM, R2STAR, Quantity, values_at
from dicom_node.regions import WHOLE_BRAIN, split
from reconstruction import Maps

OUTER_PERCENTILES = (5, 95)

Box = tuple[slice, ...]


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
    """box: of the volume, in which the region lies.  mask: bool, in the box.  volume: mm³.  covered: the part of the
    structure in which χ is known.  chi: ppb.  r2star: 1/s, None without an R2* map.
    """

    name: str
    box: Box
    mask: NDArray[np.bool_]
    voxels: int
    volume: float
    covered: float
    chi: Summary
    r2star: Summary | None

    def figures(self) -> dict[str, Any]:
        """Everything but name and place, as plain data."""
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
    masks = {WHOLE_BRAIN: _boxed(maps.mask), maps.reference.name: _boxed(maps.reference.mask)}
    if maps.regions is not None and maps.regions.trusted:
        labels, boxes = maps.regions.labels, ndimage.find_objects(maps.regions.labels)
        for number, name in sorted(enumerate(maps.regions.names, start=1), key=lambda item: place(item[1])):
            box = boxes[number - 1] if number <= len(boxes) else None
            masks[name] = None if box is None else (box, labels[box] == number)
    found = (_region(maps, name, *where) for name, where in masks.items() if where is not None)
    return tuple(region for region in found if region is not None)


def _boxed(mask: NDArray[np.bool_]) -> tuple[Box, NDArray[np.bool_]] | None:
    """The smallest box that holds the mask, and the mask in it; None of an empty one."""
    held = ndimage.find_objects(mask.view(np.uint8))
    return (held[0], mask[held[0]]) if held else None


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


def _region(maps: Maps, name: str, box: Box, whole: NDArray[np.bool_]) -> Region | None:
    mask = whole & maps.mask[box]
    voxels = int(np.count_nonzero(mask))
    if voxels == 0:
        return None

    def summary(quantity: Quantity) -> Summary:
        return _summary(values_at(maps, quantity, box, mask))

    return Region(
        name=name,
        box=box,
        mask=mask,
        voxels=voxels,
        volume=voxels * maps.geometry.voxel_volume,
        covered=voxels / int(np.count_nonzero(whole)),
        chi=summary(QSM),
        r2star=None if maps.r2star is None else summary(R2STAR),
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
