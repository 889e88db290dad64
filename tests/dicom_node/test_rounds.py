"""Rounds go on, each by itself."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

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


def test_renewed_parts_go_on_and_those_that_are_gone_end() -> None:
    held, counts = threading.Event(), Counter[str]()

    def count(name: str) -> Callable[[], None]:
        return lambda: counts.update([name])

    def slow() -> None:
        counts.update(["slow"])
        held.wait(30)

    rounds = Rounds({"stays": (count("old"), 3600.0), "goes": (slow, 0.01)})
    rounds.start()
    wait_until(lambda: counts["old"] == 1 and counts["slow"] == 1, "both were called")
    rounds.renew({"stays": (count("new"), 3600.0), "comes": (count("comes"), 0.01)})
    wait_until(lambda: counts["new"] == 1 and counts["comes"] > 1, "the renewed have had a round at once")
    assert rounds.silent("goes") > 0, "a round that runs may end"
    rounds.renew({"goes": (count("again"), 0.01)})
    assert not counts["again"], "never two of one name"
    held.set()
    wait_until(lambda: counts["again"] > 1, "it goes on as what it is now")
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name in ("stays", "comes")], "end")
    rounds.stop()
    assert (counts["old"], counts["slow"]) == (1, 1)
