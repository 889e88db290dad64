"""What a map shows of a lesion: it may be right in every nucleus and wrong in what is looked for."""

from __future__ import annotations

import numpy as np

from reconstruction import Maps
from reconstruction.acquisition import BoolArray
from tests.simulation import tissue
from tests.simulation.head import BLEED_MM, CALCIFICATION_MM, SimulatedHead

LESIONS = (("bleed", BLEED_MM, tissue.BLEED), ("calcification", CALCIFICATION_MM, tissue.CALCIFICATION))

WARPED_MM = 10.0
"""How far from their place in the canonical head they may lie in one that a seed has made."""


def lesions(head: SimulatedHead) -> dict[str, BoolArray]:
    """The voxels that a lesion fills by half at least, by its name; none where the head has no lesions."""
    places = np.stack(np.meshgrid(*map(np.arange, head.chi.shape), indexing="ij"), -1)
    at = places @ head.affine[:3, :3].T + head.affine[:3, 3]
    found = {}
    for name, (centre, radius), material in LESIONS:
        near = np.linalg.norm(at - centre, axis=-1) < radius + WARPED_MM
        lesion = head.brain_mask & near & (head.chi / material.chi > 0.5)
        if lesion.any():
            found[name] = lesion
    return found


def lesion_means(head: SimulatedHead, maps: Maps) -> dict[str, tuple[float, float]]:
    """Mean χ of each lesion in the map and in truth, ppb, relative to the brain where χ is given."""
    mask = maps.mask & head.brain_mask
    return {
        name: (
            1000 * float(maps.chi[lesion].mean() - maps.chi[mask].mean()),
            1000 * float(head.chi[lesion].mean() - head.chi[mask].mean()),
        )
        for name, lesion in lesions(head).items()
    }
