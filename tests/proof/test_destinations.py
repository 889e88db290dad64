"""Destinations that are down, slow, silent or wrong: each gets what it is due in the end, none holds up another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from demo.archive import Archive
from demo.scanner import push
from dicom_node.call import Destination, SendSettings
from dicom_node.config import Config
from dicom_node.daemon import Daemon
from dicom_node.deliver import Courier
from dicom_node.send import send
from dicom_node.settings import Send
from dicom_node.states import State
from tests.dicom_node.plays import play
from tests.dicom_node.test_deliver import Line
from tests.e2e.phantom import simple_head
from tests.e2e.serving import ROOT
from tests.peers import free_port, wait_until
from tests.proof import misbehaving
from tests.proof.misbehaving import AE_TITLE, Misbehaving, answering
from tests.simulation.siemens import write_siemens

KINDS: dict[str, tuple[Callable[[Misbehaving, ExitStack], None], set[str]]] = {
    "down": (misbehaving.down, {"pending"}),
    "silent": (misbehaving.silent, {"pending"}),
    "rejecting": (misbehaving.rejecting, {"pending"}),
    "refusing-contexts": (misbehaving.refusing_contexts, {"pending"}),
    "slow": (answering(misbehaving.slowly), {"stored"}),
    "never-answering": (answering(misbehaving.never_answering), {"pending"}),
    "closing-half-way": (answering(misbehaving.closing_half_way), {"pending"}),
    "aborting-at-one": (answering(misbehaving.aborting_at_one), {"pending"}),
    "warning-B000": (answering(0xB000), {"stored"}),
    "warning-B007": (answering(0xB007), {"stored"}),
    "full-A700": (answering(0xA700), {"pending"}),
    "mismatch-A900": (answering(0xA900), {"refused"}),
    "cannot-understand-C000": (answering(0xC000), {"refused"}),
}
"""Misbehaviour → what becomes of our rows while it lasts."""


def test_one_good_archive_among_thirteen_bad_ones_gets_everything_at_once_and_each_when_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that a worker can import what is played here
    with ExitStack() as running:
        good = running.enter_context(Archive(tmp_path / "good", ae_title=AE_TITLE))
        bad = {name: running.enter_context(Misbehaving(tmp_path, name, serve)) for name, (serve, _) in KINDS.items()}
        daemon = Daemon(
            _config(tmp_path, {"good": good.port} | {name: one.port for name, one in bad.items()}), work=play
        )
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            wait_until(lambda: daemon.receiver._listeners, "the receiver listens", 60)
            study = write_siemens(simple_head(1, shape=(8, 8, 2)), tmp_path / "study")
            assert {d.status for d in push(study, "127.0.0.1", daemon.receiver.port, "QSMNODE")} == {0}
            wait_until(lambda: len(good.paths) == 2, "the good archive has both results", 60)
            made = set(good.paths)
            expected = {name: outcomes for name, (_, outcomes) in KINDS.items()} | {"good": {"stored"}}
            wait_until(lambda: _tried(daemon) and _outcomes(daemon) == expected, "all have behaved as they do", 60)
            assert daemon.store.jobs()[0].state is State.SENDING

            for one in bad.values():
                one.mend()
            wait_until(lambda: daemon.store.jobs()[0].state is State.REFUSED, "what is pending was sent", 60)
            assert "0xA900" in daemon.store.jobs()[0].reason or "0xC000" in daemon.store.jobs()[0].reason
            assert daemon._outbox.again(1, daemon._clock())
            wait_until(lambda: daemon.store.jobs()[0].state is State.SENT, "what was refused was sent too", 60)
        finally:
            daemon.stop()
            thread.join(60)
        assert not thread.is_alive()
        for name, one in bad.items():
            assert one.stored == dict.fromkeys(made, 1), f"{name}: each result once"
        assert good.sent == dict.fromkeys(made, 1)


def _config(folder: Path, ports: dict[str, int]) -> Config:
    times = {"connection_timeout": 1.0, "association_timeout": 1.0, "response_timeout": 1.0, "idle_timeout": 1.5}
    return Config.model_validate(
        {
            "node": {"state_folder": folder / "state", "tick": 0.1},
            "receive": {"port": 0},
            "watch": {"host": ""},
            "group": {"quiet_time": 0.5},
            "send": {"first_pause": 0.2, "longest_pause": 1.0, **times},
            "destination": [
                {"name": name, "host": "127.0.0.1", "port": port, "ae_title": AE_TITLE} for name, port in ports.items()
            ],
        }
    )


def _tried(daemon: Daemon) -> bool:
    return all(row.attempts for row in daemon._outbox.of(1))


def _outcomes(daemon: Daemon) -> dict[str, set[str]]:
    """Of an archive that is aborted at one instance, the other may be stored or wait behind it."""
    found: dict[str, set[str]] = {}
    for row in daemon._outbox.of(1):
        found.setdefault(row.destination, set()).add(row.outcome)
    found["aborting-at-one"] -= {"stored"}
    return found


def test_a_destination_that_is_down_for_an_hour_gets_everything_within_a_pause(tmp_path: Path) -> None:
    """The hour passes by the clock of the test; ports, sockets and associations are real."""
    line = Line(tmp_path, ["pacs", "other"])
    pauses = Send(first_pause=5.0, pause_factor=2.0, longest_pause=600.0)
    port = free_port()
    asked: list[float] = []

    def counted(files: Any, to: Destination, settings: SendSettings) -> Any:
        asked.append(line.clock.now)
        return send(files, to, settings)

    def courier(name: str, at: int, function: Any = send) -> Courier:
        target, settings = Destination(name, "127.0.0.1", at, AE_TITLE), SendSettings(connection_timeout=1.0)
        return Courier(
            line.store, line.outbox, target, pauses, settings, function, line.jobs, line.clock, lambda: False
        )

    began = line.clock.now
    with Archive(tmp_path / "other", ae_title=AE_TITLE) as other:
        pacs, second = courier("pacs", port, counted), courier("other", other.port)
        while line.clock.now < began + 3600:
            pacs()
            second()
            line.clock.now += 5
        assert len(other.paths) == 3, "the other destination waited for the one that was down"
        assert line.state is State.SENDING
        assert len(asked) <= 14, "a peer that is down is not hammered"
        with Archive(tmp_path / "pacs", ae_title=AE_TITLE, port=port) as archive:
            back = line.clock.now
            while line.state is not State.SENT and line.clock.now <= back + pauses.longest_pause:
                pacs()
                line.clock.now += 5
            assert line.state is State.SENT
            assert archive.sent == other.sent
            assert set(archive.sent.values()) == {1}
