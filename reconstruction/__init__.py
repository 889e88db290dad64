"""Quantitative susceptibility mapping: arrays in, maps out.  Knows no DICOM, no files, no network, no database."""

from reconstruction.acquisition import GYROMAGNETIC_RATIO, Acquisition, Geometry
from reconstruction.errors import (
    DeviceUnavailable,
    InvalidAcquisition,
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
    "DeviceUnavailable",
    "Evidence",
    "Geometry",
    "InvalidAcquisition",
    "InvalidRecipe",
    "Maps",
    "NotReconstructible",
    "Plausibility",
    "Recipe",
    "ReconstructionError",
    "Reference",
    "Regions",
    "Step",
    "Verdict",
    "check_phase",
    "reconstruct",
]
