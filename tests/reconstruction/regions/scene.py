"""A head and an atlas on coarse grids: what a registration needs for a second."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from dicom_node.atlas import read_atlas
from reconstruction import Atlas, Geometry, Regions, quality
from reconstruction.acquisition import FloatArray
from reconstruction.regions.atlas import atlas as by_atlas
from tests.simulation.head import SimulatedHead
from tests.simulation.scenes import small_head

STEP_MM = 4.0


@lru_cache(maxsize=1)
def coarse_atlas() -> Atlas:
    """The default atlas at 4 mm."""
    fine = read_atlas("icbm152")
    affine = np.array(fine.affine) @ np.diag([2.0, 2.0, 2.0, 1.0])
    labels = None if fine.labels is None else fine.labels[::2, ::2, ::2]
    return Atlas(
        "icbm152",
        tuple(tuple(row) for row in affine.tolist()),
        fine.brain[::2, ::2, ::2],
        {name: image[::2, ::2, ::2] for name, image in fine.tissues.items()},
        fine.mixtures,
        labels,
        fine.label_names,
    )


def volumes(head: SimulatedHead) -> dict[str, Any]:
    """What the stage is given of a head whose maps are the truth."""
    magnitude = np.sqrt((head.acquisition.magnitude**2).sum(0))
    chi = np.where(head.brain_mask, head.chi, 0).astype(np.float32)
    return {"magnitude": magnitude, "chi": chi, "r2star": head.r2star, "mask": head.brain_mask}


def regions_of(changed: dict[str, Any] | None = None, **settings: Any) -> Regions:
    """The regions of the small head, with some of its volumes or its geometry changed."""
    head = small_head()
    data = volumes(head) | {"geometry": head.acquisition.geometry} | (changed or {})
    return by_atlas(coarse_atlas(), **data, **settings)


@lru_cache(maxsize=1)
def plain() -> tuple[Regions, quality.Ledger]:
    """The regions of the small head as it is, made once, and what was said of them."""
    with quality.ledger() as ledger:
        return regions_of(), ledger


def with_affine(geometry: Geometry, affine: FloatArray) -> dict[str, Any]:
    """Everything of a geometry that its affine tells."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    b0 = affine[2, :3] / steps
    rows = tuple(tuple(row) for row in affine.tolist())
    return {"geometry": Geometry(geometry.shape, tuple(steps.tolist()), tuple(b0.tolist()), rows)}


def dice(regions: Regions, head: SimulatedHead, name: str) -> float:
    """Of a structure, the worse of its sides."""
    found = [(regions.mask(f"{side}_{name}"), head.labels[f"{name}_{side}"]) for side in ("left", "right")]
    return float(min(2 * (f & t).sum() / (f.sum() + t.sum()) for f, t in found))
