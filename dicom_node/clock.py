"""The node's clock: seconds since the epoch that go forward evenly, whatever is done to the machine's.

Quiet times, pauses, leases and ages are differences of two readings, one of which may lie in the database.  A clock
that is set while the node runs would end or stretch all of them at once: a day back, and a scan waits for a day.  This
one follows the machine's by going a little faster or slower.

A machine whose clock has lost its battery boots with a date years ago and is set when it finds a time server.  Such a
date is known to be wrong, and is left at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

SLEW = 0.1
"""How much faster or slower than time it goes to meet the machine's clock: a day is made good in ten."""
JUMP = 5.0
"""Seconds between two readings that are told as a jump; time services set a clock for less."""

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No machine that runs this software has an earlier date."""

log = structlog.get_logger(__name__)


def since_boot() -> float:
    """Seconds that nobody sets, the time of a machine that sleeps included where the system counts it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class SteadyClock:
    """Begins at the machine's time.  Safe to call from many threads; a later call never gives an earlier time.

    wall: what somebody may set.  steady: what nobody can; only its differences count.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = since_boot) -> None:
        self._wall = wall
        self._steady = steady
        self._lock = threading.Lock()
        self._read_at = steady()
        self._last_wall = wall()
        self._now = max(self._last_wall, EARLIEST)
        self._is_set = self._last_wall >= EARLIEST
        if not self._is_set:
            date = datetime.fromtimestamp(self._last_wall, UTC).isoformat(timespec="seconds")
            log.error("clock_is_wrong", date=date, do="see that the machine has its time before the node starts")

    def __call__(self) -> float:
        with self._lock:
            steady, wall = self._steady(), self._wall()
            passed = steady - self._read_at
            jump = wall - self._last_wall - passed
            behind = wall - self._now - passed
            if not self._is_set and wall >= EARLIEST:
                self._is_set = True
                self._now = max(self._now + passed, wall)
            else:
                self._now += passed + min(max(behind, -SLEW * passed), SLEW * passed)
            self._read_at, self._last_wall = steady, wall
            now = self._now
        if abs(jump) > JUMP:
            log.warning(
                "clock_was_set",
                seconds=round(jump, 1),
                do="nothing is lost: pauses and ages go on as they were; see that the machine keeps the right time",
            )
        return now
