"""Quantitative susceptibility mapping: arrays in, maps out.  Knows no DICOM, no files, no network, no database."""

from reconstruction.acquisition import Acquisition, Geometry
from reconstruction.errors import InvalidAcquisition, InvalidRecipe, NotReconstructible, ReconstructionError
from reconstruction.maps import Maps, Reference
from reconstruction.pipeline import reconstruct
from reconstruction.recipe import Recipe, Step

__all__ = [
    "Acquisition",
    "Geometry",
    "InvalidAcquisition",
    "InvalidRecipe",
    "Maps",
    "NotReconstructible",
    "Recipe",
    "ReconstructionError",
    "Reference",
    "Step",
    "reconstruct",
]
