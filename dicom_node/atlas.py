"""Reads an atlas from its folder.  config/atlas/README.md says what the folder holds."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from dicom_node.config import config_folder
from dicom_node.errors import InvalidConfiguration
from reconstruction import Atlas, InvalidAtlas, Mixture

NUMBERS = ("threshold", "weight", "x_mm", "y_mm", "z_mm", "cov_xx", "cov_yy", "cov_zz", "cov_xy", "cov_xz", "cov_yz")
"""The columns of a mixture's table beside structure and side."""

GRID_TOLERANCE_MM = 1e-3
"""By which the affines of an atlas' images may differ: float32 in a NIfTI header."""


def atlas_folder(name: str) -> Path:
    """The folder of an atlas, by name or path.  Raises InvalidConfiguration with the names there are."""
    ours = config_folder() / "atlas"
    if "/" not in name and (ours / name).is_dir():
        return ours / name
    if (path := Path(name).expanduser()).is_dir():
        return path
    known = ", ".join(sorted(p.name for p in ours.iterdir() if p.is_dir())) or "(none)"
    raise InvalidConfiguration(f"atlas {name!r} is neither a folder nor one of: {known}")


def read_atlas(name: str) -> Atlas:
    """The atlas of a name or folder.  Raises InvalidConfiguration with what is wrong in which file."""
    folder = atlas_folder(name)
    brain, affine = _image(folder / "brain.nii.gz")
    try:
        tissues = {
            path.name.removesuffix(".nii.gz"): _on_the_grid(path, affine).astype(np.float32)
            for path in sorted(folder.glob("*.nii.gz"))
            if path.name not in ("brain.nii.gz", "labels.nii.gz")
        }
        drawn = folder / "labels.nii.gz"
        return Atlas(
            name=name,
            affine=tuple(tuple(row) for row in affine.tolist()),
            brain=brain > 0,
            tissues={tissue: image / image.max() if image.max() > 1 else image for tissue, image in tissues.items()},
            mixtures=_mixtures(folder / "mixtures.csv"),
            labels=_on_the_grid(drawn, affine).astype(np.int32) if drawn.exists() else None,
            label_names=_names(folder / "labels.csv") if drawn.exists() else {},
        )
    except InvalidAtlas as error:
        raise InvalidConfiguration(f"{folder}: {error}; config/atlas/README.md says what belongs there") from error


def _image(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Values after scaling, in voxels whose axes run right, front, top as nearly as they can; and their affine."""
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        values = np.asarray(image.dataobj)
    except (OSError, ImageFileError, ValueError) as error:
        raise InvalidConfiguration(f"{path} cannot be read as NIfTI: {error}") from error
    if values.ndim != 3 or not np.isfinite(values).all():
        raise InvalidConfiguration(f"{path} has the shape {values.shape}; expected a volume of finite numbers")
    return values, np.asarray(image.affine, np.float64)


def _on_the_grid(path: Path, affine: NDArray[np.float64]) -> NDArray[Any]:
    values, own = _image(path)
    if np.abs(own - affine).max() > GRID_TOLERANCE_MM:
        raise InvalidConfiguration(f"{path} lies on another grid than brain.nii.gz; resample it to that grid")
    return values


def _mixtures(path: Path) -> dict[str, Mixture]:
    """The regions of a table, one component in each row; none where there is no table."""
    components: dict[str, list[list[float]]] = defaultdict(list)
    for row in _rows(path):
        try:
            name = "_".join(part for part in (row["side"], row["structure"]) if part)
            components[name].append([float(row[column]) for column in NUMBERS])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidConfiguration(f"{path}: a row lacks a number ({error}); see config/atlas/README.md") from error
    return {name: _mixture(np.array(rows)) for name, rows in components.items()}


def _mixture(rows: NDArray[np.float64]) -> Mixture:
    xx, yy, zz, xy, xz, yz = rows[:, 5:].T
    covariances = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]).transpose(2, 0, 1)
    return Mixture(float(rows[0, 0]), rows[:, 1], rows[:, 2:5], covariances)


def _names(path: Path) -> dict[int, str]:
    try:
        return {int(row["number"]): row["name"].strip() for row in _rows(path)}
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise InvalidConfiguration(f"{path}: expected a number and a name in every row, found {error}") from error


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
