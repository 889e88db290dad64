"""The holes of stock receivers, each shown on one of them and on ours by the same sender.

Stock are pynetdicom's storescp and qrscp (3.0.4), by their own handlers, and dcmtk's storescp.  A finding that changes,
because they have closed a hole or we have opened one, fails here.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
import sys
import tempfile
import time
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.apps.common import handle_store
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from dicom_node.admission import ADMITTED_TRANSFER_SYNTAXES
from dicom_node.call import Destination, SendSettings, associate, echo
from dicom_node.checkpoint import install_checkpoint
from dicom_node.errors import PeerFailure
from dicom_node.identity import VERIFICATION
from dicom_node.peers import Peer, Peers, Right
from dicom_node.receive import Receiver, ReceiveSettings, Secure, Stored
from dicom_node.send import send
from dicom_node.spool import Spool, file_meta
from dicom_node.tls import Files, Identity
from tests.certificates import Authority
from tests.dicom_node.test_gate import fragments, is_hung_up_on
from tests.objects import encode, mr_image, write
from tests.peers import running_node, running_storescp

SILENT = logging.getLogger("stock")
SILENT.disabled = True
DEADLINE = 1.0
"""Seconds: ours for half a PDU, and stock's time-outs, as far as there are any."""


@dataclass(frozen=True)
class Target:
    """port: where it listens.  kept: the files that it has made of what it took."""

    port: int
    kept: Callable[[], list[Path]]


@contextmanager
def stock(folder: Path, store: Callable[[evt.Event], Any] | None = None, tls: Files | None = None) -> Iterator[Target]:
    """pynetdicom's storescp.  store: another handler of C-STORE."""
    folder.mkdir(parents=True, exist_ok=True)
    entity = AE("QSMNODE")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = DEADLINE
    entity.supported_contexts = AllStoragePresentationContexts
    for context in entity.supported_contexts:
        context.transfer_syntax = list(ADMITTED_TRANSFER_SYNTAXES)
    entity.add_supported_context(VERIFICATION)
    arguments = Namespace(ignore=False, output_directory=str(folder))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
    if context and tls:
        context.load_cert_chain(tls.certificate, tls.key)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, store or (lambda event: handle_store(event, arguments, SILENT)))],
    )
    assert server is not None
    try:
        yield Target(int(server.server_address[1]), lambda: _files(folder))
    finally:
        server.shutdown()


@contextmanager
def ours(folder: Path) -> Iterator[Target]:
    settings = ReceiveSettings(port=0, drain_timeout=0.5, pdu_timeout=DEADLINE, association_timeout=DEADLINE)
    with running_node(folder, settings) as node:
        yield Target(node.receiver.port, lambda: list(node.spool.images()))


def both(folder: Path, look: Callable[[Target], str]) -> dict[str, str]:
    """What is found of stock and of ours."""
    found = {}
    for name, receiver in (("stock", stock), ("ours", ours)):
        with receiver(folder / name) as target:
            found[name] = look(target)
    return found


@contextmanager
def sender(port: int, *syntaxes: UID) -> Iterator[Association]:
    """One that sends raw bytes as they are, whatever they say."""
    entity = AE("SCANNER")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    contexts = [build_context(MRImageStorage, list(syntaxes) or [ExplicitVRLittleEndian])]
    association = entity.associate(
        "127.0.0.1", port, contexts=contexts, ae_title="QSMNODE", evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)]
    )
    assert association.is_established
    try:
        yield association
    finally:
        association.abort()


def offer(target: Target, encoded: bytes, uid: str = "", syntax: UID = ExplicitVRLittleEndian) -> int:
    """The status for a data set of any content.  uid: what the command says, if not what the image has."""
    uids = MRImageStorage, uid or mr_image().SOPInstanceUID
    with tempfile.NamedTemporaryFile() as file, sender(target.port, syntax) as association:
        Path(file.name).write_bytes(file_meta(*uids, syntax, "TEST") + encoded)
        return int(association.send_c_store(file.name).get("Status", -1))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _answer(status: int) -> str:
    return f"0x{status:04X}" if status >= 0 else "none"


# what reaches the port before anybody knows who calls


def test_a_pdu_of_400_mb_is_read_by_stock_before_it_looks_who_calls(tmp_path: Path) -> None:
    def look(target: Target) -> str:
        with socket.create_connection(("127.0.0.1", target.port), timeout=0.3) as connection:
            try:
                connection.sendall(struct.pack(">BBL", 1, 0, 400_000_000))
                for _ in range(20):
                    connection.sendall(bytes(1_000_000))
                return "closed" if connection.recv(1) == b"" else "answered"
            except TimeoutError:
                return "reads on"
            except OSError:
                return "closed"

    assert both(tmp_path, look) == {"stock": "reads on", "ours": "closed"}


def test_half_pdus_lock_everybody_out_of_stock_for_as_long_as_they_stay(tmp_path: Path) -> None:
    def look(target: Target) -> str:
        with ExitStack() as stack:
            for _ in range(25):  # more than ten, which are pynetdicom's limit, and than any of ours from one address
                half = stack.enter_context(socket.create_connection(("127.0.0.1", target.port)))
                half.sendall(b"\x01\x00\x00\x00\x10\x00\x00")
            time.sleep(2.5 * DEADLINE)
            try:
                with sender(target.port):
                    return "served"
            except AssertionError:
                return "locked out"

    assert both(tmp_path, look) == {"stock": "locked out", "ours": "served"}


def test_one_silent_caller_of_its_tls_port_keeps_everybody_out_of_stock(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "authority")
    files, identity = authority.sign("node.example"), Identity(authority.sign("scanner.example"))

    def look(port: int) -> str:
        with socket.create_connection(("127.0.0.1", port)):
            time.sleep(0.2)
            called = Destination("node", "127.0.0.1", port, "QSMNODE", "node.example")
            try:
                echo(called, SendSettings("SCANNER", 1.5, 1.5, 1.5, 1.5, tls=identity))
            except PeerFailure:
                return "shut out"
            return "served"

    with stock(tmp_path / "stock", tls=files) as target:
        assert look(target.port) == "shut out"
    known = Peers([Peer("mr", "SCANNER", "127.0.0.1", frozenset({Right.STORE}), certificate="scanner.example")])
    secure = Secure(Identity(files), 0)
    with running_node(
        tmp_path / "ours", ReceiveSettings(port=0, drain_timeout=0.5), peers=known, secure=secure
    ) as node:
        assert look(node.receiver.secure_port) == "served"


def test_a_command_that_never_ends_is_collected_by_stock(tmp_path: Path) -> None:
    def look(target: Target) -> str:
        with sender(target.port) as association:
            return "hung up on" if is_hung_up_on(association, fragments(0x01, 1), 60) else "collected"

    assert both(tmp_path, look) == {"stock": "collected", "ours": "hung up on"}


def test_whoever_calls_is_let_in_by_stock(tmp_path: Path) -> None:
    """It can be told to require AE titles; it has no addresses, no certificates that belong to a title, no rights."""
    with stock(tmp_path / "stock") as target, sender(target.port):
        pass
    known = Peers([Peer("mr", "MR1", "127.0.0.1", frozenset({Right.STORE}))])
    with (
        running_node(tmp_path / "ours", peers=known) as node,
        pytest.raises(PeerFailure, match="rejected"),
        associate([build_context(VERIFICATION)], node.destination, SendSettings("SCANNER")),
    ):
        pass


# what is acknowledged


def test_a_uid_is_a_path_to_stocks_qrscp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2026-56445."""
    image = mr_image()
    image.SOPInstanceUID = "../escaped"
    with qrscp(tmp_path / "stock" / "storage", monkeypatch) as target:
        assert _answer(offer(target, encode(image))) == "0x0000"
    assert (tmp_path / "stock" / "escaped").is_file()
    with ours(tmp_path / "ours" / "spool") as target:
        assert _answer(offer(target, encode(image))) == "0xA900"
        assert target.kept() == []
    assert [path for path in (tmp_path / "ours").iterdir() if path.name != "spool"] == []


def test_stocks_qrscp_says_success_although_its_database_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with qrscp(tmp_path / "stock", monkeypatch) as target:
        assert offer(target, encode(mr_image())) == 0x0000

    def fails(stored: Stored) -> None:
        raise OSError("no database")

    receiver = Receiver(
        ReceiveSettings(port=0, drain_timeout=0.5), Spool(tmp_path / "ours"), fails, lambda refused: None
    )
    receiver.start()
    try:
        assert offer(Target(receiver.port, list), encode(mr_image())) == 0xA700
    finally:
        receiver.stop()


def test_an_object_that_is_cut_short_is_a_success_to_stock(tmp_path: Path) -> None:
    cut = encode(mr_image())[:-20]
    assert both(tmp_path, lambda target: _answer(offer(target, cut))) == {"stock": "0x0000", "ours": "0xC000"}


def test_an_object_that_is_not_the_one_it_is_announced_as_is_a_success_to_stock(tmp_path: Path) -> None:
    """The scanner hears that one is kept, and another is."""
    encoded = encode(mr_image())
    found = both(tmp_path, lambda target: _answer(offer(target, encoded, uid="1.2.3.4.5")))
    assert found == {"stock": "0x0000", "ours": "0xA900"}


def test_a_repetition_with_other_content_overwrites_what_stock_has_acknowledged(tmp_path: Path) -> None:
    """dcm4chee #4754 and #4969 lost it altogether."""
    first, second = mr_image(pixel=0), mr_image(pixel=9)

    def look(target: Target) -> str:
        for image in (first, second):
            offer(target, encode(image))
        kept = {dcmread(path).PixelData for path in target.kept()}
        return "the first is kept" if first.PixelData in kept else "the first is gone"

    assert both(tmp_path, look) == {"stock": "the first is gone", "ours": "the first is kept"}


def test_dcmtks_storescp_overwrites_too(storescu_command: Path, tmp_path: Path) -> None:
    first, second = mr_image(pixel=0), mr_image(pixel=9)
    with running_storescp(storescu_command.with_name("storescp"), tmp_path / "kept") as peer:
        for number, image in enumerate((first, second)):
            [delivery] = send(write(tmp_path / str(number), image), peer, SendSettings())
            assert delivery.outcome == "stored"
    [path] = _files(tmp_path / "kept")
    assert dcmread(path).PixelData == second.PixelData


def test_a_deflate_bomb_is_unpacked_by_stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB of zeros in 64 kB; the limits here are made as small as that."""
    image = mr_image()
    image.PixelData = bytes(2**26)
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(encode(image)) + packer.flush()
    assert len(bomb) < 2**17
    unpacked: list[int] = []

    def counting(event: evt.Event) -> int:
        unpacked.append(len(event.dataset.PixelData))
        return 0x0000

    with stock(tmp_path / "stock", counting) as target:
        assert offer(target, bomb, syntax=DeflatedExplicitVRLittleEndian) == 0x0000
    assert unpacked == [2**26]
    settings = ReceiveSettings(port=0, drain_timeout=0.5, maximum_object_bytes=2**22)
    with running_node(tmp_path / "ours", settings) as node:
        target = Target(node.receiver.port, list)
        assert offer(target, bomb, syntax=DeflatedExplicitVRLittleEndian) == 0xA700


# what is durable, and what is left over


def test_stock_acknowledges_what_a_power_cut_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)

    def look(target: Target) -> str:
        synced.clear()
        assert offer(target, encode(mr_image())) == 0x0000
        before = set(synced)
        [kept] = target.kept()
        return "file and folder" if kept.parent in before and len(before) > 1 else f"{len(before)} of them"

    assert both(tmp_path, look) == {"stock": "0 of them", "ours": "file and folder"}


def test_a_transfer_that_breaks_off_leaves_a_file_of_stocks_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Received in chunks, without which it holds each object in memory as a whole."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def look(target: Target) -> str:
        with sender(target.port) as association:
            half_a_store(association)
            time.sleep(0.5)
        time.sleep(0.5)
        left = [*_files(temporary), *target.kept(), *_files(tmp_path / "ours" / "receiving")]
        return f"{len(left)} files left"

    monkeypatch.setattr(_config, "STORE_RECV_CHUNKED_DATASET", True)
    with stock(tmp_path / "stock", lambda event: 0x0000) as target:
        assert look(target) == "1 files left"
    next(iter(_files(temporary))).unlink()
    monkeypatch.setattr(_config, "STORE_RECV_CHUNKED_DATASET", False)
    with ours(tmp_path / "ours") as target:
        assert look(target) == "0 files left"


def half_a_store(association: Association) -> None:
    """The command of a C-STORE and the first part of its data set."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = MRImageStorage, mr_image().SOPInstanceUID
    request.DataSet = BytesIO(encode(mr_image(rows=200, columns=200)))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    parts = list(message.encode_msg(association.accepted_contexts[0].context_id, 16_000))
    assert len(parts) > 3
    for part in parts[:-1]:
        association.dul.send_pdu(part)


@contextmanager
def qrscp(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """pynetdicom's qrscp by its own handler, over a database that takes nothing.  What it needs of SQLAlchemy is left
    away: the handler writes its file first."""

    def takes_nothing(*_: object) -> None:
        raise OSError("the database is locked")

    for name, content in {
        "sqlalchemy": {"create_engine": lambda path: _Nothing()},
        "sqlalchemy.orm": {"sessionmaker": lambda bind: _Nothing},
        "pynetdicom.apps.qrscp.db": {
            "add_instance": takes_nothing, "search": None, "InvalidIdentifier": OSError, "Instance": _Nothing(),
        },
    }.items():  # fmt: skip
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    from pynetdicom.apps.qrscp import handlers

    folder.mkdir(parents=True)
    with stock(folder, lambda event: handlers.handle_store(event, str(folder), "", {}, SILENT)) as target:
        yield target


class _Nothing:
    """Whatever is asked of it, it is again."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_: object) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass
