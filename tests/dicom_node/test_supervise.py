"""What the service manager hears and hands over: the protocol, and the real process under it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicom_node.call import Destination, SendSettings, echo
from dicom_node.supervise import DICOM, DICOM_TLS, Supervisor, for_ports, inherited
from tests.dicom_node.test_daemon import a_config, serving
from tests.peers import free_port, wait_until

ROOT = Path(__file__).parents[2]
NODE = Path(sys.executable).with_name("qsm-node")


class Manager:
    """The end of the protocol that systemd has (sd_notify(3)): a datagram socket."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)
        self.told: list[dict[str, str]] = []

    def hears(self, **expected: str) -> bool:
        """Whether it was told so, now or before; "" for any value."""
        try:
            while message := self._socket.recv(4096):
                self.told.append(dict(line.split("=", 1) for line in message.decode().splitlines()))
        except BlockingIOError:
            pass
        return any(all(key in told and value in told[key] for key, value in expected.items()) for told in self.told)

    def waits_for(self, **expected: str) -> None:
        wait_until(lambda: self.hears(**expected), f"{expected}, after {self.told}", 60)


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    return Manager(tmp_path)


@contextmanager
def node(
    folder: Path,
    manager: Manager,
    *,
    port: int = 0,
    watchdog: float = 0,
    more: str = "",
    given: socket.socket | None = None,
    under: Sequence[object] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """`qsm-node serve` as systemd runs it.  given: becomes its descriptor 3.  under: a command that becomes it."""
    config = folder / "node.toml"
    config.write_text(
        f'[node]\nstate_folder = "{folder / "state"}"\n[watch]\nhost = ""\n[receive]\nport = {port}\n{more}'
    )
    environment = {**os.environ, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(watchdog * 1e6))}
    command = [*map(str, under), str(NODE), "serve", "--config", str(config)]
    if given is not None:
        # The shell becomes the node, so that LISTEN_PID is right, as systemd sees to it.
        script = f'exec 3<&{given.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={DICOM} exec "$@"'
        command = ["bash", "-c", script, "bash", *command]
    kept = [given.fileno()] if given is not None else []
    with (folder / "node.log").open("ab") as log:
        process = subprocess.Popen(command, stderr=log, env=environment, pass_fds=kept, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> None:
    echo(Destination("node", "127.0.0.1", port, "QSMNODE"), SendSettings("ECHO", 5, 30, 5, 5))


def test_without_a_manager_nothing_is_told_and_nothing_inherited() -> None:
    supervisor = Supervisor({})
    supervisor.ready("x")
    supervisor.feed("")
    assert (supervisor.patience, inherited({})) == (0.0, {})


def test_what_is_told_and_how_often(tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("dicom_node.supervise.time.monotonic", lambda: now)
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    supervisor = Supervisor(environment)
    assert environment == {}, "workers are not to speak for the node"
    for _ in range(40):
        supervisor.feed("")
        now += 1.0
    assert manager.hears(WATCHDOG="1")
    assert len(manager.told) == 4, "three times as often as is asked for"
    supervisor.feed("nothing moves")
    manager.hears()
    assert len([told for told in manager.told if "WATCHDOG" in told]) == 4
    supervisor.status("Serving")
    supervisor.status("Serving")
    supervisor.reloading()
    assert manager.hears(RELOADING="1", MONOTONIC_USEC="")
    assert abs(int(manager.told[-1]["MONOTONIC_USEC"]) / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 60
    assert [told for told in manager.told if told.get("STATUS") == "Serving"] == [{"STATUS": "Serving"}]
    Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("a manager that is gone keeps nobody from serving")


def test_a_watchdog_for_another_process_is_not_ours() -> None:
    assert Supervisor({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).patience == 0.0


def test_an_abstract_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"qsm-node-test-{os.getpid()}"
        listening.bind("\0" + name)
        Supervisor({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert listening.recv(100).startswith(b"STOPPING=1\nSTATUS=")


def test_sockets_are_taken_by_name_and_only_by_the_process_they_are_for() -> None:
    for_another = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": DICOM}
    assert inherited(for_another) == {}
    assert for_another == {}


def test_a_socket_that_nobody_serves_is_told_of_and_not_held() -> None:
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in (DICOM, DICOM_TLS, "other")}
    with capture_logs() as told:
        given = for_ports(sockets, plain=True, tls=False)
    assert given == {False: sockets[DICOM]}
    assert {entry["name"] for entry in told} == {DICOM_TLS, "other"}
    assert {name: one.fileno() == -1 for name, one in sockets.items()} == {DICOM: False, DICOM_TLS: True, "other": True}
    sockets[DICOM].close()
    encrypted = {DICOM_TLS: socket.create_server(("127.0.0.1", 0))}
    assert for_ports(encrypted, plain=False, tls=True) == {True: encrypted[DICOM_TLS]}
    encrypted[DICOM_TLS].close()


def test_the_life_of_the_real_process_as_systemd_sees_it(tmp_path: Path, manager: Manager) -> None:
    port = free_port()
    with node(tmp_path, manager, port=port, watchdog=3.0) as process:
        manager.waits_for(READY="1", STATUS=f"Serving port {port}")
        answers(port)
        manager.waits_for(WATCHDOG="1")
        manager.told.clear()
        config = tmp_path / "node.toml"
        good = config.read_text()
        config.write_text(good + '[log]\nlevel = "chatty"\n')
        process.send_signal(signal.SIGHUP)
        manager.waits_for(RELOADING="1")
        manager.waits_for(READY="1")
        answers(port)
        config.write_text(good + '[log]\nstyle = "json"\n[[peer]]\nname = "a"\nae_title = "A"\naddress = "10.0.0.1"\n')
        manager.told.clear()
        process.send_signal(signal.SIGHUP)
        manager.waits_for(READY="1")
        with pytest.raises(Exception, match="rejected the association"):
            answers(port)
        process.send_signal(signal.SIGTERM)
        manager.waits_for(STOPPING="1")
        assert process.wait(60) == 0
        with pytest.raises(ConnectionRefusedError):  # what an inherited port spares the next caller
            socket.create_connection(("127.0.0.1", port), timeout=30)
    log = (tmp_path / "node.log").read_text()
    assert "configuration_refused" in log
    assert "log.level is 'chatty'" in log
    assert '"event": "configuration_reloaded"' in log, "the log is written in the style of the new configuration"


def test_on_an_inherited_port_nobody_is_refused_before_or_after(tmp_path: Path, manager: Manager) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as held, ThreadPoolExecutor(1) as scanner:
        port = held.getsockname()[1]
        calls = scanner.submit(answers, port)  # while nobody serves: it waits
        with node(tmp_path, manager, port=free_port(), given=held) as process:
            manager.waits_for(READY="1", STATUS=f"Serving port {port}")
            calls.result(60)
            process.terminate()
            assert process.wait(60) == 0
        with socket.create_connection(("127.0.0.1", port), timeout=30):
            pass  # the port is open for the next node: it was not shut down with this one


def test_the_line_that_is_stuck_gives_no_sign_of_life(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    may_go_on.set()

    def regroup(*arguments: object, **more: object) -> str:
        may_go_on.wait(60)
        return ""

    monkeypatch.setattr("dicom_node.daemon.regroup", regroup)
    supervisor = Supervisor({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"})
    with serving(a_config(tmp_path), monkeypatch, supervisor=supervisor):
        manager.waits_for(WATCHDOG="1")
        may_go_on.clear()
        manager.waits_for(STATUS="Stuck: the last round of group ended")
        manager.hears()
        manager.told.clear()
        time.sleep(1.5)  # twice as long as it is between two signs of life
        assert not manager.hears(WATCHDOG="1")
        may_go_on.set()
        manager.waits_for(WATCHDOG="1")
