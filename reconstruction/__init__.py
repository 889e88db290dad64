"""Quantitative susceptibility mapping: arrays in, maps out.  Knows no DICOM, no files, no network, no database."""

import os

from reconstruction.acquisition import GYROMAGNETIC_RATIO, Acquisition, Geometry
from reconstruction.arrays import mover
from reconstruction.atlas import Atlas, Mixture
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
    "mover",
    "reconstruct",
]
