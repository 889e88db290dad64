"""Sources that add up in R2′ and cancel in χ are told apart, at any field, and never claimed against the χ found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reconstruction import quality, stage
from reconstruction.acquisition import GYROMAGNETIC_RATIO, FloatArray
from reconstruction.separation.chi_separation import R2_AT_0, R2_PER_TESLA, chi_separation

SHAPE = (6, 5, 4)
EVERYWHERE = np.ones(SHAPE, bool)
KNOWN = np.full(SHAPE, 1e-3, np.float32)
AT_3_T = 3 * GYROMAGNETIC_RATIO


def mixture(para: float, dia: float, tesla: float = 3.0) -> tuple[FloatArray, FloatArray]:
    """χ and R2* of tissue that holds both, by the model's own words."""
    r2 = R2_AT_0 + R2_PER_TESLA * tesla
    r2star = r2 + 137 * tesla / 3 * (para - dia)
    return np.full(SHAPE, para + dia, np.float32), np.full(SHAPE, r2star, np.float32)


@pytest.mark.parametrize("tesla", [1.5, 3.0, 7.0])
@pytest.mark.parametrize(("para", "dia"), [(0.1, -0.02), (0.03, -0.06), (0.05, -0.05), (0.15, 0.0), (0.0, -0.04)])
def test_known_mixture(para: float, dia: float, tesla: float) -> None:
    chi, r2star = mixture(para, dia, tesla)
    found = chi_separation(chi, r2star, KNOWN, EVERYWHERE, tesla * GYROMAGNETIC_RATIO)
    assert found is not None
    np.testing.assert_allclose(found[0], para, atol=1e-5)
    np.testing.assert_allclose(found[1], dia, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    chi=hnp.arrays(np.float32, SHAPE, elements=st.floats(-2, 2, width=32)),
    r2star=hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1000, width=32)),
    unknown=hnp.arrays(np.bool_, SHAPE),
)
def test_signs_and_sum_hold_for_anything(chi: FloatArray, r2star: FloatArray, unknown: np.ndarray) -> None:
    noise = np.where(unknown, np.inf, 1e-3).astype(np.float32)
    mask = EVERYWHERE.copy()
    mask[0] = False
    found = chi_separation(chi, r2star, noise, mask, AT_3_T)
    assert found is not None
    para, dia = found
    assert para.dtype == dia.dtype == np.float32
    assert para.min() >= 0
    assert dia.max() <= 0
    assert not para[~mask].any()
    assert not dia[~mask].any()
    np.testing.assert_allclose((para + dia)[mask], chi[mask], atol=2e-5)


def test_fluid_holds_neither() -> None:
    chi, slow = np.zeros(SHAPE, np.float32), np.full(SHAPE, 1.5, np.float32)
    found = chi_separation(chi, slow, KNOWN, EVERYWHERE, AT_3_T)
    assert found is not None
    assert not found[0].any()
    assert not found[1].any()


def test_faster_decay_means_more_of_both() -> None:
    chi, r2star = mixture(0.05, -0.05)
    faster = r2star + np.float32(10)
    before, after = (chi_separation(chi, rate, KNOWN, EVERYWHERE, AT_3_T) for rate in (r2star, faster))
    assert before is not None
    assert after is not None
    assert (after[0] > before[0]).all()
    assert (after[1] < before[1]).all()


def test_what_the_field_does_not_tell_is_not_split() -> None:
    chi, r2star = mixture(0.1, -0.06)
    found = chi_separation(chi, r2star, np.full(SHAPE, np.inf, np.float32), EVERYWHERE, AT_3_T)
    assert found is not None
    np.testing.assert_array_equal(found[0], chi)
    assert not found[1].any()


def test_it_says_that_it_is_experimental_and_with_what_constants() -> None:
    chi, r2star = mixture(0.1, -0.02)
    with quality.ledger() as ledger:
        chi_separation(chi, r2star, KNOWN, EVERYWHERE, AT_3_T, r2=12.0)
    assert any("experimental" in warning for warning in ledger.warnings)
    assert ledger.figures["separation.relaxivity"] == pytest.approx(137)
    assert ledger.figures["separation.r2"] == 12


@pytest.mark.parametrize(
    ("reference", "warned"), [("csf", False), ("lateral_ventricle", False), ("whole_brain", True), ("none", True)]
)
def test_a_zero_that_is_not_fluid_is_warned_of(reference: str, warned: bool) -> None:
    chi, r2star = mixture(0.1, -0.02)
    with quality.ledger() as ledger:
        chi_separation(chi, r2star, KNOWN, EVERYWHERE, AT_3_T, reference)
    assert any(f"χ is relative to {reference}, expected CSF" in warning for warning in ledger.warnings) == warned


def test_a_single_echo_gives_none_and_says_so() -> None:
    with quality.ledger() as ledger:
        assert chi_separation(KNOWN, None, KNOWN, EVERYWHERE, AT_3_T) is None
    assert any("single echo" in warning for warning in ledger.warnings)


def test_the_recipe_finds_it() -> None:
    assert "chi_separation" in stage.methods("separation")
