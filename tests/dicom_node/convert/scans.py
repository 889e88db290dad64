"""Small scans of noise, for what does not depend on what a head looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.convert import Source, convert, describe
from dicom_node.group import group
from dicom_node.model import Group
from reconstruction import Acquisition, Geometry
from tests.simulation.head import SimulatedHead

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])

AXIAL = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
SAGITTAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
CORONAL = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
DOWNWARDS = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
"""Columns: the patient's R, A, S directions along which column, row and slice numbers grow."""


def rotated(axes: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Oblique: turned about an axis that lies along none of the patient's."""
    axis = np.array([0.6, 0.8, 0.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return np.asarray(turn @ axes)


def noise(
    axes: NDArray[np.float64] = AXIAL,
    shape: tuple[int, int, int] = (7, 6, 5),
    voxel_size: tuple[float, float, float] = (1.25, 0.75, 2.5),
    echo_times: Sequence[float] = (4e-3, 10.7e-3),
    seed: int = 1,
) -> SimulatedHead:
    """A "head" of random numbers on a grid whose axes are the columns of `axes`."""
    random = np.random.default_rng(seed)
    size = (len(echo_times), *shape)
    affine = np.eye(4)
    affine[:3, :3] = axes * voxel_size
    affine[:3, 3] = [31.5, -12.25, 40.125]
    b0 = axes.T @ [0, 0, 1]
    acquisition = Acquisition(
        magnitude=random.uniform(0, 1, size).astype(np.float32),
        phase=random.uniform(-np.pi, np.pi, size).astype(np.float32),
        echo_times=tuple(echo_times),
        larmor_frequency=123.2e6,
        geometry=Geometry(shape, voxel_size, (float(b0[0]), float(b0[1]), float(b0[2]))),
    )
    volume = np.zeros(shape, np.float32)
    mask = np.ones(shape, np.bool_)
    return SimulatedHead(acquisition, volume, mask, mask, mask, {}, volume, volume, affine, seed)


def groups(paths: Sequence[Path]) -> list[Group]:
    """What the stored files make long after they came."""
    return group([describe(path, 0.0, "1") for path in paths], 1e4, 60.0, frozenset())


def converted(paths: Sequence[Path]) -> tuple[Acquisition, Source]:
    (found,) = groups(paths)
    return convert(found)


def edit(path: Path, change: Callable[[Dataset], object]) -> None:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


def edited(paths: list[Path], change: Callable[[Dataset], object]) -> list[Path]:
    for path in paths:
        edit(path, change)
    return paths
