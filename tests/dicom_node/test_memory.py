"""What a job will hold, and what there is: by the machine, by the cgroups, by the site."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.memory import BASE, LONGEST_SHORTAGE, MARGIN, UNBOUNDED, Shortages, estimate, need, room
from dicom_node.model import Frame, Instance
from tests.dicom_node.making import an_instance

GIB = 2**30


def scan(slices: int, echoes: int, coils: int = 1) -> list[Instance]:
    """Classic images: one slice of one echo each, magnitude and phase."""
    [frame, *_] = an_instance().frames

    def at(slice_: int, echo: int) -> Frame:
        return replace(frame, index=0, position=(0.0, 0.0, 2.0 * slice_ + 1e-5 * echo), echo_time=5.0 + 4.0 * echo)

    return [
        replace(an_instance(), coil=str(coil) if coils > 1 else "", frames=(at(slice_, echo),))
        for coil in range(coils)
        for echo in range(echoes)
        for slice_ in range(slices)
        for _ in ("magnitude", "phase")
    ]


def test_a_need_is_told_in_voxels_echoes_and_coils() -> None:
    assert need(scan(4, 3)).words == "6 × 8 × 4 voxels, 3 echoes"
    assert need(scan(4, 3)).bytes == estimate(6 * 8 * 4, 3)
    assert need(scan(4, 3, coils=2)).words.endswith("3 echoes, 2 coil elements")
    assert need(scan(4, 3, coils=2)).bytes == estimate(6 * 8 * 4, 6)


def test_an_enhanced_object_needs_what_the_same_images_need_one_by_one() -> None:
    classic = scan(4, 3)
    enhanced = replace(classic[0], frames=tuple(image.frames[0] for image in classic))
    assert need([enhanced]) == need(classic)


def test_a_mask_of_the_brain_is_no_image_and_nothing_needs_what_everything_needs() -> None:
    mask = replace(scan(9, 1)[0], rows=999, brain_of=("1.2",))
    assert need([*scan(4, 3), mask]) == need(scan(4, 3))
    assert need([]).bytes == MARGIN * BASE


def test_more_of_anything_needs_more() -> None:
    assert estimate(100, 3) < estimate(101, 3) < estimate(101, 4)


def a_root(folder: Path, available: int, total: int, group: str = "/", **files: dict[str, str]) -> Path:
    """A /proc and a /sys/fs/cgroup.  files: of each cgroup, by its path with "_" for "/"."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/meminfo").write_text(
        f"MemTotal:       {total // 1024} kB\nMemAvailable:   {available // 1024} kB\nHugePages_Total:       0\n"
    )
    (folder / "proc/self/cgroup").write_text(f"1:name=systemd:/\n0::{group}\n")
    for name, content in files.items():
        where = folder / "sys/fs/cgroup" / name.strip("_").replace("_", "/")
        where.mkdir(parents=True, exist_ok=True)
        for file, text in content.items():
            (where / file).write_text(text)
    return folder


def test_without_a_limit_the_machine_is_one(tmp_path: Path) -> None:
    found = room(0, lambda: GIB, a_root(tmp_path, 3 * GIB, 8 * GIB))
    assert (found.capacity, found.free) == (8 * GIB, 4 * GIB), "what running jobs hold counts as free"
    assert "machine" in found.words


def test_the_narrowest_cgroup_on_the_way_up_is_the_limit(tmp_path: Path) -> None:
    root = a_root(
        tmp_path,
        6 * GIB,
        8 * GIB,
        "/system.slice/node.service",
        system={"memory.max": "1"},
        **{
            "system.slice_node.service": {
                "memory.max": "max",
                "memory.high": f"{5 * GIB}",
                "memory.current": f"{3 * GIB}",
                "memory.stat": f"anon {2 * GIB}\ninactive_file {GIB // 2}\nactive_file {GIB // 2}\n",
            },
            "system.slice": {"memory.max": f"{4 * GIB}", "memory.current": f"{GIB}"},
        },
    )
    found = room(0, lambda: 0, root)
    assert (found.capacity, found.free) == (4 * GIB, 3 * GIB)
    assert found.words == "memory.max of the cgroup system.slice allows; raise it"


def test_a_container_sees_its_limit_at_the_root(tmp_path: Path) -> None:
    root = a_root(tmp_path, 6 * GIB, 8 * GIB, "/", _={"memory.max": f"{2 * GIB}", "memory.current": f"{3 * GIB}"})
    found = room(0, lambda: 0, root)
    assert (found.capacity, found.free) == (2 * GIB, 0)


def test_what_the_site_allows_holds(tmp_path: Path) -> None:
    found = room(1.5, lambda: GIB, a_root(tmp_path, GIB, 8 * GIB))
    assert (found.capacity, found.free) == (1.5e9, 1.5e9)
    assert "[reconstruct] memory" in found.words


def test_a_system_that_tells_nothing_has_no_bound(tmp_path: Path) -> None:
    assert room(0, lambda: 0, tmp_path) is UNBOUNDED
    assert UNBOUNDED.free == math.inf


def test_two_looks_a_day_apart_are_no_day_of_shortage() -> None:
    looks = Shortages()
    assert looks.look(1, 10.0, 5.0, 0.0) is None
    assert looks.look(1, 10.0, 4.0, LONGEST_SHORTAGE) is None
    found = [looks.look(1, 10.0, 4.0, LONGEST_SHORTAGE + 300.0 * step) for step in range(1, 289)]
    assert found == [*[None] * 287, 4.0], "a day from when somebody looked again, and of no more than was free in it"


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="only Linux tells")
def test_here_there_is_some() -> None:
    found = room(0, lambda: 0)
    assert 0 < found.free <= found.capacity * 1.0001 or "cgroup" in found.words
