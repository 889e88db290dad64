"""Named scenes: the same heads for tests, the demo and the benchmarks."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from tests.simulation.ellipsoids import simulate_ellipsoids
from tests.simulation.head import SimulatedHead, about_x, simulate_head

FIVE_ECHOES = (4e-3, 10e-3, 16e-3, 22e-3, 28e-3)
SKYRA_3T, AERA_1T5, TERRA_7T = 123.25e6, 63.67e6, 297.2e6
"""Proton frequencies of Siemens' magnets of 3, 1.5 and 7 T, Hz."""

SCENES: dict[str, dict[str, Any]] = {
    "quick": {"shape": (96, 120, 64), "voxel_size": (2.0, 2.0, 2.0), "seed": 1},
    "standard": {"shape": (192, 240, 128), "voxel_size": (1.0, 1.0, 1.5), "seed": 2},
    "1.5T": {
        "shape": (128, 160, 80),
        "voxel_size": (1.5, 1.5, 2.0),
        "echo_times": (5e-3, 14e-3, 23e-3, 32e-3, 41e-3),
        "larmor_frequency": AERA_1T5,
        "snr": 40.0,
        "seed": 3,
    },
    "7T": {
        "shape": (160, 200, 112),
        "voxel_size": (1.2, 1.2, 1.2),
        "echo_times": (3e-3, 7e-3, 11e-3, 15e-3, 19e-3),
        "larmor_frequency": TERRA_7T,
        "seed": 4,
    },
    "oblique": {"shape": (128, 160, 96), "voxel_size": (1.5, 1.5, 1.5), "rotation": about_x(30), "seed": 5},
    "anisotropic": {"shape": (240, 300, 48), "voxel_size": (0.8, 0.8, 3.0), "seed": 6},
    "sharp-3T": {"shape": (128, 160, 96), "voxel_size": (1.5, 1.5, 1.5), "sharpening": 2.5, "seed": 8},
    "sharp-7T": {
        "shape": (160, 200, 112),
        "voxel_size": (1.2, 1.2, 1.2),
        "echo_times": (3e-3, 7e-3, 11e-3, 15e-3, 19e-3),
        "larmor_frequency": TERRA_7T,
        "sharpening": 2.5,
        "seed": 4,
    },
    "lesions": {"shape": (128, 160, 96), "voxel_size": (1.5, 1.5, 1.5), "lesions": True, "seed": 7},
    "slab": {"shape": (112, 139, 37), "voxel_size": (1.7, 1.7, 1.7), "sharpening": 2.5, "seed": 9},
    "uneven-echoes": {
        "shape": (113, 137, 89),
        "voxel_size": (1.7, 1.7, 1.7),
        "echo_times": (5e-3, 12e-3, 24e-3),
        "sharpening": 2.5,
        "seed": 10,
    },
    "single-echo": {"shape": (113, 137, 89), "voxel_size": (1.7, 1.7, 1.7), "echo_times": (18e-3,), "seed": 12},
    "plain-3T": {"made_by": simulate_ellipsoids, "shape": (128, 160, 104), "voxel_size": (1.5, 1.5, 1.5), "seed": 1},
    "plain-oblique": {
        "made_by": simulate_ellipsoids,
        "shape": (128, 160, 112),
        "voxel_size": (1.5, 1.5, 1.5),
        "rotation": about_x(30),
        "seed": 2,
    },
}
"""Arguments of `simulate_head`, or of what the scene says that it is made by; 3 T, five echoes and an SNR of 60 unless
it says otherwise."""


def scene(name: str) -> SimulatedHead:
    """Simulates a scene of SCENES."""
    settings: dict[str, Any] = {"echo_times": FIVE_ECHOES, "larmor_frequency": SKYRA_3T, "snr": 60.0} | SCENES[name]
    made_by = settings.pop("made_by", simulate_head)
    head: SimulatedHead = made_by(**settings)
    return head


@lru_cache(maxsize=1)
def small_head() -> SimulatedHead:
    """A head of 3 mm voxels and three echoes on an oblique slab; made once in a process, so do not write to it."""
    return simulate_head(
        (64, 80, 44), (3.0, 3.0, 3.0), (4e-3, 11e-3, 18e-3), SKYRA_3T, snr=60.0, rotation=about_x(15), seed=11
    )


@lru_cache(maxsize=1)
def thin_head() -> SimulatedHead:
    """Eight slices through the middle of `small_head`: enough for what is written file by file."""
    return slices_of(small_head(), slice(18, 26))


def slices_of(head: SimulatedHead, part: slice) -> SimulatedHead:
    """A head of fewer slices.  part: without a step."""
    acquisition = head.acquisition
    start, stop, _ = part.indices(acquisition.geometry.shape[2])
    affine = head.affine.copy()
    affine[:, 3] = head.affine @ [0, 0, start, 1]
    shape = (*acquisition.geometry.shape[:2], stop - start)
    return SimulatedHead(
        acquisition=replace(
            acquisition,
            magnitude=np.ascontiguousarray(acquisition.magnitude[..., part]),
            phase=np.ascontiguousarray(acquisition.phase[..., part]),
            geometry=replace(acquisition.geometry, shape=shape, affine=tuple(tuple(row) for row in affine.tolist())),
        ),
        chi=head.chi[..., part],
        brain_mask=head.brain_mask[..., part],
        inside_skull=head.inside_skull[..., part],
        head_mask=head.head_mask[..., part],
        labels={name: label[..., part] for name, label in head.labels.items()},
        field=head.field[..., part],
        r2star=head.r2star[..., part],
        affine=affine,
        seed=head.seed,
    )
