"""Whatever comes is answered, the next is served, memory stays bounded, nothing is written outside the node's folder.

A hundred thousand inputs in the long version; where one of them surprises, its seed and its number make it again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import ROOT
from tests.proof.siege import Siege, besieged, conversations, transfers

MOST_MB = 300.0
"""By which the memory of a process may grow over all of its inputs, whatever these are."""


def short_and_long(short: int, long: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "count", [short, pytest.param(long, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
    )


@short_and_long(300, 80_000)
def test_broken_data_sets_are_refused_set_aside_or_used(tmp_path: Path, count: int) -> None:
    found = in_a_process_of_its_own(tmp_path, count, seed=count)
    assert found["count"] == count
    assert found["surprises"] == {}
    assert found["escaped"] == []
    assert found["peak_mb"] - found["before_mb"] < MOST_MB
    assert {"indexed", "converted", "refused with 0xA900", "refused with 0xC000"} <= found["ended"].keys()


@short_and_long(120, 20_000)
def test_broken_conversations_and_transfers_leave_the_node_as_it_was(tmp_path: Path, count: int) -> None:
    found = Siege()
    with besieged(tmp_path, found) as node:
        conversations(node, count // 2, count, found)
        transfers(node, tmp_path / "scan", count // 2, count, found)
    assert found.inputs == count
    assert {"accepted", "aborted", "0x0000", "0xA900", "0xC000"} <= found.answered.keys()
    assert (found.unclosed, found.surprises, found.escaped) == (0, [], [])
    assert found.alive
    assert found.threads[1] <= found.threads[0] + 2, "threads pile up"
    assert found.sockets[1] <= found.sockets[0], "connections stay open"
    assert found.peak_mb - found.before_mb < MOST_MB


def in_a_process_of_its_own(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """What `tests.proof.fuzz` found."""
    line = [sys.executable, "-m", "tests.proof.fuzz", str(folder), "--count", str(count), "--seed", str(seed)]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found
