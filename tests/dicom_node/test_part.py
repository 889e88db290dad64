"""A data set while it arrives: small ones never touch the disk, large ones never fill the memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.part import IN_MEMORY, Part
from dicom_node.spool import SpoolFull

META = b"meta"


def a_part(folder: Path) -> Part:
    return Part(folder, lambda: META, lambda size: None)


@given(st.lists(st.integers(1, IN_MEMORY // 2), max_size=6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_is_there(tmp_path: Path, lengths: list[int]) -> None:
    part, whole = a_part(tmp_path), b""
    for number, length in enumerate(lengths):
        fragment = bytes([number]) * length
        part.write(memoryview(fragment))
        whole += fragment
    assert part.size == len(whole)
    with part.encoded() as encoded:
        assert bytes(encoded) == whole
    assert (part.path is not None) is (len(whole) > IN_MEMORY)
    if part.path is not None:
        assert part.path.read_bytes() == META + whole
    part.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_the_spool_has_taken_stays(tmp_path: Path) -> None:
    part = a_part(tmp_path)
    part.write(memoryview(bytes(IN_MEMORY + 1)))
    assert part.path is not None
    kept = part.path.rename(tmp_path / "kept")
    part.discard()
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize("call", ["open", "write"])
def test_a_full_disk_is_told_at_the_end_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    part = a_part(tmp_path)
    part.write(memoryview(bytes(IN_MEMORY)))
    monkeypatch.setattr(f"dicom_node.part.os.{call}", full)
    part.write(memoryview(bytes(10)))
    monkeypatch.undo()
    part.write(memoryview(bytes(IN_MEMORY)))
    assert isinstance(part.failure, OSError)
    assert list(tmp_path.iterdir()) == []


def test_room_is_asked_for_again_and_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def require(size: int) -> None:
        asked.append(size)
        if len(asked) == 3:
            raise SpoolFull("no room")

    part = Part(tmp_path, lambda: META, require)
    for _ in range(50):
        part.write(memoryview(bytes(IN_MEMORY)))
    assert isinstance(part.failure, SpoolFull)
    assert len(asked) == 3
    assert list(tmp_path.iterdir()) == []
