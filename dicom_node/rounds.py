"""Rounds: each part of the node is called again and again, in a thread of its own: nobody waits for a slow one.

The pause between two rounds is measured by the clock that nobody can set: a scheduler that goes by the date stops for
as long as the date is set back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

Part = Callable[[], None]
Parts = Mapping[str, tuple[Part, float]]
"""By name, what is called and the seconds between two calls."""


class Rounds:
    """Runs between `start` and `stop`.  A part that raises ends its thread: whoever hands it in guards it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = dict(parts)
        self._threads: dict[str, threading.Thread] = {}
        self._ended_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False

    def start(self) -> None:
        self.renew(self._parts)

    def renew(self, parts: Parts) -> None:
        """From now on these, each with a round at once.

        One that runs ends its round first, also where it is not among them any more: never are there two of a name.
        """
        with self._lock:
            self._parts = dict(parts)
            self._wake.set()
            self._wake = threading.Event()
            for name in self._parts.keys() - self._threads.keys():
                self._ended_at[name] = time.monotonic()
                self._threads[name] = threading.Thread(target=self._run, args=(name,), name=name, daemon=True)
                self._threads[name].start()

    def stop(self) -> None:
        """No further round begins; returns when those that run are over."""
        with self._lock:
            self._stopping = True
            self._wake.set()
            threads = list(self._threads.values())
        for thread in threads:
            thread.join()

    @property
    def running(self) -> frozenset[str]:
        """Parts that go round, or are in their last round."""
        with self._lock:
            return frozenset(self._threads)

    @property
    def settled(self) -> bool:
        """Whether none goes on that is no part any more."""
        with self._lock:
            return self._threads.keys() <= self._parts.keys()

    def silent(self, name: str) -> float:
        """Seconds since the last round of a part ended, or since it was begun with.  Raises KeyError for no part."""
        with self._lock:
            return time.monotonic() - self._ended_at[name]

    def _run(self, name: str) -> None:
        while (found := self._next(name)) is not None:
            part, seconds, wake = found
            part()
            with self._lock:
                self._ended_at[name] = time.monotonic()
            wake.wait(seconds)

    def _next(self, name: str) -> tuple[Part, float, threading.Event] | None:
        with self._lock:
            if self._stopping or name not in self._parts:
                del self._threads[name], self._ended_at[name]
                return None
            return *self._parts[name], self._wake
