"""An atlas: what an average brain is made of, where, and what its parts are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reconstruction.acquisition import Affine, BoolArray, FloatArray
from reconstruction.errors import InvalidAtlas


@dataclass(frozen=True, eq=False)
class Mixture:
    """A structure as a mixture of K Gaussians: it is where Σ weight · N(x; mean, covariance) ≥ threshold.

    threshold: 1/mm³.  weights: (K,).  means: (K, 3), mm.  covariances: (K, 3, 3), mm².
    """

    threshold: float
    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.weights)
        if self.means.shape != (count, 3) or self.covariances.shape != (count, 3, 3) or not count:
            raise InvalidAtlas(f"a mixture has {count} weights, means {self.means.shape}; expected as many of each")
        if not (self.threshold > 0 and (self.weights > 0).all()):
            raise InvalidAtlas("a mixture's threshold or weight is not positive")
        if np.linalg.eigvalsh(self.covariances).min() <= 0:
            raise InvalidAtlas("a mixture's covariance is not positive definite")


@dataclass(frozen=True, eq=False)
class Atlas:
    """A template brain and its regions, in the template's own space.

    name: what a recipe calls it.  affine: voxel of the template → mm (right, front, top).
    tissues: float32 (x, y, z) by name, images that the contrasts of a brain are mixed from: tissue probabilities, or
    the template itself.  brain: bool (x, y, z).  mixtures: by region, "left_caudate".  labels: int (x, y, z), 0 none,
    and what its numbers are called, for regions that are drawn on the template's grid.
    """

    name: str
    affine: Affine
    brain: BoolArray
    tissues: Mapping[str, FloatArray]
    mixtures: Mapping[str, Mixture] = field(default_factory=dict)
    labels: NDArray[np.integer] | None = None
    label_names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {name: image.shape for name, image in self.tissues.items()}
        if self.labels is not None:
            shapes["labels"] = self.labels.shape
        odd = {name: shape for name, shape in shapes.items() if shape != self.brain.shape}
        if odd or not self.tissues:
            raise InvalidAtlas(f"atlas {self.name!r} has images of {odd}; expected at least one, of {self.brain.shape}")
        if np.array(self.affine).shape != (4, 4) or not np.linalg.det(np.array(self.affine)) > 0:
            raise InvalidAtlas(f"atlas {self.name!r} has the affine {self.affine}; expected 4×4, right-handed")
        if not self.brain.any():
            raise InvalidAtlas(f"atlas {self.name!r} has an empty template; expected a brain")
        if not self.names:
            raise InvalidAtlas(f"atlas {self.name!r} names no region; expected mixtures, or labels with names")
        if len(self.names) > MOST_REGIONS or len(set(self.names)) < len(self.names):
            raise InvalidAtlas(f"atlas {self.name!r} names {len(self.names)} regions; expected at most 255, each once")

    @property
    def names(self) -> tuple[str, ...]:
        """All regions: the mixtures, then the labels by number."""
        return (*self.mixtures, *(self.label_names[number] for number in sorted(self.label_names)))

    def digest(self) -> str:
        """SHA-256 over all but the name: equal digests make equal regions."""
        found = hashlib.sha256()

        def add(what: str, *arrays: ArrayLike) -> None:
            for array in map(np.ascontiguousarray, arrays):
                found.update(f"{what} {array.dtype.str} {array.shape}\n".encode())
                found.update(array.tobytes())

        add("affine", self.affine)
        add("brain", self.brain)
        for name, image in self.tissues.items():
            add(f"tissue {name}", image)
        for name, mixture in self.mixtures.items():
            add(f"mixture {name}", mixture.threshold, mixture.weights, mixture.means, mixture.covariances)
        if self.labels is not None:
            add("labels", self.labels)
        found.update(json.dumps(sorted(self.label_names.items())).encode())
        return found.hexdigest()


MOST_REGIONS = 255
"""Regions are numbered in eight bits."""


def structure(name: str) -> str:
    """What the two sides of a structure have in common: "left_caudate" → "caudate"."""
    return name.removeprefix("left_").removeprefix("right_")
