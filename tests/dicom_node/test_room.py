"""The marks on the disk."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from dicom_node.room import JOBS, RESUME, Room, free_bytes

MARK = 1000


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, folder: Path) -> int:
        return self.free


def test_a_disk_at_its_mark_takes_nothing_until_there_is_a_good_deal_more(tmp_path: Path) -> None:
    disk = Disk(MARK)
    room = Room(tmp_path, MARK, disk)
    with capture_logs() as told:
        assert room.refusal() == ""
        disk.free = MARK - 1
        assert f"{MARK - 1} bytes are free" in room.refusal()
        disk.free = MARK + 1
        assert room.refusal(), "a little more is not enough"
        disk.free = int(MARK * RESUME)
        assert room.refusal() == ""
        disk.free = MARK
        assert room.refusal() == ""
    assert [entry["event"] for entry in told] == ["disk_nearly_full", "disk_has_room_again"]


def test_an_object_that_is_too_large_for_what_is_left_closes_the_door_to_no_other(tmp_path: Path) -> None:
    room = Room(tmp_path, MARK, Disk(MARK + 500))
    with capture_logs() as told:
        assert "make room" in room.refusal(501)
        assert room.refusal(500) == ""
    assert told == []


def test_jobs_go_on_below_the_mark_of_intake_and_stop_before_the_disk_is_full(tmp_path: Path) -> None:
    disk = Disk(MARK - 1)
    room = Room(tmp_path, MARK, disk)
    with capture_logs() as told:
        assert room.for_jobs()
        disk.free = int(MARK * JOBS) - 1
        assert not room.for_jobs()
        assert not room.for_jobs()
        disk.free = int(MARK * JOBS)
        assert room.for_jobs()
    assert [entry["event"] for entry in told] == ["no_room_for_jobs", "room_for_jobs_again"]


def test_the_free_space_of_a_real_folder(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path) < 2**60
