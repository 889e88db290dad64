"""A head so simple that it costs nothing: for tests of the line, where what the map shows does not matter.

An ellipsoid of brain in a dark skull in a bright scalp, with one iron-rich ball; the field is that of the ball alone,
in closed form.  `tests.simulation.head` is the one to judge maps by.
"""

from __future__ import annotations

import numpy as np

from reconstruction import Acquisition, Geometry
from tests.simulation.head import SimulatedHead

SHAPE = (40, 48, 20)
VOXEL_MM = 4.0
ECHO_TIMES = (0.006, 0.014, 0.022)
LARMOR_FREQUENCY = 123.2e6
BRAIN_MM, SKULL_MM, SCALP_MM = (60.0, 74.0, 52.0), 6.0, 12.0
"""Half axes of the brain; how far skull and scalp reach beyond it."""
BALL_MM, BALL_PPM = 12.0, 0.2
R2STAR, BALL_R2STAR = 20.0, 40.0


def simple_head(seed: int, shape: tuple[int, int, int] = SHAPE) -> SimulatedHead:
    """Magnitude and phase on a grid of `shape`, with noise that `seed` makes."""
    random = np.random.default_rng(seed)
    axes = [(np.arange(n) - (n - 1) / 2) * VOXEL_MM for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")

    def ellipsoid(beyond: float) -> np.ndarray:
        a, b, c = (half + beyond for half in BRAIN_MM)
        return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1

    brain, skull, head = ellipsoid(0), ellipsoid(SKULL_MM), ellipsoid(SCALP_MM)
    r = np.sqrt(x**2 + y**2 + z**2)
    ball = r < BALL_MM
    # Outside a ball: Δχ/3 (a/r)³ (3 cos²θ − 1); inside, with the sphere of Lorentz, 0 (doi:10.1002/mrm.25358).
    field = np.where(ball, 0, BALL_PPM / 3 * (BALL_MM / np.maximum(r, 1)) ** 3 * (3 * (z / np.maximum(r, 1)) ** 2 - 1))
    proton = np.where(brain, 1.0, np.where(skull, 0.05, np.where(head, 0.8, 0.0)))
    r2star = np.where(ball, BALL_R2STAR, R2STAR)
    echoes = np.array(ECHO_TIMES)[:, None, None, None]
    signal = proton * np.exp(-echoes * r2star + 1j * (0.5 + 2 * np.pi * field * LARMOR_FREQUENCY * 1e-6 * echoes))
    signal = signal + 0.01 * (random.standard_normal(signal.shape) + 1j * random.standard_normal(signal.shape))
    affine = np.diag([-VOXEL_MM, -VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = [-axes[0][0], -axes[1][0], axes[2][0]]
    return SimulatedHead(
        acquisition=Acquisition(
            np.abs(signal).astype(np.float32),
            np.angle(signal).astype(np.float32),
            ECHO_TIMES,
            LARMOR_FREQUENCY,
            Geometry(shape, (VOXEL_MM,) * 3, (0.0, 0.0, 1.0)),
        ),
        chi=np.where(ball, BALL_PPM, 0).astype(np.float32),
        brain_mask=brain,
        inside_skull=brain,
        head_mask=head,
        labels={"ball": ball},
        field=field.astype(np.float32),
        r2star=r2star.astype(np.float32),
        affine=affine,
        seed=seed,
    )
