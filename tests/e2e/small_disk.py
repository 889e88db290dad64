"""A node on a disk that fills, at every step of the line; to be run with a small file system of its own.

    python -m tests.e2e.small_disk DISK ELSEWHERE

DISK: the small file system.  ELSEWHERE: a folder on another, for senders and archive.  Whatever is acknowledged arrives
in the archive, as soon as there is room.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.archive import Archive
from demo.scanner import push
from dicom_node.config import Config
from dicom_node.daemon import Daemon
from dicom_node.room import free_bytes
from dicom_node.send import Delivery, send
from dicom_node.states import State
from tests.dicom_node.plays import LARGE, play_largely
from tests.e2e.phantom import simple_head
from tests.peers import wait_until
from tests.simulation.siemens import write_siemens

MIB = 2**20
MARK = 16 * MIB


class Disk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def leave(self, free: int) -> None:
        """Fills the disk until so much is free; for 0 until no byte can be written."""
        self.empty()
        with self._ballast.open("wb") as ballast:
            while (left := free_bytes(self.folder) - free) > 0:
                try:
                    ballast.write(bytes(min(left, MIB)))
                    ballast.flush()
                except OSError:
                    break

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


class Line:
    """A daemon on the disk, an archive elsewhere, and studies to send.  before_send: is called before each sending."""

    def __init__(self, disk: Path, elsewhere: Path) -> None:
        self.disk = Disk(disk)
        self.elsewhere = elsewhere
        self.archive = Archive(elsewhere / "archive")
        self.before_send: Callable[[], None] = lambda: None
        self.studies = 0

    def config(self) -> Config:
        return Config.model_validate(
            {
                "node": {"state_folder": self.disk.folder / "state", "tick": 0.1},
                "receive": {"port": 0},
                "group": {"quiet_time": 0.5},
                "reconstruct": {"pause": 0.1, "attempts": 2},
                "send": {"first_pause": 0.2, "longest_pause": 1.0},
                "retention": {"minimum_free_bytes": MARK, "free_bytes": 0},
                "destination": [
                    {"name": "archive", "host": "127.0.0.1", "port": self.archive.port, "ae_title": "ARCHIVE"}
                ],
            }
        )

    def _send(self, files: Sequence[Path], destination: Any, settings: Any) -> Iterator[Delivery]:
        self.before_send()
        yield from send(files, destination, settings)

    @contextmanager
    def serving(self) -> Iterator[Daemon]:
        daemon = Daemon(self.config(), work=play_largely, send_function=self._send)
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            wait_until(lambda: daemon.receiver._listeners, "the receiver listens")
            yield daemon
        finally:
            daemon.stop()
            thread.join(60)
            assert not thread.is_alive(), "the daemon does not stop"

    def study(self) -> list[Path]:
        self.studies += 1
        return write_siemens(simple_head(self.studies, shape=(8, 8, 4)), self.elsewhere / f"study{self.studies}")

    def push(self, daemon: Daemon, files: Sequence[Path]) -> set[int]:
        return {answer.status for answer in push(files, "127.0.0.1", daemon.receiver.port, "QSMNODE")}

    def all_arrive(self, daemon: Daemon, jobs: int) -> None:
        wait_until(
            lambda: [job.state for job in daemon.store.jobs()] == [State.SENT] * jobs,
            f"{jobs} jobs are sent",
            90,
        )
        assert len(self.archive.paths) == 2 * jobs, "each study has two results"


def run(disk: Path, elsewhere: Path) -> None:
    line = Line(disk, elsewhere)
    with line.archive, line.serving() as daemon:
        assert line.push(daemon, line.study()) == {0x0000}
        line.all_arrive(daemon, 1)
        said("a study on a disk with room")

        study = line.study()
        line.disk.leave(MARK - MIB)
        held = len(daemon.store.indexed())
        assert line.push(daemon, study) == {0xA700}
        assert line.push(daemon, study[:3]) == {0xA700}
        assert len(list((disk / "state" / "images").rglob("*.dcm"))) == held, "what is turned away is not kept"
        line.disk.leave(MARK + MIB)
        assert line.push(daemon, study[:1]) == {0xA700}, "a little room is not enough"
        line.disk.empty()
        assert line.push(daemon, study) == {0x0000}
        line.all_arrive(daemon, 2)
        said("receive: 0xA700 below the mark, and taken again by itself")

        study = line.study()
        describe = daemon.index._describe
        filled = threading.Event()

        def fill_once(*arguments: Any) -> Any:
            if not filled.is_set():
                line.disk.leave(0)
                filled.set()
            return describe(*arguments)

        daemon.index._describe = fill_once
        assert line.push(daemon, study[:1]) == {0x0000}
        wait_until(filled.is_set, "the image is looked at")
        time.sleep(1.5)
        assert daemon.index.pending, "the row cannot be written"
        daemon.index._describe = describe
        line.disk.empty()
        assert line.push(daemon, study) == {0x0000}
        line.all_arrive(daemon, 3)
        said("index: full between the answer and the row")

        line.disk.leave(MARK + 3 * MIB)
        study = line.study()
        assert line.push(daemon, study) == {0x0000}
        line.disk.leave(MARK // 2 + MIB // 2)  # a job may begin, and another program takes the rest
        line.disk.leave(LARGE // 2)
        wait_until(lambda: len(daemon.store.jobs()) == 4, "the study is a job", 60)
        assert [job.state for job in daemon.store.jobs()][-1] in (State.WAITING, State.READY)
        line.disk.empty()
        line.all_arrive(daemon, 4)
        said("job: none is begun below half of the mark")

        filled.clear()

        def fill_before() -> None:
            if not filled.is_set():
                line.disk.leave(0)
                filled.set()

        line.before_send = fill_before
        assert line.push(daemon, line.study()) == {0x0000}
        wait_until(filled.is_set, "something is to be sent", 60)
        wait_until(lambda: len(line.archive.paths) > 8, "the archive got it", 60)
        line.disk.empty()
        line.all_arrive(daemon, 5)
        said("send: full between the archive's answer and the row")
        # one that was sent when its row could not be written was sent again, to the archive that had it
        assert max(line.archive.sent.values()) <= 4

    with line.archive, line.serving() as daemon:
        line.all_arrive(daemon, 5)
        assert {job.attempts for job in daemon.store.jobs()} == {0}
        said("and after a restart all is as it was")


def said(what: str) -> None:
    print(f"good: {what}", flush=True)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # so that a worker can import what is played here
    run(Path(sys.argv[1]), Path(sys.argv[2]))
