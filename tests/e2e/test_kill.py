"""kill -9 at every state of the table: after a restart every result is in the archive, exactly once.

Everything is real: the node in a process of its own, a scanner and an archive over associations, the reconstruction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from demo.archive import Archive
from demo.scanner import push
from dicom_node.commands import main
from dicom_node.dispatch import NODE_ENDED
from dicom_node.errors import PeerFailure
from dicom_node.states import State
from tests.committing import CommittingArchive
from tests.e2e.phantom import simple_head
from tests.e2e.serving import Serving
from tests.simulation.siemens import write_siemens

KILLED_ON_THE_WAY = (
    State.WAITING,
    State.READY,
    State.RECONSTRUCTING,
    State.RECONSTRUCTED,
    State.SENDING,
    State.SENT,
)
KILLED_BESIDE_IT = (State.FOREIGN, State.INCOMPLETE, State.FAILED, State.REFUSED)
KILLED_BEFORE_A_DECISION = (State.REVIEW,)
KILLED_AFTER_IT = (State.ARCHIVED,)
KILLED_WHEN_STOPPED = (State.CANCELLED,)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_siemens(simple_head(seed=11), tmp_path_factory.mktemp("study"))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive") as archive:
        yield archive


def send(files: Sequence[Path], node: Serving) -> None:
    """What a scanner does: sends, and when the association breaks, or the node is down, sends all of it again later."""
    try:
        answers = [delivery.status for delivery in push(files, "127.0.0.1", node.port, "QSMNODE")]
    except PeerFailure:
        node.wait_until(lambda: node.ended, "killed: the node broke off although nobody killed it")
    else:
        assert answers == [0x0000] * len(files)


def assert_exactly_once(archive: Archive, node: Serving, job: int, at_most_repeated: int = 0) -> None:
    made = {
        str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for path in (node.state_folder / "jobs" / str(job) / "result" / "dicom").iterdir()
    }
    assert len(made) > 2
    assert set(archive.paths) == made, "the archive holds something else than the job made"
    repeated = [uid for uid, count in archive.sent.items() if count > 1]
    assert len(repeated) <= at_most_repeated, "what the archive had acknowledged was sent again"
    headers = [dcmread(path, stop_before_pixels=True) for path in archive.paths.values()]
    series = [(header.SeriesInstanceUID, header.get("InstanceNumber")) for header in headers]
    assert len(set(series)) == len(series), "one image of a series is there under two UIDs"


def test_the_sweep_visits_every_state() -> None:
    visited = (
        *(*KILLED_ON_THE_WAY, *KILLED_BESIDE_IT, *KILLED_BEFORE_A_DECISION),
        *(*KILLED_AFTER_IT, *KILLED_WHEN_STOPPED),
    )
    assert set(visited) == set(State)


def test_killed_at_every_state_on_the_way(tmp_path: Path, archive: Archive, study: list[Path]) -> None:
    with Serving(tmp_path, archive.port) as node:
        node.start(kill_at=State.WAITING)
        send(study[:-1], node)  # with the last it might be ready at the first look
        node.wait_killed()
        assert node.states() == {1: State.WAITING}

        node.start(kill_at=State.READY)
        send(study, node)
        node.wait_killed()
        assert node.states() == {1: State.READY}

        for state in KILLED_ON_THE_WAY[2:5]:
            node.start(kill_at=state)
            node.wait_killed()
            assert node.states() == {1: state}

        stored: list[str] = []

        def kill_in_the_middle(uid: str) -> int:
            stored.append(uid)
            if len(stored) == 5:
                node.kill()
            return 0x0000

        archive._answer = kill_in_the_middle  # the archive plays the accident
        node.start()
        node.wait_until(lambda: node.ended, "killed while it sends")
        assert node.states() == {1: State.SENDING}

        node.start(kill_at=State.SENT)
        node.wait_killed()
        assert node.states() == {1: State.SENT}

        node.start()
        assert node.stop() == 0
        assert node.states() == {1: State.SENT}
        assert_exactly_once(archive, node, 1, at_most_repeated=1)
        assert node.moves(1).count(State.RECONSTRUCTED) == 1, "a finished reconstruction was thrown away"


def test_killed_at_every_state_beside_the_way(tmp_path: Path, archive: Archive, study: list[Path]) -> None:
    """A foreign series, an image that is late, a worker that dies with its node and then runs out of time, a picky
    archive.
    """
    localiser = write_localiser(study[0], tmp_path / "localiser.dcm")
    *early, late = study
    with Serving(tmp_path, archive.port, reconstruct={"attempts": 1, "time_limit": 0.01}) as node:
        node.start(kill_at=State.FOREIGN)
        send([localiser, *early], node)
        node.wait_killed()

        node.start(kill_at=State.INCOMPLETE)
        send([localiser, *early], node)
        node.wait_killed()
        [(job, reason)] = node.rows("SELECT id, reason FROM jobs WHERE state = 'incomplete'")
        assert "phase" in reason, "the hole is not named"

        node.start(kill_at=State.RECONSTRUCTING)
        send([late], node)
        node.wait_killed()
        node.start(kill_at=State.FAILED)
        node.wait_killed()
        assert node.states()[job] is State.FAILED
        reasons = [reason for (reason,) in node.rows(f"SELECT reason FROM journal WHERE job = {job}")]
        assert NODE_ENDED in reasons, "the end of the node was the job's only attempt"
        node.config.write_text(node.config.read_text().replace("time_limit = 0.01", "time_limit = 600.0"))

        refused: list[str] = []

        def turn_one_down(uid: str) -> int:
            refused[:] = refused or [uid]
            return 0xA900 if uid in refused else 0x0000

        archive._answer = turn_one_down
        assert main(["retry", str(job), "--config", str(node.config)]) == 0
        node.start(kill_at=State.REFUSED)
        node.wait_killed()
        [(reason,)] = node.rows(f"SELECT reason FROM jobs WHERE id = {job}")
        assert "0xA900" in reason, "the peer's answer is not told"

        archive._answer = lambda uid: 0x0000
        assert main(["retry", str(job), "--config", str(node.config)]) == 0
        node.start()
        node.wait_for(State.SENT, job)
        assert node.stop() == 0
        assert_exactly_once(archive, node, job)
        assert sorted(node.states().values()) == [State.FOREIGN, State.SENT]


def test_killed_around_the_commitment(tmp_path: Path, study: list[Path]) -> None:
    """Before it is asked, between question and answer, and when the last answer has come."""
    with (
        CommittingArchive(tmp_path / "archive", answer_on="none") as archive,
        Serving(tmp_path, archive.port, commitment=True) as node,
    ):
        archive.listener = ("127.0.0.1", node.port)
        node.start(kill_at=State.SENT)
        send(study, node)
        node.wait_killed()
        assert (node.states(), archive.asked) == ({1: State.SENT}, {})

        node.start()
        node.wait_until(lambda: archive.asked, "commitment is asked for")
        node.kill()
        assert node.states() == {1: State.SENT}

        node.start(kill_at=State.ARCHIVED)
        [transaction] = archive.asked
        with pytest.raises(ConnectionError):  # killed before it could respond
            archive.report(transaction)
        node.wait_killed()
        assert node.states() == {1: State.ARCHIVED}

        node.start()
        archive.report(transaction)
        assert archive.reported == [0x0000], "an answer that was not acknowledged comes again"
        assert node.stop() == 0
        assert node.states() == {1: State.ARCHIVED}
        assert len(archive.asked) == 1
        assert_exactly_once(archive, node, 1)


def test_killed_while_a_decision_is_waited_for(tmp_path: Path, archive: Archive) -> None:
    """A head whose phase lies in its files the other way round, until the site says so of its scanner."""
    head = simple_head(seed=12)
    turned = replace(head, acquisition=replace(head.acquisition, phase=-head.acquisition.phase))
    study = write_siemens(turned, tmp_path / "turned")
    for path in study:
        image = dcmread(path)
        image.DeviceSerialNumber = "4711"
        image.save_as(path)
    with Serving(tmp_path, archive.port) as node:
        node.start(kill_at=State.REVIEW)
        send(study, node)
        node.wait_killed()
        assert node.states() == {1: State.REVIEW}

        node.start()
        assert node.stop() == 0
        assert node.states() == {1: State.REVIEW}, "nobody has decided anything"
        assert archive.paths == {}

        with node.config.open("a") as config:
            config.write('\n[[scanner]]\nserial_number = "4711"\nphase_sign = "flip"\n')
        assert main(["retry", "1", "--config", str(node.config)]) == 0
        node.start()
        node.wait_for(State.SENT, 1)
        assert node.stop() == 0
        assert_exactly_once(archive, node, 1)


@pytest.mark.slow
def test_killed_around_a_cancel_and_then_made_with_two_recipes(
    tmp_path: Path, archive: Archive, study: list[Path]
) -> None:
    """What people asked for holds through it, and the second recipe's results stand beside the first's."""
    # A head of this size is no honest test of the fast recipe's quality.
    with Serving(tmp_path, archive.port, reconstruct={"withhold_failed": False}) as node:
        node.start(kill_at=State.RECONSTRUCTING)
        send(study, node)
        node.wait_killed()
        assert main(["cancel", "1", "--config", str(node.config)]) == 0
        node.start()
        assert node.stop() == 0
        assert (node.states(), archive.paths) == ({1: State.CANCELLED}, {})

        assert main(["retry", "1", "--config", str(node.config)]) == 0
        node.start()
        node.wait_for(State.SENT, 1)
        assert_exactly_once(archive, node, 1)
        first = set(archive.paths)

        assert main(["reprocess", "1", "--recipe", "fast", "--config", str(node.config)]) == 0
        node.wait_for(State.SENT, 2)
        assert node.stop() == 0
        assert set(archive.sent.values()) == {1}, "what was there already was sent again"
        second = set(archive.paths) - first
        assert second
        assert first <= set(archive.paths)
        old, new = (
            {(h.SeriesInstanceUID, int(h.SeriesNumber), str(h.SeriesDescription)) for h in _headers(archive, uids)}
            for uids in (first, second)
        )
        assert {uid for uid, _, _ in old}.isdisjoint(uid for uid, _, _ in new)
        assert {(number + 1_000_000, f"{text}, recipe fast") for _, number, text in old} >= {
            (number, text) for _, number, text in new
        }


def _headers(archive: Archive, uids: set[str]) -> list[Dataset]:
    return [dcmread(archive.paths[uid], stop_before_pixels=True) for uid in uids]


def write_localiser(like: Path, path: Path) -> Path:
    """A derived image in the same study: never part of an acquisition."""
    image = dcmread(like)
    image.ImageType = ["DERIVED", "PRIMARY", "MPR"]
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{image.SOPInstanceUID}.1"[-60:].lstrip(".0")
    image.SeriesInstanceUID = f"{image.SeriesInstanceUID}.1"[-60:].lstrip(".0")
    image.SeriesNumber = 1
    image.save_as(path)
    return path
