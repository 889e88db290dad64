"""The table of subcortical nuclei, evaluated on a grid (config/atlas/README.md says whose work it is)."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).parents[2] / "config" / "atlas" / "icbm152" / "mixtures.csv"

REACH_MM = 14.0
"""A Gaussian of the table (largest variance about 20 mm²) adds nothing to its structure beyond three deviations."""


def nuclei(table: Path = TABLE) -> dict[str, NDArray[np.float64]]:
    """ "putamen_left" → (component, 12): threshold, weight, mean (3), xx, yy, zz, xy, xz, yz in mm and mm²."""
    rows = defaultdict(list)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            name = f"{row.pop('structure')}_{row.pop('side')}"
            rows[name].append([float(value) for value in row.values()])
    return {name: np.array(values) for name, values in rows.items()}


def membership(
    components: NDArray[np.float64], axes: tuple[NDArray[np.float64], ...]
) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    """A structure's fraction of each voxel, from 0 to 1 with an edge about a millimetre wide.

    axes: mm along R, A, S of a regular grid.  Returns the box of the grid that the structure touches, and the fraction
    in it: the ratio of density to threshold p crosses 1 at the surface, where |∇ log p| is about 1/mm.
    """
    means = components[:, 2:5]
    box = tuple(
        slice(*np.searchsorted(axis, (low - REACH_MM, high + REACH_MM)))
        for axis, low, high in zip(axes, means.min(0), means.max(0), strict=True)
    )
    x = np.stack(np.meshgrid(*(axis[part] for axis, part in zip(axes, box, strict=True)), indexing="ij"), axis=-1)
    density = np.zeros(x.shape[:-1])
    for _, weight, *rest in components:
        mean, (xx, yy, zz, xy, xz, yz) = np.array(rest[:3]), rest[3:]
        covariance = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        d = x - mean
        exponent = -0.5 * np.einsum("...i,ij,...j", d, np.linalg.inv(covariance), d, optimize=True)
        density += weight * np.exp(exponent) / np.sqrt((2 * np.pi) ** 3 * np.linalg.det(covariance))
    ratio = np.log(np.maximum(density, 1e-30) / components[0, 0])
    return box, np.clip(0.5 + ratio, 0, 1).astype(np.float32)
