"""Labels that stand for patients and studies in what leaves the hospital: the same every time, and one way only.

They are HMAC-SHA-256 (RFC 2104) under a key that this node makes once and keeps in its state folder: without the key
nobody can find the patient by trying all identifiers, and with it the site can tell whose a label is.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.errors import NodeError

KEY_FILE = "pseudonym.key"
KEY_BYTES = 32
LABEL_LENGTH = 10
"""Hex digits, 40 bit: among a thousand patients two share a label by chance with a probability of 5e-7."""


class NoPseudonym(NodeError):
    """A patient without an identifier cannot be told from another one."""


@dataclass(frozen=True)
class Pseudonyms:
    key: bytes

    def subject(self, header: Dataset) -> str:
        """Raises NoPseudonym where PatientID is empty."""
        patient = str(header.get("PatientID") or "").strip()
        if not patient:
            raise NoPseudonym(
                "the result has no PatientID: nothing tells its patient from another one; name a --subject"
            )
        return self._label("patient", str(header.get("IssuerOfPatientID") or ""), patient)

    def session(self, header: Dataset) -> str:
        return self._label("study", str(header.StudyInstanceUID))

    def source(self, images: Iterable[str]) -> str:
        """Of the images, by UID, that a result was made from."""
        return self._label("source", *sorted(images))

    def _label(self, *what: str) -> str:
        return hmac.new(self.key, "\n".join(what).encode(), hashlib.sha256).hexdigest()[:LABEL_LENGTH]


def read_pseudonyms(state_folder: Path) -> Pseudonyms:
    """Under the key of this node, which is made where there is none; only its user can read it."""
    path = state_folder / KEY_FILE
    state_folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _make_key(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise NodeError(f"{path} holds {len(key)} bytes, expected {KEY_BYTES}; restore it, or all labels change")
    return Pseudonyms(key)


def _make_key(path: Path) -> None:
    """Whole or not at all, whatever stops it, and only once, whoever else does the same."""
    descriptor, name = tempfile.mkstemp(prefix=f"{KEY_FILE}.", dir=path.parent)  # readable by its user only
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
