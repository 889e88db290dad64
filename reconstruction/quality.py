"""What a method has to say beside its array: figures and warnings, gathered while a pipeline runs.

A method's return value is its map; how an iteration ended or what had to be fallen back on goes here:

    with quality.ledger() as ledger:
        chi = tv(...)
    ledger.figures["inversion.iterations"], ledger.warnings

Outside such a block notes are dropped, so a method may be called alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from reconstruction.solvers import Convergence


@dataclass
class Ledger:
    """figures: number by name ("stage.what").  warnings: sentences for the report."""

    figures: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


_open: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def ledger() -> Iterator[Ledger]:
    """Opens a ledger that the notes made within the block go to."""
    opened = Ledger()
    token = _open.set(opened)
    try:
        yield opened
    finally:
        _open.reset(token)


def figure(name: str, value: float) -> None:
    """Notes a number under "stage.what"."""
    if (current := _open.get()) is not None:
        current.figures[name] = float(value)


def warn(sentence: str) -> None:
    """Notes a sentence for the report: what was found, and what was done about it."""
    if (current := _open.get()) is not None and sentence not in current.warnings:
        current.warnings.append(sentence)


def convergence(stage: str, outcome: Convergence) -> None:
    """Notes how an iteration ended, and warns when it ran out of iterations."""
    figure(f"{stage}.iterations", outcome.iterations)
    figure(f"{stage}.residual", outcome.residual)
    if not outcome.converged:
        warn(
            f"{stage}: stopped after {outcome.iterations} iterations at {outcome.residual:.2g}, "
            f"above its tolerance of {outcome.tolerance:.2g}"
        )
