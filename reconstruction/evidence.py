"""What a check of the phase has found, and what a sum of findings amounts to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

WEAK, DOUBTFUL, SUFFICIENT, DECISIVE = 0.4, 0.9, 1.0, 4.0
"""Scores: what only supports, what keeps a verdict open, what makes one alone, and what nothing else outweighs."""


class Verdict(StrEnum):
    CONFIRMED = "confirmed"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Evidence:
    """One figure.  score: positive for what the header says, negative against it, 0 where the figure says nothing."""

    name: str
    value: float
    score: float
    sentence: str


def verdict_on(evidence: Iterable[Evidence]) -> Verdict:
    """By the sum of the scores."""
    total = sum(item.score for item in evidence)
    if abs(total) < SUFFICIENT - 1e-6:  # sums of tenths do not come out exactly
        return Verdict.UNDECIDED
    return Verdict.CONFIRMED if total > 0 else Verdict.CONTRADICTED


def bounded(value: float) -> float:
    """The value within −1 … 1."""
    return max(-1.0, min(1.0, value))
