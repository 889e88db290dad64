"""L2's own: the iteration with edges of the magnitude."""

from __future__ import annotations

import numpy as np

from tests.reconstruction.inversion.spheres import COARSE, contrasts, given, inverted
from tests.reconstruction.sources import ball
from tests.reconstruction.test_inversion import SPHERES


def test_without_edges_the_iteration_ends_at_the_closed_form() -> None:
    data = given()
    closed, iterated = (inverted("l2", data, edge_weight=w, tolerance=1e-4) for w in (1.0, 1.0 - 1e-5))
    assert np.linalg.norm(iterated - closed) < 1e-3 * np.linalg.norm(closed)


def test_edges_of_the_magnitude_are_kept() -> None:
    """Where the magnitude shows the spheres, they come out nearer to their height than smoothed."""
    data = given()
    spheres = np.any([ball(COARSE, radius, centre) for centre, radius, _ in SPHERES], axis=0)
    data["magnitude"] = np.where(spheres, np.float32(0.7), data["magnitude"])
    smooth, edged = (contrasts(inverted("l2", data, edge_weight=w), COARSE) for w in (1.0, 0.1))
    assert (edged > smooth + 0.1).all()
    assert edged.max() < 1.1
