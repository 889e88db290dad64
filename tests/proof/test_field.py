"""Failures seen in the field that no other test has by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.convert import describe
from dicom_node.index import Index
from dicom_node.spool import Spool
from dicom_node.store import Store
from tests.objects import encode, mr_image, part_10
from tests.peers import running_node

NAMES: dict[str, tuple[list[str], bytes]] = {
    "Japanese": (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    "Korean": (["", "ISO 2022 IR 149"], b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
    "Chinese": (["", "ISO 2022 IR 58"], b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
    "Greek": (["ISO_IR 126"], b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2"),
    "an escape that does not end": (["", "ISO 2022 IR 87"], b"Yamada\x1b$B;3"),
    "escapes without a character set": ([""], b"\x1b$B\x1b(J\x1b$)C" * 5),
    "a character set that there is not": (["ISO 2022 IR 999", "KLINGON"], b"Worf"),
    "UTF-8 that is none": (["ISO_IR 192"], b"\xff\xfe\xc0\x80"),
}


@pytest.mark.filterwarnings("ignore")
def test_names_in_every_character_set_neither_loop_nor_stop_anybody(tmp_path: Path) -> None:
    """mercure #42, #59, #82: such a name kept its file in the incoming folder for ever, and those behind it too.

    Each is answered 0x0000, indexed once, found again by a start, and its bytes are those that came.
    """
    from demo.scanner import push

    folder = tmp_path / "scan"
    folder.mkdir()
    sent = {}
    for number, (what, (character_sets, name)) in enumerate(NAMES.items(), start=1):
        image = mr_image(number)
        image.SpecificCharacterSet = "PLACEHOLDER"
        image.PatientName = "X" * (len(name) + len(name) % 2)
        image.SOPInstanceUID = generate_uid(entropy_srcs=["field", what])
        told = "\\".join(character_sets).encode()
        encoded = encode(image).replace(image.PatientName.encode(), name.ljust(len(name) + len(name) % 2))
        encoded = _replaced(encoded, b"\x08\x00\x05\x00CS", told + b" " * (len(told) % 2))
        path = folder / f"{number}.dcm"
        path.write_bytes(part_10(image, encoded))
        sent[str(image.SOPInstanceUID)] = encoded
    store = Store(tmp_path / "node.db")
    with running_node(tmp_path / "spool") as node:
        files = sorted(folder.iterdir())
        assert {d.status for d in push(files, "127.0.0.1", node.receiver.port, "QSMNODE")} == {0}
        index = Index(store, node.spool, describe)
        index.start()
        for stored in node.stored:
            index.take(stored)
        index.stop()
    rows = store.indexed()
    assert len(rows) == len(NAMES)
    for path in map(Path, rows):
        uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        assert path.read_bytes().endswith(sent[uid])
    Index(store, Spool(tmp_path / "spool"), describe).reconcile()
    assert store.indexed() == rows


def _replaced(encoded: bytes, header: bytes, value: bytes) -> bytes:
    """A short element with another value."""
    place = encoded.index(header) + len(header)
    length = int.from_bytes(encoded[place : place + 2], "little")
    return encoded[:place] + len(value).to_bytes(2, "little") + value + encoded[place + 2 + length :]
