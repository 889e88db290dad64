"""The daemon: the parts wired together, over real associations; only the physics is played."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import requests
from structlog.testing import capture_logs

import dicom_node.daemon
from demo.archive import Archive
from demo.scanner import push
from dicom_node import trail
from dicom_node.alone import LOCK_FILE, AlreadyRunning, alone_in, process
from dicom_node.call import Destination, SendSettings
from dicom_node.commands import main
from dicom_node.config import Config
from dicom_node.convert import describe
from dicom_node.daemon import Daemon
from dicom_node.recipes import Recipe
from dicom_node.send import Delivery
from dicom_node.settings import Audit, Send
from dicom_node.states import State
from dicom_node.status import in_words, status
from tests.committing import CommittingArchive
from tests.dicom_node.plays import play, play_murderously, play_slowly
from tests.dicom_node.test_commit import Line
from tests.dicom_node.test_execute import is_gone
from tests.e2e.phantom import simple_head
from tests.peers import free_port, wait_until
from tests.simulation.siemens import write_siemens

ROOT = Path(__file__).parents[2]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive") as archive:
        yield archive


def a_config(folder: Path, *archives: Archive, quiet_time: float = 0.5) -> Config:
    return Config.model_validate(
        {
            "node": {"state_folder": folder / "state", "tick": 0.1},
            "receive": {"port": 0},
            "watch": {"port": 0},
            "group": {"quiet_time": quiet_time},
            "reconstruct": {"pause": 0.0, "attempts": 2},
            "send": {"first_pause": 0.1, "response_timeout": 5.0},
            "destination": [
                {"name": f"archive{n}", "host": archive.host, "port": archive.port, "ae_title": archive.ae_title}
                for n, archive in enumerate(archives)
            ],
        }
    )


@contextmanager
def serving(
    config: Config, monkeypatch: pytest.MonkeyPatch, work: Callable[[Path, Recipe], Path] = play, **parts: object
) -> Iterator[Daemon]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that a worker can import what is played here
    daemon = Daemon(config, work=work, **parts)  # type: ignore[arg-type]  # whatever part a test replaces
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        wait_until(lambda: daemon.receiver._listeners, "the receiver listens")
        yield daemon
    finally:
        daemon.stop()
        thread.join(60)
        assert not thread.is_alive(), "the daemon does not stop"


def a_study(folder: Path, seed: int = 1) -> list[Path]:
    return write_siemens(simple_head(seed, shape=(8, 8, 4)), folder / f"study{seed}")


def send(files: Sequence[Path], daemon: Daemon) -> None:
    assert {d.status for d in push(files, "127.0.0.1", daemon.receiver.port, "QSMNODE")} == {0}


def states(daemon: Daemon) -> list[State]:
    return [job.state for job in daemon.store.jobs()]


def wait_for(daemon: Daemon, *expected: State) -> None:
    wait_until(lambda: states(daemon) == list(expected), f"jobs are {expected}", 60)


def test_a_study_goes_through_and_a_late_image_makes_a_revision(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = a_study(tmp_path)
    last_slice = [path for path in whole if int(path.stem[2:]) % 4 == 0]
    first_slices = [path for path in whole if path not in last_slice]
    with serving(a_config(tmp_path, archive), monkeypatch) as daemon:
        send(first_slices, daemon)
        wait_for(daemon, State.SENT)
        assert len(archive.paths) == 2
        send(first_slices, daemon)  # once more: nothing new
        send(last_slice[:1], daemon)
        wait_for(daemon, State.SENT, State.INCOMPLETE)
        send(last_slice[1:], daemon)
        wait_for(daemon, State.SENT, State.SENT)
        assert [job.revision for job in daemon.store.jobs()] == [1, 2]
        assert len(archive.paths) == 4
        assert set(archive.sent.values()) == {1}


def _named(name: str) -> Any:
    return attrgetter(name)(dicom_node.daemon)


def test_the_port_is_open_while_a_large_spool_is_read_and_no_job_is_made_of_a_part(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the loss of a database: half of a study lies in the spool, the other half comes meanwhile."""
    config = a_config(tmp_path, archive, quiet_time=0.1)
    study = a_study(tmp_path)
    first_half = len(study) // 2
    with serving(config, monkeypatch) as daemon:
        send(study[:first_half], daemon)
    for lost in ("node.db", "ledger"):
        (config.node.state_folder / lost).rename(tmp_path / lost)
    going_on = threading.Event()
    described = itertools.count(1)
    gone_round: list[str] = []

    def slowly(*arguments: Any) -> Any:
        if next(described) == 3:  # rows of two are there, as of a part of the spool
            going_on.wait(30)
        return describe(*arguments)

    def noting(name: str, do: Callable[..., Any] = lambda *_: None) -> Callable[..., Any]:
        def noted(*arguments: Any, **more: Any) -> Any:
            gone_round.append(name)
            return do(*arguments, **more)

        return noted

    monkeypatch.setattr("dicom_node.daemon.describe", slowly)
    monkeypatch.setattr("dicom_node.index.BATCH", 1)
    monkeypatch.setattr("dicom_node.daemon.CLEAN_UP_EVERY", 0.1)
    for name in ("regroup", "Narrator.__call__", "Dispatch.__call__", "Vouch.__call__", "Sweeper.__call__"):
        monkeypatch.setattr(f"dicom_node.daemon.{name}", noting(name, _named(name)))
    for name in ("Fetcher.__call__", "Lookout.__call__", "Catalogue.__call__"):
        monkeypatch.setattr(f"dicom_node.daemon.{name}", noting(name))
    here = {"address": "127.0.0.1", "may": ["store", "query", "retrieve"]}
    asking = config.model_dump(by_alias=True) | {
        "fetch": {"schedule": "0 3 * * *", "peer": "pacs"},
        "peer": [
            {**here, "name": "pacs", "ae_title": "PACS", "port": 104},
            {**here, "name": "mr", "ae_title": "SCANNER"},
        ],
    }
    with serving(Config.model_validate(asking), monkeypatch) as daemon:
        send(study[first_half:], daemon)
        wait_until(lambda: daemon.store.indexed(), "rows tell of a part")
        wait_until(lambda: gone_round.count("Narrator.__call__") > 3, "what need not wait goes round")
        assert f"{daemon.index.backlog} files of the spool to be read" in daemon._status()
        assert b"qsm_node_spool_unread_files 0.0" not in daemon.watcher.metrics.encoded("text/plain")[0]
        assert {*gone_round} == {"Narrator.__call__"}
        assert not {"group", "dispatch"} & daemon.watcher.pulse.beats().keys(), "nobody is told that they ended well"
        going_on.set()
        wait_until(lambda: len({*gone_round}) == 8, "all go round")
        wait_for(daemon, State.SENT)
        assert len(daemon.store.jobs()[0].images) == len(study)


def test_stopping_hands_a_running_job_back_and_leaves_no_worker(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_config(tmp_path, archive)
    mark = config.node.state_folder / "jobs" / "1" / "pid"
    with serving(config, monkeypatch, play_slowly) as daemon:
        send(a_study(tmp_path), daemon)
        wait_until(lambda: mark.is_file() and mark.read_text(), "the worker works", 60)
    assert is_gone(int(mark.read_text()))
    [job] = daemon.store.jobs()
    assert (job.state, job.attempts, job.reason) == (State.READY, 0, "handed back: the node was stopped")
    with serving(config, monkeypatch, play_slowly) as daemon:
        wait_for(daemon, State.SENT)
    assert set(archive.sent.values()) == {1}


def test_a_job_that_kills_its_worker_fails_alone(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(a_config(tmp_path, archive), monkeypatch, play_murderously) as daemon:
        send(a_study(tmp_path, 1), daemon)
        wait_until(lambda: states(daemon) not in ([], [State.WAITING]), "the first study is a job", 60)
        send(a_study(tmp_path, 2), daemon)
        wait_for(daemon, State.FAILED, State.SENT)
        failed = daemon.store.jobs(State.FAILED)[0]
        assert "killed by SIGKILL" in failed.reason
        assert "attempt 2 of 2" in failed.reason


def test_a_job_is_cancelled_and_taken_up_again_while_the_node_runs(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_config(tmp_path, archive)
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\nstate_folder = "{config.node.state_folder}"\n')
    mark = config.node.state_folder / "jobs" / "1" / "pid"
    with serving(config, monkeypatch, play_slowly) as daemon:
        send(a_study(tmp_path), daemon)
        wait_until(lambda: mark.is_file() and mark.read_text(), "the worker works", 60)
        assert main(["cancel", "1", "--config", str(file)]) == 0
        wait_until(lambda: is_gone(int(mark.read_text())) and not daemon.dispatch.running, "the worker is stopped", 60)
        assert (states(daemon), archive.paths) == ([State.CANCELLED], {})
        assert main(["retry", "1", "--config", str(file)]) == 0
        wait_for(daemon, State.SENT)
    assert set(archive.sent.values()) == {1}


def test_a_dead_archive_keeps_nothing_from_the_living_one(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Archive(tmp_path / "dead", port=free_port())
    with serving(a_config(tmp_path, dead, archive), monkeypatch) as daemon:
        send(a_study(tmp_path), daemon)
        wait_until(lambda: len(archive.paths) == 2, "the living archive has it", 60)
        assert states(daemon) == [State.SENDING]
        with dead:
            wait_for(daemon, State.SENT)
            assert set(dead.paths) == set(archive.paths)


def test_a_round_that_fails_is_told_and_comes_again(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([OSError("the disk hiccups"), ZeroDivisionError("a fault of ours")])

    def hiccup(*arguments: object, **more: object) -> str:
        for failure in failures:
            raise failure
        return regroup(*arguments, **more)  # type: ignore[arg-type]  # the arguments are passed on

    from dicom_node.regroup import regroup

    monkeypatch.setattr("dicom_node.daemon.regroup", hiccup)
    with capture_logs() as told, serving(a_config(tmp_path, archive), monkeypatch) as daemon:
        send(a_study(tmp_path), daemon)
        wait_for(daemon, State.SENT)
    failed = [line for line in told if line["event"] == "round_failed"]
    assert [line.get("error") for line in failed] == ["the disk hiccups", None]
    assert failed[1]["exc_info"]  # a fault of ours comes with its traceback


def test_without_a_destination_the_result_stays_and_is_sent_once_there_is_one(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(a_config(tmp_path), monkeypatch) as daemon:
        send(a_study(tmp_path), daemon)
        wait_for(daemon, State.RECONSTRUCTED)
    with serving(a_config(tmp_path, archive), monkeypatch) as daemon:
        wait_for(daemon, State.SENT)
    assert len(archive.paths) == 2


def test_a_destination_that_was_taken_out_of_the_configuration_is_told(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(files: Sequence[Path], to: Destination, settings: SendSettings) -> Iterator[Delivery]:
        from dicom_node.errors import PeerFailure

        raise PeerFailure("asleep")

    with serving(a_config(tmp_path, archive), monkeypatch, send_function=never) as daemon:
        send(a_study(tmp_path), daemon)
        wait_for(daemon, State.SENDING)
    with serving(a_config(tmp_path), monkeypatch) as daemon:
        wait_for(daemon, State.REFUSED)
        assert "no longer configured" in daemon.store.jobs()[0].reason


def test_what_is_asked_of_a_node_that_stops_has_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(a_config(tmp_path), monkeypatch) as daemon:
        wait_until(lambda: daemon.watcher.port, "the page is there")
        url = f"http://127.0.0.1:{daemon.watcher.port}"
        may_end = threading.Event()
        stop = daemon.receiver.stop

        def stop_slowly() -> None:
            stop()
            may_end.wait(20)

        monkeypatch.setattr(daemon.receiver, "stop", stop_slowly)
        daemon.stop()
        wait_until(lambda: not daemon.receiver._listeners, "the receiver has stopped")
        found = requests.get(f"{url}/health", timeout=20)
        page = requests.get(url, timeout=20)
        may_end.set()
    assert (found.status_code, "the node stops" in found.text, page.status_code) == (503, True, 200)


def test_somebody_who_looks_who_serves_keeps_no_node_from_starting(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        pass
    with (tmp_path / LOCK_FILE).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        release = threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN))
        release.start()
        with alone_in(tmp_path), pytest.raises(AlreadyRunning, match="another process serves"), alone_in(tmp_path):
            pass
        release.join()


def test_an_audit_repository_that_is_gone_for_good_is_told_by_status_and_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "PARTING", 0.1)
    config = a_config(tmp_path).model_copy(update={"audit": Audit(host="127.0.0.1", port=free_port())})
    folder = config.node.state_folder
    with serving(config, monkeypatch) as daemon, alone_in(folder) as tell:
        wait_until(lambda: daemon.watcher.port, "it is watched")
        disk_is_full = iter([OSError(errno.ENOSPC, "No space left on device")])

        def tell_later(content: dict[str, float | str]) -> None:
            for error in disk_is_full:
                raise error
            tell(content)

        daemon._tell = tell_later
        monkeypatch.setattr(trail, "SILENT_AFTER", 0.0)
        wait_until(lambda: process(folder / LOCK_FILE).get("audit"), "it is told")
        assert "audit trail: the audit repository has taken nothing since" in in_words(status(folder, 0.0), 0.0, 200)
        answer = requests.get(f"http://127.0.0.1:{daemon.watcher.port}/health", timeout=10)
    assert answer.status_code == 503
    assert "has taken nothing since" in answer.json()["checks"]["audit"]["found"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_real_process_stops_on_signals_and_tells_no_traceback(tmp_path: Path, number: int) -> None:
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nstate_folder = "{tmp_path / "state"}"\n[receive]\nport = 0\n'
        '[watch]\nhost = ""\n[log]\nstyle = "json"\n'
    )
    command = [Path(sys.executable).with_name("qsm-node"), "serve", "--config", config]
    told = []
    node = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert node.stderr is not None
        for line in node.stderr:
            told.append(json.loads(line))
            if told[-1]["event"] == "serving":
                node.send_signal(number)
        assert node.wait(60) == 0
    finally:
        node.kill()
    assert [line["event"] for line in told] == ["listening", "serving", "stopping", "stopped"]


def test_a_port_that_is_taken_is_one_message(tmp_path: Path, archive: Archive) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\nstate_folder = "{tmp_path / "state"}"\n[receive]\nport = {archive.port}\n')
    command = [Path(sys.executable).with_name("qsm-node"), "serve", "--config", config]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1
    assert "Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("way", ["reload", "start"])
def test_a_destination_that_was_mended_in_the_configuration_is_called_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (tmp_path / "state").mkdir()
    line = Line(tmp_path / "state", ["archive0"])
    with CommittingArchive(tmp_path / "archive") as archive, ExitStack() as running:
        config = a_config(tmp_path, archive)
        right = config.destinations[0].model_copy(update={"commitment": True})
        an_hour = {"send": Send(first_pause=3600.0)}
        mended = config.model_copy(update=an_hour | {"destinations": (right,)})
        wrong = right.model_copy(update={"port": free_port()})
        broken = mended.model_copy(update={"destinations": (wrong,)})
        daemon = running.enter_context(serving(broken, monkeypatch, read=lambda: mended))
        wait_until(lambda: daemon.store.rows("SELECT 1 FROM pauses"), "it was called in vain", 60)
        assert not archive.paths
        if way == "reload":
            daemon.reload()
        else:
            running.close()
            daemon = running.enter_context(serving(mended, monkeypatch))
        wait_for(daemon, State.ARCHIVED)
        assert set(archive.paths) == set(line.uids)


def test_what_was_under_way_when_commitment_was_switched_on_is_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    line = Line(tmp_path / "state", ["archive0"], committing=[])
    with CommittingArchive(tmp_path / "archive") as archive:
        plain = a_config(tmp_path, archive)
        asked = plain.destinations[0].model_copy(update={"commitment": True})
        with serving(plain.model_copy(update={"destinations": (asked,)}), monkeypatch) as daemon:
            wait_for(daemon, State.ARCHIVED)
        assert set(archive.paths) == set(line.uids)
