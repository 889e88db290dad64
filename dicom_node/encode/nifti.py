"""The maps as NIfTI files for those who compute on: chi and fields in ppm, R2* in 1/s, patient RAS in mm."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from reconstruction import Maps

SCANNER = 1
"""qform and sform code NIFTI_XFORM_SCANNER_ANAT: coordinates of the scanner (nifti1.h)."""

NAMES = ("chi", "r2star", "field", "local_field", "mask", "magnitude")


def remove_nifti(folder: Path) -> None:
    """Removes the volumes of an earlier run: they must not lie beside the report of the next."""
    for name in NAMES:
        (folder / f"{name}.nii.gz").unlink(missing_ok=True)


def write_nifti(maps: Maps, affine: NDArray[np.float64], folder: Path) -> list[Path]:
    """Writes chi, r2star, field, local_field, mask and magnitude as `<name>.nii.gz`; returns their paths.

    affine: 4×4, voxel index → patient RAS mm.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str) -> Path:
        volume = getattr(maps, name)
        image = nib.Nifti1Image(volume.astype(np.uint8) if name == "mask" else volume, affine)
        image.set_qform(affine, SCANNER)
        image.set_sform(affine, SCANNER)
        image.header.set_xyzt_units("mm")
        path = folder / f"{name}.nii.gz"
        nib.save(image, path)
        return path

    # Compression takes nearly all of the time, and lets other threads run meanwhile.
    with ThreadPoolExecutor() as threads:
        return list(threads.map(save, [name for name in NAMES if getattr(maps, name) is not None]))
