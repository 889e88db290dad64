"""Receivers to be measured side by side: this node, Orthanc and dcmtk's storescp, each as it comes.

Each runs as a process of its own with an empty store, in a network namespace if one is given.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = 60.0
"""Seconds that a receiver gets to answer its first C-ECHO."""
LOOK_AROUND = 0.05
"""Seconds between two looks at the memory of a receiver."""


@dataclass(frozen=True)
class Place:
    """Where receivers listen, and the words before the commands of receivers and senders (`ip netns exec …`)."""

    host: str = "127.0.0.1"
    receiving: tuple[str, ...] = ()
    sending: tuple[str, ...] = ()


@dataclass
class Running:
    """A receiver that answers.  peak: bytes resident at most, of its process and those that it started."""

    name: str
    place: Place
    port: int
    folder: Path
    process: int = 0
    peak: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.over.wait(LOOK_AROUND):
            self.peak = max(self.peak, sum(map(resident, family(self.process))))

    @property
    def cpu(self) -> float:
        """Seconds of CPU time until now, of its process and those that it started."""
        return sum(map(spent, family(self.process)))

    @property
    def indexed(self) -> int | None:
        """Images in the node's database; None for the others, which index before they answer or not at all."""
        if self.name not in ("node", "queried"):
            return None
        return self._rows("instances")

    @property
    def catalogued(self) -> int:
        """Images that a queried node has listed for its peers."""
        return self._rows("held_images")

    def _rows(self, table: str) -> int:
        with contextlib.closing(sqlite3.connect(self.folder / "state" / "node.db")) as database:
            return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@contextlib.contextmanager
def running(name: str, folder: Path, place: Place, *, nagle: bool) -> Iterator[Running]:
    """The receiver of that name, with its store in `folder`.  Raises TimeoutError if it does not answer.

    nagle: whether receivers made of dcmtk keep Nagle's algorithm, as they do unless they are told otherwise.
    """
    folder.mkdir(parents=True)
    port = free_port()
    command = [*place.receiving, *COMMANDS[name](folder, place.host, port)]
    with (folder / "log").open("wb") as log:
        environment = os.environ | ({} if nagle else {"TCP_NODELAY": "1"})
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        receiver = Running(name, place, port, folder, process.pid)
        watcher = threading.Thread(target=receiver.watch)
        try:
            _wait_for_echo(place, port, name)
            watcher.start()
            yield receiver
        finally:
            receiver.over.set()
            if watcher.is_alive():
                watcher.join()
            process.terminate()
            try:
                process.wait(START)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def node(folder: Path, host: str, port: int) -> list[str]:
    settings = folder / "node.toml"
    settings.write_text(
        f'[node]\nstate_folder = "{folder / "state"}"\n[receive]\nhost = "{host}"\nport = {port}\n[watch]\nport = 0\n'
    )
    return [sys.executable, "-m", "dicom_node", "serve", "--config", str(settings)]


def queried(folder: Path, host: str, port: int) -> list[str]:
    """The node with dcmtk's commands for peers, which may query and retrieve: it keeps a catalogue of what it holds."""
    command = node(folder, host, port)
    may = 'may = ["store", "query", "retrieve"]'
    with (folder / "node.toml").open("a") as settings:
        for title in ("ECHOSCU", "STORESCU", "FINDSCU", "GETSCU"):
            settings.write(f'[[peer]]\nname = "{title}"\nae_title = "{title}"\naddress = "{host}"\n{may}\n')
    return command


def orthanc(folder: Path, host: str, port: int) -> list[str]:
    settings = folder / "orthanc.json"
    content = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "QSMNODE",
        "DicomPort": port,
        "HttpPort": free_port(),
    }
    settings.write_text(json.dumps(content))
    return ["Orthanc", str(settings)]


def storescp(folder: Path, host: str, port: int) -> list[str]:
    (folder / "images").mkdir()
    return ["storescp", "--fork", "-od", str(folder / "images"), str(port)]


def stock(folder: Path, host: str, port: int) -> list[str]:
    """pynetdicom's own storescp."""
    return [sys.executable, "-m", "pynetdicom", "storescp", "-od", str(folder / "images"), "-ba", host, str(port)]


COMMANDS = {"node": node, "queried": queried, "orthanc": orthanc, "storescp": storescp, "pynetdicom": stock}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_echo(place: Place, port: int, name: str) -> None:
    command = [*place.sending, "echoscu", "-aec", "QSMNODE", place.host, str(port)]
    deadline = time.monotonic() + START
    while subprocess.run(command, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} answers no C-ECHO after {START} s; see its log")
        time.sleep(0.1)


def family(process: int) -> Sequence[int]:
    """A process and all that descend from it."""
    found = [process]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def resident(process: int) -> int:
    """Bytes of memory that a process has now; 0 when it is gone."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def spent(process: int) -> float:
    """Seconds of CPU time of a process and of those of its children that have ended (proc_pid_stat(5))."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def linked(mtu: int = 1500) -> Iterator[Place]:
    """Two network namespaces with a virtual cable between them.  Needs root, and iproute2.

    Receivers listen in one and senders send from the other, as on a real link: packets of `mtu` bytes, and delayed
    acknowledgements, of which loopback shows little.
    """
    receiving, sending = f"intake-r{os.getpid()}", f"intake-s{os.getpid()}"
    with contextlib.ExitStack() as stack:
        for name in (receiving, sending):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", "veth0", "netns", receiving, "type", "veth", "peer", "name", "veth0", "netns", sending)
        for name, address in ((receiving, "10.77.0.1/24"), (sending, "10.77.0.2/24")):
            _ip("-n", name, "address", "add", address, "dev", "veth0")
            _ip("-n", name, "link", "set", "dev", "veth0", "mtu", str(mtu), "up")
            _ip("-n", name, "link", "set", "dev", "lo", "up")
        within = ("ip", "netns", "exec")
        yield Place("10.77.0.1", (*within, receiving), (*within, sending))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
