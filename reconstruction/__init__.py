"""Quantitative susceptibility mapping: arrays in, maps out.  Knows no DICOM, no files, no network, no database."""

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
