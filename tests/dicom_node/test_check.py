"""`qsm-node check`: each trouble is told with what to do, and whoever scripts it can rely on the exit code."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE

from demo.archive import Archive
from dicom_node.check import machine
from dicom_node.check.certificate import certificate
from dicom_node.commands import main
from dicom_node.commands._common import DONE, FAILURE, WRONG_USAGE
from dicom_node.commit import PUSH_MODEL
from dicom_node.fetch import GET, MOVE
from dicom_node.identity import VERIFICATION
from dicom_node.memory import Room
from dicom_node.seek import FIND
from dicom_node.settings import Reconstruct, Retention
from dicom_node.tls import Identity
from tests.certificates import Authority
from tests.dicom_node.test_trail import Repository
from tests.peers import free_port


@pytest.fixture(autouse=True)
def on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wherever the tests run: the table of mounts, to be written anew."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
    monkeypatch.setattr(machine, "MOUNTS", mounts)
    return mounts


def run(folder: Path, capsys: pytest.CaptureFixture[str], text: str = "", port: int = 0) -> tuple[int, dict[str, Any]]:
    """The exit code, and each finding by what was looked at."""
    file = folder / "node.toml"
    watch = f"[watch]\nport = {free_port()}\n"
    file.write_text(
        f'[node]\nstate_folder = "{folder / "state"}"\n{watch}[receive]\nport = {port or free_port()}\n{text}'
    )
    code = main(["check", "--json", "--config", str(file)])
    return code, {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}


def verdicts(found: dict[str, Any]) -> set[str]:
    return {finding["verdict"] for finding in found.values()}


def destination(port: int, name: str = "pacs", more: str = "") -> str:
    return f'[[destination]]\nname = "{name}"\nhost = "127.0.0.1"\nport = {port}\nae_title = "ARCHIVE"\n{more}\n'


def tls_of(files: Any) -> str:
    return (
        f'[tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"\nauthorities = "{files.authorities}"\n'
        f"port = {free_port()}\n"
    )


def test_all_is_good_where_the_archive_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    with Archive(tmp_path / "archive") as archive:
        code, found = run(tmp_path, capsys, destination(archive.port))
    assert (code, verdicts(found)) == (DONE, {"good"}), found
    assert {"recipe", "device", "file system", "room", "durability", "memory", "C-ECHO pacs"} <= set(found)
    assert list((tmp_path / "state").iterdir()) == [], "what was written to try the disk is gone"


def test_a_table_for_people_has_the_remedy_below_the_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\nstate_folder = "{tmp_path / "state"}"\n[receive]\nport = 0\n' + destination(free_port()))
    assert main(["check", "--config", str(file)]) == FAILURE
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("FAILURE  C-ECHO pacs"))
    told = " ".join(" ".join(lines[place:]).split())
    assert "took no TCP connection" in told
    assert told.index("took no TCP connection") < told.index("→ is it running")


def test_what_is_wrong_is_told_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        code, found = run(tmp_path, capsys, destination(free_port()) + destination(free_port(), "other"), port=number)
    assert code == FAILURE
    failures = [what for what, finding in found.items() if finding["verdict"] == "FAILURE"]
    assert failures == [f"port {number}, DICOM", "C-ECHO pacs", "C-ECHO other"]
    assert found[failures[0]]["found"].endswith("Address already in use")
    assert found[failures[0]]["remedy"].startswith("end who has it, unless that is systemd")


def test_a_broken_configuration_is_told_whole_and_is_another_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[node]\nae_title = ""\n[receive]\nport = -1\n')
    assert main(["check", "--settings", "--config", str(file)]) == WRONG_USAGE
    told = capsys.readouterr().err
    assert "line 2: node.ae_title" in told
    assert "line 4: receive.port" in told


def test_only_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text(destination(free_port()))
    assert main(["check", "--settings", "--json", "--config", str(file)]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert [finding["what"] for finding in found] == ["configuration", "recipe", "device"]
    assert found[0]["found"] == str(file)


def test_a_map_that_the_recipe_does_not_make_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text(destination(free_port()) + '[output]\nmaps = ["t2star", "chi_para"]\n')
    assert main(["check", "--settings", "--json", "--config", str(file)]) == DONE
    (found,) = (finding for finding in json.loads(capsys.readouterr().out) if finding["what"] == "maps")
    assert (found["verdict"], found["found"]) == ("warning", "default does not make chi_para, which [output] asks for")
    assert "[separation]" in found["remedy"]


def test_no_place_for_what_is_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: Path) -> None:
        raise RuntimeError("cannot cache function 'f': no locator available")

    monkeypatch.setattr("dicom_node.check.read_recipe", fails)
    code, found = run(tmp_path, capsys)
    assert (code, "cannot cache function" in found["recipe"]["found"]) == (FAILURE, True)
    assert found["recipe"]["remedy"].startswith("set NUMBA_CACHE_DIR")


def test_a_door_that_is_open_to_all_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run(tmp_path, capsys, 'host = "0.0.0.0"')
    assert code == DONE
    assert "whoever reaches 0.0.0.0 may send images" in found["peers"]["found"]
    assert "results stay in the state folder" in found["destination"]["found"]


def test_a_certificate_is_read_and_its_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = Authority.make(tmp_path / "hospital").sign("node.example")
    code, found = run(tmp_path, capsys, tls_of(files))
    assert code == DONE
    for what, who in (("certificate", "node.example"), ("authority", "hospital")):
        assert (found[what]["verdict"], who in found[what]["found"]) == ("warning", True)
        assert "ends in 2 days" in found[what]["found"]
        assert found[what]["remedy"].startswith("renew")
    assert found["chain"]["verdict"] == "good"
    files.key.write_text("no key")
    code, found = run(tmp_path, capsys, tls_of(files))
    assert code == FAILURE
    assert "a key of that certificate without a password" in found["certificate"]["found"]


def test_certificates_that_ended_or_are_of_nobody_s_authority(tmp_path: Path) -> None:
    hospital, elsewhere = Authority.make(tmp_path / "hospital"), Authority.make(tmp_path / "elsewhere")
    files = hospital.sign("node.example")
    [ours, chain, authority] = certificate(files, now=4e9)  # in 2096
    assert (ours.verdict, chain.verdict, authority.verdict) == ("FAILURE", "good", "FAILURE")
    assert "ended" in ours.found
    strange = type(files)(files.certificate, files.key, elsewhere.certificate)
    [_, chain, _] = certificate(strange, now=0.0)
    assert (chain.verdict, "will not believe it" in chain.found) == ("warning", True)
    files.key.chmod(0o644)
    *_, key = certificate(files, now=0.0)
    assert (key.what, key.verdict) == ("key", "warning")


def test_an_old_authority_beside_a_new_one_is_no_failure(tmp_path: Path) -> None:
    old, new = Authority.make(tmp_path / "old", days=1), Authority.make(tmp_path / "new")
    files = new.sign("node.example")
    bundle = tmp_path / "authorities.pem"
    bundle.write_text(old.certificate.read_text() + new.certificate.read_text())
    found = list(certificate(type(files)(files.certificate, files.key, bundle), now=time.time() + 1.5 * 86400))
    assert "FAILURE" not in {one.verdict for one in found}
    [told] = [one for one in found if "ended" in one.found]
    assert (told.what, told.verdict) == ("authority", "warning")


def test_a_folder_that_may_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)  # the tests may run as root
    monkeypatch.setattr(machine.os, "geteuid", lambda: 4711)
    folder = tmp_path / "state"
    code, found = run(tmp_path, capsys)
    assert code == FAILURE
    told = found["state folder"]
    assert told["found"] == f"user 4711 finds no {folder}, and may make nothing in {tmp_path}"
    assert told["remedy"] == f"make {folder}, and give it alone to the node's user; leave {tmp_path} as it is"
    folder.mkdir()
    code, found = run(tmp_path, capsys)
    assert code == FAILURE
    told = found["state folder"]
    assert told["found"] == f"{folder} belongs to {machine.name_of(os.getuid())}, and user 4711 may not write there"
    assert told["remedy"] == f"call it as the node's user; where that is user 4711, give {folder} to it, mode 0700"


def test_the_folder_of_another_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(machine.os, "geteuid", lambda: 4711)
    _, found = run(tmp_path, capsys)
    assert found["user"]["verdict"] == "warning"
    assert found["user"]["remedy"] == f"sudo -u {machine.name_of(os.getuid())} qsm-node check"
    assert "durability" in found, "the rest is looked at all the same"


@pytest.mark.parametrize(
    ("kind", "verdict"), [("nfs4", "FAILURE"), ("fuse.sshfs", "FAILURE"), ("tmpfs", "warning"), ("xfs", "good")]
)
def test_the_file_system_of_the_folder(tmp_path: Path, on_a_disk: Path, kind: str, verdict: str) -> None:
    folder = tmp_path / "a blank"
    folder.mkdir()
    point = str(folder).replace(" ", "\\040")
    on_a_disk.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 / {point} rw shared:1 - {kind} somewhere rw\n")
    [found] = [one for one in machine.state_folder(folder, Retention()) if one.what == "file system"]
    assert found.verdict == verdict, found
    assert machine.file_system(tmp_path) == "ext4"


def test_a_disk_that_is_full_slow_or_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(what: str) -> str:
        [one] = [one for one in machine.state_folder(tmp_path, Retention()) if one.what == what]
        assert one.remedy or one.verdict == "good"
        assert ("unused = 0 keeps for ever" in one.remedy) == (what == "room" and one.verdict != "good")
        return one.verdict

    for free, verdict in ((2**28, "FAILURE"), (2**31, "warning"), (2**40, "good")):
        monkeypatch.setattr(machine, "free_bytes", lambda folder, free=free: free)
        assert found("room") == verdict
    monkeypatch.setattr(machine, "SLOW_DISK", -1.0)
    assert found("durability") == "warning"

    def fails(file: Path, content: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(machine, "write_durably", fails)
    assert found("durability") == "FAILURE"


@contextmanager
def offering(*services: str) -> Iterator[int]:
    """The port of a peer that answers C-ECHO and accepts these besides."""
    entity = AE("ARCHIVE")
    for uid in (VERIFICATION, *services):
        entity.add_supported_context(uid)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    assert server
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


def test_commitment_that_an_archive_does_not_offer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = "Storage Commitment Push Model pacs"
    with offering() as port:
        _, found = run(tmp_path, capsys, destination(port))
        assert what not in found, "nobody asks for it"
        code, found = run(tmp_path, capsys, destination(port, more="commitment = true"))
    assert (code, found["C-ECHO pacs"]["verdict"], found[what]["verdict"]) == (FAILURE, "good", "FAILURE")
    assert found[what]["remedy"] == "set commitment = false for pacs, or have it offer this to QSMNODE"
    with offering(PUSH_MODEL) as port:
        code, found = run(tmp_path, capsys, destination(port, more="commitment = true"))
    assert found[what]["verdict"] == "good"


@pytest.mark.parametrize(("by", "services"), [("move", (FIND, MOVE)), ("get", (FIND, GET))])
def test_what_fetching_needs_of_its_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str, services: tuple[str, str]
) -> None:
    def looked_at(port: int) -> dict[str, str]:
        peer = f'[[peer]]\nname = "pacs"\nae_title = "ARCHIVE"\naddress = "127.0.0.1"\nport = {port}\n'
        _, found = run(tmp_path, capsys, f'{peer}[fetch]\npeer = "pacs"\nby = "{by}"\n')
        return {what: one["verdict"] for what, one in found.items() if what.endswith(" pacs")}

    good = {"C-ECHO pacs": "good", "FIND pacs": "good", f"{by.upper()} pacs": "good"}
    with offering(*services) as port:
        assert looked_at(port) == good
    with offering(FIND) as port:
        assert looked_at(port) == {**good, f"{by.upper()} pacs": "FAILURE"}


def test_secrets_that_are_not_there_or_are_everybody_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "secret"
    text = (
        '[notify]\nmail_to = ["a@b.example"]\nmail_from = "a@b.example"\nmail_user = "a"\n'
        f'mail_secret_file = "{secret}"\nwebhook = "http://127.0.0.1/x"\nwebhook_secret_file = "{secret}"\n'
        f'[[web_source]]\nname = "web"\nurl = "https://127.0.0.1/x"\nsecret_file = "{secret}"\n'
    )
    file = tmp_path / "node.toml"
    file.write_text(text)

    def told() -> tuple[int, set[tuple[str, str]]]:
        code = main(["check", "--settings", "--json", "--config", str(file)])
        found = json.loads(capsys.readouterr().out)
        kept = [one for one in found if one["what"].startswith("secret of ")]
        assert len(kept) == 3
        return code, {(one["verdict"], one["found"].partition(f"{secret} ")[2]) for one in kept}

    assert told() == (FAILURE, {("FAILURE", "cannot be read: No such file or directory")})
    secret.write_bytes(b"\xff")
    assert told() == (FAILURE, {("FAILURE", "is not UTF-8")})
    secret.write_text("\n")
    assert told() == (FAILURE, {("FAILURE", "is empty")})
    secret.write_text("secret\n")
    secret.chmod(0o644)
    assert told() == (DONE, {("warning", "can be read by everybody")})
    secret.chmod(0o600)
    assert told() == (DONE, {("good", "can be read")})


def test_whoever_is_told_of_troubles_and_disclosures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mail = '[notify]\nmail_to = ["a@b.example"]\nmail_from = "a@b.example"\nmail_security = "none"\n'
    gone = f'{mail}mail_host = "127.0.0.1"\nmail_port = {free_port()}\nwebhook = "http://127.0.0.1:{free_port()}/x"\n'
    code, found = run(tmp_path, capsys, f'{gone}[audit]\nhost = "127.0.0.1"\nport = {free_port()}\n')
    assert code == FAILURE
    for what in ("mail", "webhook", "audit repository"):
        assert (found[what]["verdict"], bool(found[what]["remedy"])) == ("FAILURE", True), found[what]
    code, found = run(tmp_path, capsys, '[audit]\nhost = "127.0.0.1"\nprotocol = "udp"\n')
    assert (code, found["audit repository"]["verdict"]) == (DONE, "good")
    _, found = run(tmp_path, capsys, '[audit]\nhost = "."\nprotocol = "udp"\n')
    assert (found["audit repository"]["verdict"], found["audit repository"]["remedy"]) == (
        "FAILURE",
        "is [audit] host right?",
    )


def test_an_audit_repository_whom_we_believe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hospital = Authority.make(tmp_path / "hospital")
    repository = Repository(Identity(hospital.sign("repository.example")))
    text = tls_of(hospital.sign("node.example")) + f'[audit]\nhost = "127.0.0.1"\nport = {repository.port}\n'
    try:
        _, found = run(tmp_path, capsys, f'{text}certificate = "repository.example"\n')
        assert found["audit repository"]["verdict"] == "good"
        _, found = run(tmp_path, capsys, text)
        assert "certificate verify failed" in found["audit repository"]["found"]
    finally:
        repository.close()


def test_memory_for_a_typical_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for capacity, free, verdict in ((1e9, 1e9, "warning"), (64e9, 1e9, "warning"), (64e9, 60e9, "good")):
        monkeypatch.setattr(machine, "room", lambda limit, resident, c=capacity, f=free: Room(c, f, "there is"))
        assert machine.memory(Reconstruct()).verdict == verdict
