"""The pulse of the rounds: when each last ended well, and how often in a row it failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Beat:
    """One part.  ended_at: s since the epoch when a round of it last ended well, None before the first.

    failures: of all its rounds.  in_a_row: since the last good one.  trouble: the kind of the last failure, without the
    message, which may name files.
    """

    ended_at: float | None = None
    failures: int = 0
    in_a_row: int = 0
    trouble: str = ""


class Pulse:
    """May be told and asked from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[str, Beat] = {}

    def ended(self, part: str) -> None:
        """A round ended well."""
        with self._lock:
            self._beats[part] = Beat(self._clock(), self._beats.get(part, Beat()).failures)

    def failed(self, part: str, error: BaseException) -> None:
        """A round ended in an error."""
        with self._lock:
            beat = self._beats.get(part, Beat())
            self._beats[part] = replace(
                beat, failures=beat.failures + 1, in_a_row=beat.in_a_row + 1, trouble=type(error).__name__
            )

    def beats(self) -> dict[str, Beat]:
        with self._lock:
            return dict(self._beats)
