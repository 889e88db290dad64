"""A day of traffic in fast-forward: each study ends in one right result, and one revision where a slice was late."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from demo.archive import Archive
from dicom_node.config import Config
from dicom_node.convert import describe
from dicom_node.daemon import Daemon
from dicom_node.group import group
from dicom_node.states import State
from tests.e2e.serving import ROOT
from tests.peers import wait_until
from tests.proof.plays import fingerprint, measure
from tests.proof.traffic import Study, play, timetable

ENDED = {State.SENT, State.FOREIGN, State.FAILED, State.REFUSED, State.INCOMPLETE}


class Threads(ThreadPoolExecutor):
    """In place of processes, for the short day."""

    def __init__(self, workers: int, *_: object, **__: object) -> None:
        super().__init__(workers)
        self.initargs: tuple[object, ...] = ()

    def resident(self) -> int:
        return 0


@pytest.mark.parametrize("studies", [8, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_every_study_of_the_day_ends_in_exactly_one_right_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, studies: int
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that a worker can import what is played here
    if studies < 40:
        monkeypatch.setattr("dicom_node.daemon.ProcessPerJob", Threads)
    day = timetable(tmp_path / "scanners", studies)
    assert any(study.late for study in day)
    assert any(study.broken_off for study in day)
    found, states, acknowledged = run(tmp_path, day)
    expected = {study.uid: Counter(right(study)) for study in day}
    assert found == expected
    assert set(states) == {State.SENT}
    assert len(states) == studies + sum(bool(study.late) for study in day)
    assert acknowledged > sum(len(study.files) for study in day), "nothing was sent twice"


def right(study: Study) -> list[str]:
    """The fingerprints of what clean folders of its files are converted to, with and without the late slice."""
    return [fingerprint_of(study.files), *([fingerprint_of(study.early)] if study.late else [])]


def fingerprint_of(files: Iterable[Path]) -> str:
    instances = [describe(path, 0.0, "") for path in files]
    [acquired] = group(instances, now=0.0, quiet_time=0.0, open_associations=frozenset())
    return fingerprint(acquired)


def run(folder: Path, day: list[Study]) -> tuple[dict[str, Counter[str]], list[State], int]:
    """Results by study as the archive holds them, the states of all jobs, and the images that were acknowledged."""
    with Archive(folder / "archive") as archive:
        daemon = Daemon(_config(folder, archive), work=measure)
        thread = threading.Thread(target=daemon.run)
        thread.start()

        def held() -> dict[str, Counter[str]]:
            found: dict[str, Counter[str]] = {}
            for path in archive.paths.values():
                header = dcmread(path)
                found.setdefault(str(header.StudyInstanceUID), Counter())[str(header.ImageComments)] += 1
            return found

        def delivered(study: Study) -> None:
            wait_until(lambda: study.uid in held(), f"study {study.number} has its first result", 240)

        def at_rest() -> bool:
            states = [job.state for job in daemon.store.jobs()]
            return len(states) >= len(day) + sum(bool(study.late) for study in day) and set(states) <= ENDED

        try:
            wait_until(lambda: daemon.receiver._listeners, "the receiver listens", 60)
            acknowledged = play(day, daemon.receiver.port, seed=len(day), delivered=delivered)
            wait_until(at_rest, "all jobs have ended", 600)
        finally:
            daemon.stop()
            thread.join(60)
        return held(), [job.state for job in daemon.store.jobs()], acknowledged


def _config(folder: Path, archive: Archive) -> Config:
    destination: dict[str, Any] = {"name": "archive", "host": archive.host, "port": archive.port}
    return Config.model_validate(
        {
            "node": {"state_folder": folder / "state", "tick": 0.1},
            "receive": {"port": 0},
            "watch": {"host": ""},
            "group": {"quiet_time": 2.0},
            "reconstruct": {"workers": 2},
            "destination": [destination | {"ae_title": archive.ae_title}],
        }
    )
