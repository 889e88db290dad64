"""What of a new configuration holds at once: by the rules, and in a node that goes on meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom.presentation import build_context
from structlog.testing import capture_logs

from demo.archive import Archive
from dicom_node.call import Destination, SendSettings, associate, echo
from dicom_node.config import Config
from dicom_node.errors import InvalidConfiguration, Unreachable
from dicom_node.reload import AT_ONCE, change
from dicom_node.states import State
from tests.certificates import Authority
from tests.dicom_node.plays import play_when_told
from tests.dicom_node.test_daemon import a_config, a_study, send, serving, states, wait_for
from tests.objects import mr_image, write
from tests.peers import free_port, wait_until

PEER = {"name": "a", "ae_title": "A", "address": "10.0.0.1"}


def config(**tables: Any) -> Config:
    return Config.model_validate(tables)


def test_what_may_change_changes_and_the_rest_is_named() -> None:
    old = config(node={"ae_title": "OLD"}, receive={"port": 1111})
    new = config(
        node={"ae_title": "NEW", "tick": 2.0},
        receive={"port": 2222},
        reconstruct={"recipe": "fast", "workers": 3},
        retention={"results": 1.0, "minimum_free_bytes": 2**28},
        log={"level": "debug"},
        peer=[PEER],
    )
    changed = change(old, new)
    assert set(changed.kept) == {
        *("node.ae_title", "receive.port", "reconstruct.workers", "retention.minimum_free_bytes")
    }
    assert {"node.tick", "reconstruct.recipe", "retention.results", "log", "peer"} == set(changed.renewed)
    assert (changed.config.node.ae_title, changed.config.node.tick) == ("OLD", 2.0)
    assert (changed.config.receive, changed.config.reconstruct.workers) == (old.receive, old.reconstruct.workers)
    assert (changed.config.reconstruct.recipe, changed.config.peers) == ("fast", new.peers)


def test_the_same_again_changes_nothing_and_going_back_undoes() -> None:
    old, new = config(), config(peer=[PEER], log={"style": "json"})
    assert change(new, new) == change(new, new.model_copy())
    assert (change(new, new).renewed, change(new, new).kept) == ((), ())
    assert change(change(old, new).config, old).config == old


def test_what_is_new_is_held_against_what_stays() -> None:
    old = config(retention={"free_bytes": 2**34, "minimum_free_bytes": 2**33})
    new = config(retention={"free_bytes": 2**31, "minimum_free_bytes": 2**30})
    with pytest.raises(
        InvalidConfiguration, match=r"retention\.minimum_free_bytes as they hold until a restart(.|\n)*at least"
    ):
        change(old, new)


def test_tls_is_not_switched_on_or_off_but_other_files_are_taken() -> None:
    files = {"certificate": "c", "key": "k", "authorities": "a"}
    old, new = config(), config(tls=files)
    assert change(old, new).config.tls == old.tls
    assert set(change(old, new).kept) == {"tls.certificate", "tls.key", "tls.authorities"}
    other = config(tls={**files, "key": "other", "port": 999})
    changed = change(new, other)
    assert (changed.config.tls.key, changed.config.tls.port, changed.kept) == ("other", new.tls.port, ("tls.port",))


def test_what_contradicts_that_which_stays_is_refused() -> None:
    files = {"certificate": "c", "key": "k", "authorities": "a"}
    calls = {"name": "pacs", "host": "h", "port": 104, "ae_title": "PACS", "certificate": "pacs.example"}
    new = config(tls=files, destination=[calls])
    with pytest.raises(InvalidConfiguration, match=r"(?s)tls\.certificate.* until a restart.*pacs has a certificate"):
        change(config(), new)


def test_every_name_of_what_changes_at_once_is_a_setting() -> None:
    tables = {field.alias or name: field.annotation for name, field in Config.model_fields.items()}
    for name in AT_ONCE:
        table, _, setting = name.partition(".")
        assert table in tables
        assert not setting or setting in tables[table].model_fields  # type: ignore[union-attr]  # no list has settings


def test_the_page_for_operators_names_what_changes_at_once() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.partition("## Changing the configuration")[2].partition("\n## ")[0]
    for name in AT_ONCE:
        table, _, setting = name.partition(".")
        assert f"`{setting or table}`" in section or f"`[{table}]`" in section or f"`[[{table}]]`" in section, name


def test_a_node_goes_on_with_what_it_has_begun_and_follows_the_new_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive(tmp_path / "first") as first, Archive(tmp_path / "second") as second:
        dead = Archive(tmp_path / "dead", port=free_port())
        wider, last = a_config(tmp_path, first, second, dead), a_config(tmp_path, first, second)
        fast = {"reconstruct": last.reconstruct.model_copy(update={"recipe": "fast"})}
        read = [InvalidConfiguration("it is broken"), wider.model_copy(update=fast), last.model_copy(update=fast)]

        def next_one() -> Config:
            found = read.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        with (
            capture_logs() as told,
            serving(a_config(tmp_path, first), monkeypatch, play_when_told, read=next_one) as daemon,
        ):
            send(a_study(tmp_path, 1), daemon)
            wait_until(lambda: states(daemon) == [State.RECONSTRUCTING], "a job runs", 60)
            daemon.reload()
            assert [line["error"] for line in told if line["event"] == "configuration_refused"] == ["it is broken"]
            daemon.reload()
            assert states(daemon) == [State.RECONSTRUCTING]
            (tmp_path / "go").touch()
            wait_until(
                lambda: len(first.paths) == len(second.paths) == 2, "both have it: they are destinations by now", 60
            )
            assert states(daemon) == [State.SENDING]
            daemon.reload()
            wait_for(daemon, State.REFUSED)
            assert "no longer configured" in daemon.store.jobs()[0].reason
            send(a_study(tmp_path, 2), daemon)
            wait_for(daemon, State.REFUSED, State.SENT)
            recipes = [(tmp_path / "state" / "jobs" / job / "job.json").read_text() for job in "12"]
        assert set(first.sent.values()) == set(second.sent.values()) == {1}
        assert '"name": "default"' in recipes[0]
        assert '"name": "fast"' in recipes[1]


def test_an_association_goes_on_with_what_it_was_let_in_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its peer is one no longer; who comes next is judged by the new configuration."""

    def letting_in(title: str) -> Config:
        peer = {"name": "scanner", "ae_title": title, "address": "127.0.0.1"}
        return a_config(tmp_path).model_copy(update={"peers": config(peer=[peer]).peers})

    with serving(letting_in("OLD"), monkeypatch, read=lambda: letting_in("NEW")) as daemon:
        here = Destination("node", "127.0.0.1", daemon.receiver.port, "QSMNODE")
        [file] = write(tmp_path / "scan", mr_image(1))
        image = dcmread(file)
        contexts = [build_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)]
        with associate(contexts, here, SendSettings("OLD", 5, 5, 5, 5)) as open_before:
            daemon.reload()
            assert open_before.send_c_store(image).Status == 0x0000
            echo(here, SendSettings("NEW", 5, 5, 5, 5))
            with pytest.raises(Unreachable, match="rejected the association"):
                echo(here, SendSettings("OLD", 5, 5, 5, 5))
            assert open_before.send_c_store(image).Status == 0x0000


def test_other_certificate_files_hold_for_the_next_association_or_the_old_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.make(tmp_path / "hospital")
    mine, other = authority.sign("node.example"), authority.sign("other.example")

    def with_files(certificate: Path, key: Path) -> Config:
        files = {"certificate": str(certificate), "key": str(key), "authorities": str(mine.authorities)}
        tls = config(tls={**files, "port": 0}).tls
        return a_config(tmp_path).model_copy(update={"tls": tls})

    first = with_files(mine.certificate, mine.key)
    read = [with_files(mine.certificate, tmp_path / "absent.key"), with_files(other.certificate, other.key)]
    with capture_logs() as told, serving(first, monkeypatch, read=lambda: read.pop(0)) as daemon:
        assert daemon._identity is not None
        daemon.reload()
        assert daemon._identity.files == mine
        daemon.reload()
        assert daemon._identity.files == other
    assert [line["event"] for line in told if line["event"].startswith("configuration")] == [
        "configuration_refused",
        "configuration_reloaded",
    ]
