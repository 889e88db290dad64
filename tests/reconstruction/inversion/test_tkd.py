"""TKD's own: the height that its threshold takes off is given back."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction import Geometry, dipole, fourier
from tests.reconstruction.inversion.spheres import inverted
from tests.reconstruction.sources import OBLIQUE


@pytest.mark.parametrize("shape", [(24, 26, 22), (23, 27, 21)])
@pytest.mark.parametrize("threshold", [0.1, 0.19, 0.5])
def test_a_point_comes_out_with_its_own_height(threshold: float, shape: tuple[int, int, int]) -> None:
    geometry = Geometry(shape, (1.0, 1.2, 1.5), OBLIQUE)
    mask = np.ones(shape, bool)
    window = fourier.Window.around(mask, geometry.voxel_size, 20.0)
    point = np.zeros(window.shape, np.float32)
    point[12, 13, 11] = 0.1
    field = window.paste(fourier.apply(dipole.sampled(window.shape, geometry.voxel_size, OBLIQUE), point))
    data = {
        "local_field": field, "noise": np.full(shape, 1e-3, np.float32), "mask": mask,
        "magnitude": np.ones(shape, np.float32), "geometry": geometry,
    }  # fmt: skip
    assert inverted("tkd", data, threshold=threshold)[12, 13, 11] == pytest.approx(0.1, rel=0.02)
