"""`qsm-node check`: each trouble is told with what to do, and whoever scripts it can rely on the exit code."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from demo.archive import Archive
from dicom_node.commands import main
from dicom_node.commands._common import DONE, FAILURE
from tests.certificates import Authority
from tests.peers import free_port


def run(folder: Path, capsys: pytest.CaptureFixture[str], text: str = "", port: int = 0) -> tuple[int, str]:
    file = folder / "node.toml"
    file.write_text(f'[node]\nstate_folder = "{folder / "state"}"\n[receive]\nport = {port or free_port()}\n{text}')
    code = main(["check", "--config", str(file)])
    return code, capsys.readouterr().out


def destination(port: int, name: str = "pacs", more: str = "") -> str:
    return f'[[destination]]\nname = "{name}"\nhost = "127.0.0.1"\nport = {port}\nae_title = "ARCHIVE"\n{more}\n'


def test_all_is_good_where_the_archive_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Archive(tmp_path / "archive") as archive:
        code, told = run(tmp_path, capsys, destination(archive.port))
    assert (code, "FAILURE" in told, "warning" in told) == (DONE, False, False), told
    assert "C-ECHO pacs" in told


def test_what_is_wrong_is_told_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, told = run(tmp_path, capsys, destination(free_port()), port=taken.getsockname()[1])
    assert code == FAILURE
    failures = [line for line in told.splitlines() if line.startswith("FAILURE")]
    assert len(failures) == 2
    assert "Address already in use; end who has it, or take another" in failures[0]
    assert "took no TCP connection" in failures[1]


def test_a_door_that_is_open_to_all_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(tmp_path, capsys, 'host = "0.0.0.0"')
    assert code == DONE
    assert "whoever reaches 0.0.0.0 may send images" in told
    assert "results stay in the state folder" in told


def test_a_certificate_is_read_and_its_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = Authority.make(tmp_path / "hospital").sign("node.example")
    tls = f'[tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"\nauthorities = "{files.authorities}"\n'
    tls += f"port = {free_port()}\n"
    code, told = run(tmp_path, capsys, tls)
    assert code == DONE
    assert "warning  certificate" in told
    assert "ends in 2 days: renew" in told
    files.key.write_text("no key")
    code, told = run(tmp_path, capsys, tls)
    assert code == FAILURE
    assert "a key of that certificate without a password" in told


def test_a_folder_that_may_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.check.os.access", lambda path, mode: False)  # the tests may run as root
    code, told = run(tmp_path, capsys)
    assert code == FAILURE
    assert "may not be written by this user" in told
