"""What people read when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.status import LOW_SPACE, in_words, status
from dicom_node.store import Objection, Store


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    Store(tmp_path / "node.db").close()
    return tmp_path


def test_a_node_that_did_nothing(state_folder: Path) -> None:
    found = status(state_folder, now=0)
    assert found["jobs"] == found["foreign"] == found["quarantine"] == []
    assert "not running" in in_words(found, 0)
    assert "no jobs" in in_words(found, 0)


def test_a_disk_that_is_nearly_full_is_told(state_folder: Path) -> None:
    found = status(state_folder, now=0)
    assert found["node"]["free_bytes"] > 0
    for free, warned in ((LOW_SPACE - 1, True), (LOW_SPACE, False)):
        found["node"]["free_bytes"] = free
        assert ("make room" in in_words(found, 0)) == warned


def test_what_was_not_taken_is_told_with_its_reason(state_folder: Path) -> None:
    Store(state_folder / "node.db").object_to(Objection(10.0, "quarantine/1", "SCANNER", "truncated"))
    said = in_words(status(state_folder, now=70), 70)
    assert "not taken: 1 objects" in said
    assert "60 s ago from SCANNER: truncated: quarantine/1" in said
