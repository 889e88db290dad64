"""The clock that nobody can set."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dicom_node.clock import EARLIEST, JUMP, SLEW, SteadyClock, since_boot

DAY = 86400.0


class Machine:
    """Its time and its date, which somebody sets."""

    def __init__(self) -> None:
        self.date, self.time = 1.8e9, 50.0

    def passes(self, seconds: float) -> None:
        self.date += seconds
        self.time += seconds

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.date, lambda: self.time)


def test_it_is_the_machines_date_as_long_as_nobody_sets_it() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(5):
        machine.passes(3600)
        assert clock() == pytest.approx(machine.date)


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_day_is_made_good_in_ten_and_a_minute_stays_a_minute(jump: float) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock()
    machine.date += jump
    machine.passes(60)
    assert clock() - before == pytest.approx(60, rel=SLEW + 1e-6)
    machine.passes(10.1 * DAY)
    assert clock() == pytest.approx(machine.date)


def test_a_date_before_this_software_is_left_at_once_when_the_machine_is_set() -> None:
    machine = Machine()
    right, machine.date = machine.date, 0.0
    with capture_logs() as told:
        clock = machine.clock()
    assert [(entry["event"], entry["date"]) for entry in told] == [("clock_is_wrong", "1970-01-01T00:00:00+00:00")]
    machine.passes(60)
    assert EARLIEST + 50 <= clock() <= EARLIEST + 70
    machine.date = right
    machine.passes(1)
    assert clock() == pytest.approx(machine.date)
    machine.date += DAY
    machine.passes(60)
    assert clock() == pytest.approx(machine.date - DAY, abs=10), "from then on it is even"


@given(st.lists(st.tuples(st.floats(-400 * DAY, 400 * DAY), st.floats(0, DAY)), max_size=20))
def test_it_never_goes_back_and_never_far_from_even(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    last = clock()
    for jump, seconds in steps:
        machine.date += jump
        machine.passes(seconds)
        now = clock()
        assert (1 - SLEW) * seconds - 1e-3 <= now - last <= (1 + SLEW) * seconds + 1e-3
        last = now


def test_a_jump_is_told_once_and_a_correction_is_not() -> None:
    machine = Machine()
    clock = machine.clock()
    with capture_logs() as told:
        machine.date += JUMP / 2
        machine.passes(1)
        clock()
        assert told == []
        machine.date -= DAY
        for _ in range(3):
            machine.passes(1)
            clock()
    assert [(entry["event"], entry["seconds"]) for entry in told] == [("clock_was_set", -DAY)]


def test_the_real_one_agrees_with_the_machine() -> None:
    assert SteadyClock()() == pytest.approx(time.time(), abs=5)
    assert since_boot() <= since_boot()
