"""The zero of the scale: ventricles are found by their slow decay, and nothing is made up where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from reconstruction import Geometry, quality
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.reference.csf import csf
from reconstruction.reference.none import none
from reconstruction.reference.whole_brain import whole_brain
from tests.laws import random_volume
from tests.reconstruction.sources import AXIAL, ball

GEOMETRY = Geometry((60, 64, 50), (2.0, 2.0, 2.0), AXIAL)
BRAIN = ball(GEOMETRY, 48.0)
VENTRICLES = ball(GEOMETRY, 8.0, (9.0, 0.0, 4.0)) | ball(GEOMETRY, 8.0, (-9.0, 0.0, 4.0))
CSF_PPM = 0.015


def maps(ventricles: BoolArray = VENTRICLES) -> tuple[FloatArray, FloatArray]:
    """χ and R2* of a brain with slow decay in ventricles and in sulci at its surface."""
    chi = np.where(BRAIN, 0.01 * random_volume(GEOMETRY.shape, 0), 0).astype(np.float32)
    r2star = np.where(BRAIN, 18 + random_volume(GEOMETRY.shape, 1), 0).astype(np.float32)
    sulci = BRAIN & ~ball(GEOMETRY, 44.0)
    chi[sulci] += 0.2
    r2star[sulci] = 1.0
    chi[ventricles] = CSF_PPM + 0.002 * random_volume(GEOMETRY.shape, 2)[ventricles]
    r2star[ventricles] = 2.0
    return chi, r2star


def test_ventricles_are_found() -> None:
    chi, r2star = maps()
    with quality.ledger() as ledger:
        reference = csf(chi, r2star, BRAIN, GEOMETRY)
    assert reference.name == "csf"
    assert not (reference.mask & ~ndimage.binary_erosion(VENTRICLES)).any()  # the rim holds some tissue
    assert reference.mask.sum() > 0.4 * VENTRICLES.sum()
    assert reference.mean == pytest.approx(CSF_PPM - chi[BRAIN].mean(), abs=5e-4)
    assert reference.sd == pytest.approx(0.002, rel=0.2)
    assert ledger.figures["reference.volume_ml"] == pytest.approx(reference.mask.sum() * 8e-3)
    assert not ledger.warnings


@pytest.mark.parametrize("field_strength", [3, 7])
def test_ventricles_are_found_at_any_field_strength(field_strength: int) -> None:
    """R2* of tissue, and of fluid with some tissue in its voxels, grows with the field."""
    chi, r2star = maps()
    partial = np.where(VENTRICLES, 2.2 * r2star, r2star) * np.float32(field_strength / 3)
    reference = csf(chi, partial, BRAIN, GEOMETRY)
    assert reference.name == "csf"
    assert not (reference.mask & ~VENTRICLES).any()


def test_ventricles_are_found_in_noise() -> None:
    geometry = Geometry((90, 96, 80), (1.0, 1.0, 1.0), AXIAL)
    brain, fluid = ball(geometry, 38.0), ball(geometry, 8.0)
    noise = 5 * random_volume(geometry.shape, 3)
    r2star = np.where(brain, np.maximum(0, np.where(fluid, 2, 18) + noise), 0).astype(np.float32)
    chi = np.where(brain, 0.002 * random_volume(geometry.shape, 4), 0).astype(np.float32)
    reference = csf(chi, r2star, brain, geometry)
    assert reference.name == "csf"
    assert not (reference.mask & ~fluid).any()
    assert reference.mask.sum() > 0.4 * fluid.sum()


def test_vein_in_a_ventricle_is_left_out() -> None:
    chi, r2star = maps()
    vein = ball(GEOMETRY, 3.0, (9.0, 0.0, 4.0))
    chi[vein] = 0.3
    assert not csf(chi, r2star, BRAIN, GEOMETRY).mask[vein].any()


def test_reference_does_not_move_with_the_scale() -> None:
    chi, r2star = maps()
    first, shifted = csf(chi, r2star, BRAIN, GEOMETRY), csf(chi + np.float32(0.05), r2star, BRAIN, GEOMETRY)
    np.testing.assert_array_equal(first.mask, shifted.mask)
    assert shifted.mean == pytest.approx(first.mean, abs=1e-5)


@pytest.mark.parametrize("ventricles", [np.zeros_like(BRAIN), ball(GEOMETRY, 4.0, (9.0, 0.0, 4.0))])
def test_too_little_fluid_falls_back_and_says_so(ventricles: BoolArray) -> None:
    chi, r2star = maps(ventricles)
    with quality.ledger() as ledger:
        reference = csf(chi, r2star, BRAIN, GEOMETRY)
    assert reference.name == "whole_brain"
    np.testing.assert_array_equal(reference.mask, BRAIN)
    assert "ml of ventricular CSF found" in ledger.warnings[0]


def test_single_echo_falls_back_and_says_so() -> None:
    chi, _ = maps()
    with quality.ledger() as ledger:
        reference = csf(chi, None, BRAIN, GEOMETRY)
    assert reference.name == "whole_brain"
    assert "no R2*" in ledger.warnings[0]


def test_whole_brain_and_none() -> None:
    chi, r2star = maps()
    whole = whole_brain(chi, r2star, BRAIN, GEOMETRY)
    assert (whole.mean, whole.sd) == (0.0, pytest.approx(chi[BRAIN].std()))
    assert not none(chi, r2star, BRAIN, GEOMETRY).mask.any()
