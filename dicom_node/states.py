"""The life of a job as a table.

A job is one acquisition on its way to the archive.  Every move that may ever be made stands in `TRANSITIONS`, with its
meaning; the store fills a SQLite table from it whose trigger refuses any other.  Nothing here knows a disk or a clock.

    waiting ⇄ incomplete, foreign
       ⇅
     ready ⇄ reconstructing ──▶ reconstructed ──▶ sending ⇄ sent ──▶ archived
                   │                                 ⇅
                   ▼                              refused
             failed, review

Whatever is not over yet can become cancelled, and is taken up again when somebody asks for it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from dicom_node.errors import IllegalTransition

FETCHES = ("found", "fetched", "done", "stopped", "refused")
"""What becomes of a series of an archive: to be fetched; fetched, its job under way; a map made; its job ended without
a map; not fetched."""


class State(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    """Images may still be coming."""
    INCOMPLETE = "incomplete"
    """The quiet time has passed and images are missing; the reason names the holes."""
    FOREIGN = "foreign"
    """Not a multi-echo gradient echo with phase; the reason says why.  Left alone."""
    READY = "ready"
    """Every image is there; the next free worker takes it."""
    RECONSTRUCTING = "reconstructing"
    """A worker has it, until its lease ends."""
    RECONSTRUCTED = "reconstructed"
    """The result folder is on disk."""
    SENDING = "sending"
    """Each result has a row for each destination; some are still to be stored."""
    SENT = "sent"
    """Every destination has stored every result; those that are asked to commit themselves have yet to."""
    ARCHIVED = "archived"
    """Every destination that is asked for it has committed itself to keep every result."""
    REFUSED = "refused"
    """A destination turned a result down for good; all others are stored."""
    FAILED = "failed"
    """No map could be made; the reason says why."""
    REVIEW = "review"
    """Physics contradicts what the header says of the phase, or the result's quality has failed; the reason says how.
    Somebody decides."""
    CANCELLED = "cancelled"
    """Somebody stopped it; the reason says who.  Its images are kept, and nothing of it is sent any more."""


class Priority(IntEnum):
    """Who goes first, in the queue and on the way to each destination; within one class, who has been due longest."""

    ASKED = 0
    """Somebody asked for it to go first."""
    TODAY = 1
    """A patient who was just scanned."""
    COHORT = 2
    """Fetched from an archive, scanned days ago, or reprocessed: nobody stands beside the scanner."""


START = State.WAITING
"""Every job begins here."""

TRANSITIONS: dict[tuple[State, State], str] = {
    (State.WAITING, State.INCOMPLETE): "nothing came for the quiet time, and images are missing",
    (State.WAITING, State.FOREIGN): "what came can not be reconstructed by this node",
    (State.WAITING, State.READY): "every image is there and nothing more is coming",
    (State.INCOMPLETE, State.WAITING): "a late image came",
    (State.FOREIGN, State.WAITING): "a late image came that may make an acquisition of it",
    (State.READY, State.WAITING): "a late image came before the reconstruction began",
    (State.READY, State.RECONSTRUCTING): "a worker claimed it",
    (State.READY, State.FAILED): "it was begun as often as is allowed and never ended",
    (State.RECONSTRUCTING, State.RECONSTRUCTED): "the result folder is on disk",
    (State.RECONSTRUCTING, State.READY): "the worker died, ran out of time or was stopped: it is run again",
    (State.RECONSTRUCTING, State.FAILED): "no map can be made of it, or it was begun as often as is allowed",
    (State.RECONSTRUCTING, State.REVIEW): "the phase cannot be what its header says, or its result failed in quality",
    (State.RECONSTRUCTED, State.SENDING): "its results are registered for each destination",
    (State.RECONSTRUCTED, State.READY): "its result folder is gone or unreadable: it is made anew",
    (State.SENDING, State.SENT): "every destination has stored every result",
    (State.SENDING, State.REFUSED): "nothing is left to send, but a destination turned something down",
    (State.SENDING, State.READY): "a result that is not yet stored everywhere is gone from disk: it is made anew",
    (State.SENT, State.ARCHIVED): "every destination that is asked for it has committed itself to keep every result",
    (State.SENT, State.SENDING): "a destination does not hold what it had stored: it is sent again",
    (State.REFUSED, State.SENDING): "asked for, or a destination does not hold what it had stored: it is sent again",
    (State.FAILED, State.WAITING): "a late image came",
    (State.FAILED, State.READY): "asked for: it is run again",
    (State.REVIEW, State.WAITING): "a late image came",
    (State.REVIEW, State.READY): "asked for: it is run again, as its scanner is configured now",
    (State.SENT, State.READY): "asked for: it is run again and sent again",
    (State.ARCHIVED, State.READY): "asked for: it is run again and sent again",
    (State.ARCHIVED, State.SENDING): "asked for: it is sent again",
    (State.WAITING, State.CANCELLED): "asked for: it is not begun",
    (State.INCOMPLETE, State.CANCELLED): "asked for: it is not begun",
    (State.READY, State.CANCELLED): "asked for: it is not begun",
    (State.RECONSTRUCTING, State.CANCELLED): "asked for: its worker is stopped",
    (State.RECONSTRUCTED, State.CANCELLED): "asked for: it is not sent",
    (State.SENDING, State.CANCELLED): "asked for: nothing more of it is sent",
    (State.REFUSED, State.CANCELLED): "asked for: what was turned down is given up",
    (State.CANCELLED, State.WAITING): "asked for: it is taken up again",
}
"""(from, to) and what the move means."""

GROWING = frozenset({State.WAITING, State.INCOMPLETE, State.FOREIGN, State.READY, State.FAILED, State.REVIEW})
"""Nothing was made of the job's images yet: a late image joins them.  A cancelled one takes it in too, and stays where
it is.  In every other state it makes a new revision."""

CANCELLABLE = frozenset(source for source, target in TRANSITIONS if target is State.CANCELLED)
"""Something is still to be done for these."""


def check(source: State, target: State) -> str:
    """The meaning of a move.  Raises IllegalTransition for one that the table does not have."""
    if (source, target) not in TRANSITIONS:
        allowed = ", ".join(t for s, t in TRANSITIONS if s is source) or "none"
        raise IllegalTransition(f"a job that is {source} cannot become {target}; from there it can become: {allowed}")
    return TRANSITIONS[source, target]
