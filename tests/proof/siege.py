"""Broken conversations and broken data sets at the port of a real `qsm-node serve`, which is watched from outside.

Its memory and threads are read from /proc, what it writes outside its folder and what it did not expect from its log.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_node.admission import ADMITTED_TRANSFER_SYNTAXES
from dicom_node.call import Destination, SendSettings, echo
from dicom_node.checkpoint import install_checkpoint
from dicom_node.commit import PUSH_MODEL, REQUEST_COMMITMENT, WELL_KNOWN_INSTANCE, reference
from dicom_node.identity import VERIFICATION
from dicom_node.spool import file_meta
from tests.e2e.serving import Serving
from tests.objects import mr_image, write
from tests.peers import free_port
from tests.proof.corpus import Seed, seeds
from tests.proof.mutate import misspoken, revalued, scrambled, split
from tests.proof.trespass import watch

AE_TITLE = "SIEGE"
_QUERIES = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
)
_PEER = f"""
[[peer]]
name = "siege"
ae_title = "{AE_TITLE}"
address = "127.0.0.1"
port = 104
may = ["store", "query", "retrieve", "commit"]
"""
_FRAME = re.compile(r'File "([^"]+)"')
"""Of a traceback.  pynetdicom tells with one of every PDU that it cannot decode, and aborts the association."""
_THREAD_ENDED = "thread ended"
_AT_ONCE = 4
"""Attackers."""
_ANSWER = 0.5
"""Seconds to wait for the answer to an association request; a broken one may get none."""
_END = 20.0
"""Seconds within which the node closes a connection of which we have closed our half."""


@dataclass
class Siege:
    """What the node was found to be afterwards.

    unclosed: connections that it did not end.  surprises: failures of its code that it does not declare.
    ended_by_pynetdicom: associations that pynetdicom ended with an exception in a thread of theirs: a message that it
    could not decode, an answer that came too late.  escaped: see `trespass`.
    threads, sockets: of the process, before and after.  peak_mb: its resident memory at most.
    """

    inputs: int = 0
    answered: dict[str, int] = field(default_factory=dict)
    unclosed: int = 0
    surprises: list[str] = field(default_factory=list)
    ended_by_pynetdicom: int = 0
    escaped: list[str] = field(default_factory=list)
    threads: tuple[int, int] = (0, 0)
    sockets: tuple[int, int] = (0, 0)
    before_mb: float = 0.0
    peak_mb: float = 0.0
    alive: bool = False


@contextmanager
def besieged(folder: Path, found: Siege) -> Iterator[Serving]:
    """A node that serves; when the body ends, `found` is filled in and the node stopped."""
    with Serving(
        folder,
        free_port(),  # nobody listens there: there will be no results
        module="tests.proof.siege",
        receive={"association_timeout": 2.0, "pdu_timeout": 2.0, "idle_timeout": 5.0, "maximum_associations": 10},
        log={"style": "json", "level": "warning"},
    ) as node:
        with node.config.open("a") as config:
            config.write(_PEER)
        node.start()
        assert not node.ended, (folder / "node.log").read_text()
        us = Destination("node", "127.0.0.1", node.port, "QSMNODE")
        echo(us, SendSettings(AE_TITLE))
        threads, sockets = _threads(node), _sockets(node)
        found.before_mb = _peak_mb(node)
        yield node
        deadline = time.monotonic() + _END
        while _threads(node) > threads and time.monotonic() < deadline:
            time.sleep(0.1)
        echo(us, SendSettings(AE_TITLE))
        time.sleep(0.5)
        found.threads, found.sockets = (threads, _threads(node)), (sockets, _sockets(node))
        found.peak_mb = _peak_mb(node)
        found.alive = not node.ended
        node.stop()
        found.surprises, found.escaped, found.ended_by_pynetdicom = _told(folder / "node.log")


def conversations(node: Serving, count: int, seed: int, found: Siege) -> None:
    """Broken conversations: association requests, commands, data, releases, in every disorder."""
    recorded = [split(stream) for stream in _honest(node)]

    def attack(chance: random.Random) -> str:
        stream = misspoken(chance.choice(recorded), chance)
        with socket.create_connection(("127.0.0.1", node.port), timeout=_END) as connection:
            return _say(connection, stream)

    _by_several(attack, count, seed, found)


def transfers(node: Serving, folder: Path, count: int, seed: int, found: Siege) -> None:
    """Broken data sets by C-STORE, over associations that last for as long as the node bears them."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # files go out as they lie on the disk
    sound = [one for one in seeds(folder) if len(one.encoded) < 8000]
    others = [one.encoded for one in sound]
    local = threading.local()

    def attack(chance: random.Random) -> str:
        association: Association | None = getattr(local, "association", None)
        if association is None or not association.is_established:
            association = local.association = _associate(node, sound)
            local.file = folder / f"{threading.get_ident()}.dcm"
        one = chance.choice(sound)
        plain = one.syntax == ExplicitVRLittleEndian and chance.random() < 0.5
        broken = revalued(one.encoded, chance) if plain else scrambled(one.encoded, chance, others)
        meta = file_meta(one.sop_class_uid, one.sop_instance_uid, one.syntax, AE_TITLE)
        local.file.write_bytes(meta + broken)
        answer = association.send_c_store(local.file)
        return f"0x{answer.Status:04X}" if "Status" in answer else "no answer"

    _by_several(attack, count, seed, found)


def _by_several(attack: Callable[[random.Random], str], count: int, seed: int, found: Siege) -> None:
    lock = threading.Lock()

    def run(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        for _ in range(count // _AT_ONCE):
            try:
                answer = attack(chance)
            except TimeoutError:
                answer = "not closed"
            except OSError as error:
                answer = type(error).__name__
            with lock:
                found.inputs += 1
                found.unclosed += answer == "not closed"
                found.answered[answer] = found.answered.get(answer, 0) + 1

    attackers = [threading.Thread(target=run, args=(number,)) for number in range(_AT_ONCE)]
    for attacker in attackers:
        attacker.start()
    for attacker in attackers:
        attacker.join()


def _say(connection: socket.socket, stream: bytes) -> str:
    """The first PDU, then, after what it is answered, the rest; how the node ended it.  Raises TimeoutError."""
    first = stream[: 6 + int.from_bytes(stream[2:6], "big")] if len(stream) >= 6 else stream
    connection.sendall(first)
    connection.settimeout(_ANSWER)
    heard = b""
    with suppress(TimeoutError):
        heard = connection.recv(65536)
    connection.settimeout(_END)
    with suppress(OSError):  # the node may have ended it already
        connection.sendall(stream[len(first) :])
        connection.shutdown(socket.SHUT_WR)
    while True:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            return "reset"
        if not more:
            return {1: "request", 2: "accepted", 3: "rejected", 7: "aborted"}.get(heard[0], "?") if heard else "closed"
        heard = heard or more


def _honest(node: Serving) -> list[bytes]:
    """What an honest peer says: one conversation for each service."""
    (file,) = write(node.config.parent / "honest", mr_image(900))

    def query(association: Association, model: str) -> None:
        wanted = Dataset()
        wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", mr_image().StudyInstanceUID
        wanted.PatientName = "*"
        if model == _QUERIES[0]:
            list(association.send_c_find(wanted, model))
        elif model == _QUERIES[1]:
            list(association.send_c_move(wanted, AE_TITLE, model))
        else:
            list(association.send_c_get(wanted, model))

    def commit(association: Association) -> None:
        request = Dataset()
        request.TransactionUID = "1.2.3.4"
        request.ReferencedSOPSequence = [reference(MRImageStorage, str(mr_image(900).SOPInstanceUID))]
        association.send_n_action(request, REQUEST_COMMITMENT, PUSH_MODEL, WELL_KNOWN_INSTANCE)

    talks: list[tuple[str, Callable[[Association], object]]] = [
        (VERIFICATION, lambda association: association.send_c_echo()),
        (MRImageStorage, lambda association: association.send_c_store(file)),
        (PUSH_MODEL, commit),
        *((model, lambda association, model=model: query(association, model)) for model in _QUERIES),  # type: ignore[misc]  # bound early
    ]
    return [_recorded(node, abstract, talk) for abstract, talk in talks]


def _recorded(node: Serving, abstract: str, talk: Callable[[Association], object]) -> bytes:
    said: list[bytes] = []
    association = AE(AE_TITLE).associate(
        "127.0.0.1",
        node.port,
        contexts=[build_context(VERIFICATION), build_context(abstract), build_context(MRImageStorage)],
        ae_title="QSMNODE",
        evt_handlers=[
            (evt.EVT_DATA_SENT, lambda event: said.append(event.data)),
            (evt.EVT_CONN_OPEN, install_checkpoint),
            (evt.EVT_C_STORE, lambda event: 0x0000),
        ],
        ext_neg=[build_role(MRImageStorage, scp_role=True)] if abstract == _QUERIES[2] else [],
    )
    assert association.is_established, f"the node does not serve {abstract}"
    talk(association)
    association.release()
    return b"".join(said)


def _associate(node: Serving, sound: Sequence[Seed]) -> Association:
    entity = AE(AE_TITLE)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _END
    contexts = [
        build_context(sop_class, syntax)
        for sop_class in sorted({one.sop_class_uid for one in sound})
        for syntax in ADMITTED_TRANSFER_SYNTAXES
    ]
    association = entity.associate(
        "127.0.0.1",
        node.port,
        contexts=contexts,
        ae_title="QSMNODE",
        evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)],
    )
    if not association.is_established:
        raise ConnectionRefusedError("the node took no association")
    return association


def _status(node: Serving, key: str) -> int:
    """A number of /proc/PID/status (proc(5)); memory in kB."""
    [line] = [line for line in Path(f"/proc/{node.pid}/status").read_text().splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1])


def _peak_mb(node: Serving) -> float:
    return _status(node, "VmHWM") * 1024 / 1e6


def _threads(node: Serving) -> int:
    return _status(node, "Threads")


def _sockets(node: Serving) -> int:
    count = 0
    for descriptor in Path(f"/proc/{node.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def _told(log: Path) -> tuple[list[str], list[str], int]:
    """Surprises, trespasses, and associations whose thread pynetdicom ended with an exception of its own."""
    surprises, escaped, ended = [], [], 0
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("TRESPASS "):
            escaped.append(line)
        elif line.startswith("{") and '"exception"' in line:
            told = json.loads(line)
            frames = _FRAME.findall(told["exception"])
            ours = any("/dicom_node/" in frame for frame in frames)
            if told["event"].startswith(("Exception in", _THREAD_ENDED)):
                ended += not ours
                surprises += [f"{told['event']}: {told['exception'][-2000:]}"] if ours else []
            elif not any("/pynetdicom/" in frame for frame in frames):
                surprises.append(f"{told['event']}: {told['exception'][-2000:]}")
    return surprises, escaped, ended


def _tell_of_thread(ended: threading.ExceptHookArgs) -> None:
    """On one line, which no other thread breaks up."""
    text = "".join(traceback.format_exception(ended.exc_type, ended.exc_value, ended.exc_traceback))
    os.write(2, (json.dumps({"event": _THREAD_ENDED, "exception": text}) + "\n").encode())


def _tell(trespass: str) -> None:
    os.write(2, f"TRESPASS {trespass}\n".encode())


if __name__ == "__main__":
    from dicom_node.commands import main

    threading.excepthook = _tell_of_thread
    watch(Path(sys.argv[-1]).parent, _tell)  # where the configuration lies, lies the state folder
    sys.exit(main(sys.argv[2:]))
