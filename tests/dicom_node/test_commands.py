"""The command line: exit codes and words."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from dicom_node import config as configuration
from dicom_node.alone import alone_in
from dicom_node.commands import _common, main, status
from dicom_node.errors import NodeError
from dicom_node.states import State
from dicom_node.store import Objection, Store
from tests.dicom_node.making import a_ready_job, the_job


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\nstate_folder = "{tmp_path / "state"}"\n')
    return file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "state").mkdir()
    return Store(tmp_path / "state" / "node.db")


def walk(store: Store, *states: State, job: int | None = None) -> int:
    job = a_ready_job(store) if job is None else job
    for state in states:
        here = the_job(store, job).state
        if (here, state) == (State.READY, State.RECONSTRUCTING):
            assert store.claim(2.0, lease=1, ceiling=9)
        else:
            assert store.advance(job, here, state, 3.0, "no brain found" if state is State.FAILED else "")
    return job


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"qsm-node {version('qsm-node')}\n"


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["cancel"], ["retry", "x"], ["reconstruct", "."]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: qsm-node" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve"], ["status"], ["retry", "1"], ["reconstruct", ".", "--out", "out"]])
def test_a_bad_configuration_is_2_and_one_message(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[receive]\nport = 'x'\nprot = 1")
    assert main([*command, "--config", str(bad)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("qsm-node: ")
    assert "receive.port" in told
    assert "receive.prot" in told
    assert "Traceback" not in told


def test_a_folder_that_is_not_there_and_a_recipe_that_is_not_there_are_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(["reconstruct", str(tmp_path), "--out", str(tmp_path / "out"), "--recipe", "nonesuch"]) == 2
    assert "recipe 'nonesuch'" in capsys.readouterr().err


def test_a_folder_with_nothing_in_it_is_3(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert main(["reconstruct", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 3


@pytest.fixture
def installed(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service of this machine, with one job."""
    folder = tmp_path / "etc"
    folder.mkdir()
    file = folder / "node.toml"
    file.write_text(f'[node]\nstate_folder = "{store.path.parent}"\n')
    monkeypatch.setattr(_common, "INSTALLED", file)
    walk(store, State.RECONSTRUCTING, State.FAILED)
    return file


def test_commands_about_a_node_are_about_the_service_of_this_machine(
    installed: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    assert "no brain found" in capsys.readouterr().out
    assert main(["retry", "1"]) == 0
    assert main(["check", "--settings", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])[0]["found"] == str(installed)
    config.write_text(f'[node]\nstate_folder = "{installed.parent}"\n')
    assert main(["status", "--config", str(config)]) == 1, "what is named goes before it"


def test_at_a_desk_no_service_is_asked(installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed.write_text("nonsense")
    (tmp_path / "in").mkdir()
    assert main(["inspect", str(tmp_path / "in")]) == 3
    assert main(["reconstruct", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--recipe", "nonesuch"]) == 2
    assert "recipe 'nonesuch'" in capsys.readouterr().err, "the configuration was none"
    assert main(["status"]) == 2
    assert str(installed) in capsys.readouterr().err


def test_who_may_not_read_the_service_s_configuration_is_told_how(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = tmp_path / "defaults.toml"
    defaults.write_text(f'[node]\nstate_folder = "{tmp_path / "home"}"\n')
    load = configuration.load
    monkeypatch.setattr(configuration, "load", lambda file: load(file or defaults))
    monkeypatch.setattr(_common.os, "access", lambda path, mode: False)  # the tests may run as root
    assert main(["status"]) == 1
    told = capsys.readouterr().err
    assert f"no node was ever started in {tmp_path / 'home'}; " in told
    assert "sudo -u qsm-node qsm-node" in told
    assert main(["check", "--settings", "--json"]) == 0
    [looked_at, *_] = json.loads(capsys.readouterr().out)
    assert (looked_at["verdict"], "service may not be read" in looked_at["found"]) == ("warning", True)

    is_file = Path.is_file

    def hidden(path: Path) -> bool:
        if path.name == "node.db":
            raise PermissionError
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", hidden)
    with pytest.raises(NodeError, match=r"may not be looked into; .*sudo -u qsm-node"):
        _common.state_folder_of(None)


@pytest.mark.parametrize("command", [["serve"], ["rebuild"], ["export", "1", "--csv", "table.csv"]])
def test_root_leaves_nothing_in_the_folder_of_another_user(
    command: list[str],
    config: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    walk(store, State.RECONSTRUCTING, State.FAILED)
    before = sorted(store.path.parent.iterdir())
    monkeypatch.setattr(_common.os, "geteuid", lambda: 0)
    stat = Path.stat

    def of_another(path: Path, **more: bool) -> os.stat_result:
        found = list(stat(path, **more))
        return os.stat_result([*found[:4], 65534, *found[5:]]) if path == store.path else os.stat_result(found)

    monkeypatch.setattr(Path, "stat", of_another)
    assert main([*command, "--config", str(config)]) == 1
    assert f"{store.path} belongs to " in (told := capsys.readouterr().err)
    assert "who could not use what root makes there: sudo -u" in told
    assert sorted(store.path.parent.iterdir()) == before


def test_nobody_reads_on(config: Path, store: Store) -> None:
    with subprocess.Popen(
        [Path(sys.executable).with_name("qsm-node"), "status", "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    ) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_another_broken_pipe_is_told(
    config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(status, "_look", broken)
    monkeypatch.setattr(status, "state_folder_of", lambda config: config)
    assert main(["status", "--config", str(config)]) == 1
    assert "Broken pipe" in capfd.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["retry", "1"]])
def test_a_node_that_never_ran_says_so(command: list[str], config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--config", str(config)]) == 1
    assert "no node was ever started in" in capsys.readouterr().err
    assert not (config.parent / "state").exists(), "asking must not make anything"


def test_status_tells_jobs_foreign_and_what_was_not_taken(
    config: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job = walk(store, State.RECONSTRUCTING, State.FAILED)
    for number, reason in enumerate(["localiser", "localiser", "phase difference"]):
        foreign = store.open_job(f"foreign {number}", 1, "1.2.3", [], 1.0).id
        store.advance(foreign, State.WAITING, State.FOREIGN, 2.0, reason)
    store.object_to(Objection(5.0, "/q/1.json", "SCANNER", "truncated"))
    assert main(["status", "--config", str(config)]) == 0
    words = capsys.readouterr().out
    assert re.search(rf"(?m)^ *{job}  failed", words)
    for expected in ("not running", "no brain found", "2 × localiser", "truncated: /q/1.json"):
        assert expected in words
    assert main(["status", "--json", "--config", str(config)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(j["id"], j["state"], j["reason"], j["attempts"]) for j in found["jobs"]] == [
        (job, "failed", "no brain found", 1)
    ]
    assert found["foreign"] == [{"reason": "localiser", "count": 2}, {"reason": "phase difference", "count": 1}]
    assert found["quarantine"][0]["peer"] == "SCANNER"
    assert found["node"]["running"] is False


def test_status_tells_who_serves(config: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with alone_in(store.path.parent) as tell:
        tell({"pid": 42, "port": 11112})
        script = "import sys; from dicom_node.commands import main; sys.exit(main(sys.argv[1:]))"
        told = subprocess.run(
            [sys.executable, "-c", script, "status", "--config", config], capture_output=True, text=True, check=True
        )
    assert "running as process 42 on port 11112" in told.stdout
    main(["status", "--config", str(config)])
    assert "not running" in capsys.readouterr().out


@pytest.mark.parametrize("states", [(State.FAILED,), (State.REVIEW,), (State.RECONSTRUCTED, State.SENDING, State.SENT)])
def test_retry_runs_failed_and_sent_jobs_again_with_all_their_attempts(
    states: tuple[State, ...], config: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job = walk(store, State.RECONSTRUCTING, *states)
    assert main(["retry", str(job), "--config", str(config)]) == 0
    assert capsys.readouterr().out == f"job {job} is run again\n"
    assert (the_job(store, job).state, the_job(store, job).attempts) == (State.READY, 0)


def test_retry_sends_again_what_was_turned_down(config: Path, store: Store) -> None:
    job = walk(store, State.RECONSTRUCTING, State.RECONSTRUCTED, State.SENDING, State.REFUSED)
    assert main(["retry", str(job), "--config", str(config)]) == 0
    assert the_job(store, job).state is State.SENDING


@pytest.mark.parametrize("states", [(), (State.RECONSTRUCTING,), (State.WAITING,), (State.WAITING, State.INCOMPLETE)])
def test_retry_of_a_job_that_needs_none_says_why(
    states: tuple[State, ...], config: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job = walk(store, *states)
    before = the_job(store, job)
    assert main(["retry", str(job), "--config", str(config)]) == 1
    assert f"job {job} is {before.state}" in capsys.readouterr().err
    assert the_job(store, job) == before


def test_retry_of_a_job_that_does_not_exist_says_so(
    config: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retry", "7", "--config", str(config)]) == 1
    assert "there is no job 7" in capsys.readouterr().err


def test_a_second_node_in_the_same_folder_is_turned_away(
    config: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    script = "import sys; from dicom_node.commands import main; sys.exit(main(sys.argv[1:]))"
    with alone_in(store.path.parent):
        ended = subprocess.run(
            [sys.executable, "-c", script, "serve", "--config", config], capture_output=True, text=True, check=False
        )
    assert ended.returncode == 1
    assert "another process serves" in ended.stderr
    assert "Traceback" not in ended.stderr
