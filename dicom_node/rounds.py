"""Rounds: each part of the node is called again and again, in a thread of its own, so that nobody waits for a slow one.

The pause between two rounds is measured by the clock that nobody can set: a scheduler that goes by the date stops for as
long as a clock is set back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

Part = Callable[[], None]


class Rounds:
    """Runs between `start` and `stop`.  parts: by name, what is called and the seconds between two calls.

    A part that raises ends its thread: whoever hands it in guards it.
    """

    def __init__(self, parts: Mapping[str, tuple[Part, float]]) -> None:
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(part, seconds), name=name, daemon=True)
            for name, (part, seconds) in parts.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No further round begins; returns when those that run are over."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, part: Part, seconds: float) -> None:
        part()
        while not self._stopping.wait(seconds):
            part()
