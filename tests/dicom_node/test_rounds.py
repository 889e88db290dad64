"""Rounds go on, each by itself."""

from __future__ import annotations

import threading

from dicom_node.rounds import Rounds
from tests.peers import wait_until


def test_each_part_goes_round_while_another_is_stuck_and_all_end() -> None:
    held = threading.Event()
    counts = {"quick": 0, "stuck": 0}

    def quick() -> None:
        counts["quick"] += 1

    def stuck() -> None:
        counts["stuck"] += 1
        held.wait(30)

    rounds = Rounds({"quick": (quick, 0.01), "stuck": (stuck, 0.01)})
    rounds.start()
    wait_until(lambda: counts["quick"] >= 3, "the quick part goes round")
    assert counts["stuck"] == 1
    held.set()
    rounds.stop()
    after = dict(counts)
    assert not [thread.name for thread in threading.enumerate() if thread.name in counts]
    assert counts == after


def test_the_first_round_is_at_once_and_a_long_pause_ends_with_the_node() -> None:
    called = threading.Event()
    rounds = Rounds({"rare": (called.set, 3600.0)})
    rounds.start()
    assert called.wait(10)
    rounds.stop()
