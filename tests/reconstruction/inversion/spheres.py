"""A coarse brain with spheres in it, and how the methods of inversion are asked about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from reconstruction import Geometry, stage
from reconstruction.acquisition import FloatArray
from tests.reconstruction.sources import AXIAL, OBLIQUE
from tests.reconstruction.test_inversion import SPHERES, contrast, scene

COARSE = Geometry((28, 30, 26), (2.2, 2.2, 2.2), AXIAL)
GEOMETRIES = (
    COARSE,
    Geometry((29, 31, 23), (2.2, 2.2, 2.6), OBLIQUE),
    Geometry((43, 41, 17), (1.5, 1.6, 4.0), AXIAL),
)


def given(geometry: Geometry = COARSE, seed: int = 0) -> dict[str, Any]:
    """What the stage is supplied with: a local field of spheres with noise."""
    field, noise, mask, magnitude, _ = scene(geometry, seed)
    return {"local_field": field, "noise": noise, "mask": mask, "magnitude": magnitude, "geometry": geometry}


def inverted(method: str, data: dict[str, Any], **settings: Any) -> FloatArray:
    """χ by a method with these settings and otherwise its defaults."""
    chi: FloatArray = stage.run("inversion", method, stage.defaults("inversion", method) | settings, data)
    return chi


def contrasts(chi: FloatArray, geometry: Geometry) -> FloatArray:
    """What each sphere has come out as, over what it is."""
    return np.array([contrast(chi, geometry, i) / sphere[2] for i, sphere in enumerate(SPHERES)])
