"""Quantitative susceptibility mapping: arrays in, maps out.  Knows no DICOM, no files, no network, no database.

What stands here is loaded when it is first asked for (PEP 562): whoever holds a recipe needs no compiler for it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconstruction.acquisition import GYROMAGNETIC_RATIO, Acquisition, Geometry
    from reconstruction.arrays import mover
    from reconstruction.atlas import Atlas, Mixture
    from reconstruction.compiler import load_compiler
    from reconstruction.errors import (
        DeviceUnavailable,
        InvalidAcquisition,
        InvalidAtlas,
        InvalidRecipe,
        NotReconstructible,
        ReconstructionError,
    )
    from reconstruction.evidence import Evidence, Verdict
    from reconstruction.maps import Maps, Reference, Regions
    from reconstruction.pipeline import reconstruct
    from reconstruction.plausibility import Plausibility, check_phase
    from reconstruction.recipe import Recipe, Step

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Read when the first loop of numba's runs.  Without it OpenMP's threads spin for milliseconds after every loop, on the
# core that a transform, or another job, needs.

__all__ = [
    "GYROMAGNETIC_RATIO",
    "Acquisition",
    "Atlas",
    "DeviceUnavailable",
    "Evidence",
    "Geometry",
    "InvalidAcquisition",
    "InvalidAtlas",
    "InvalidRecipe",
    "Maps",
    "Mixture",
    "NotReconstructible",
    "Plausibility",
    "Recipe",
    "ReconstructionError",
    "Reference",
    "Regions",
    "Step",
    "Verdict",
    "check_phase",
    "load_compiler",
    "mover",
    "reconstruct",
]

_HOMES = {
    "Acquisition": "acquisition",
    "Atlas": "atlas",
    "DeviceUnavailable": "errors",
    "Evidence": "evidence",
    "GYROMAGNETIC_RATIO": "acquisition",
    "Geometry": "acquisition",
    "InvalidAcquisition": "errors",
    "InvalidAtlas": "errors",
    "InvalidRecipe": "errors",
    "Maps": "maps",
    "Mixture": "atlas",
    "NotReconstructible": "errors",
    "Plausibility": "plausibility",
    "Recipe": "recipe",
    "ReconstructionError": "errors",
    "Reference": "maps",
    "Regions": "maps",
    "Step": "recipe",
    "Verdict": "evidence",
    "check_phase": "plausibility",
    "load_compiler": "compiler",
    "mover": "arrays",
    "reconstruct": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
