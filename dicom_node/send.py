"""Send: the C-STORE SCU.

Each file goes out as the bytes it holds, in its own transfer syntax; only a peer that takes nothing but implicit VR
gets it re-encoded (every peer must take that one, PS3.5 10.1).  Every wait has an end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.call import Destination, SendSettings, associate
from dicom_node.errors import PeerFailure, UnreadableObject

Outcome = Literal["stored", "refused", "retry"]

_NO_CONTEXT = 0x0122  # SOP class not supported (PS3.7 C.5.6): what the peer said by rejecting the context
_DUPLICATE = 0x0111  # Duplicate SOP instance: our UIDs are derived, so the peer has this very object
_TEMPORARY = (0x0110, 0x0213)  # Processing failure (what archives say when their storage fails), Resource limitation
_WARNINGS = (0x0001, 0x0107, 0x0116)  # PS3.7 C.3: the operation was done
_MOST_CONTEXTS = 128  # odd context IDs of one byte (PS3.8 9.3.2.2)

# Files are sent as they lie on disk.
_config.STORE_SEND_CHUNKED_DATASET = True


@dataclass(frozen=True)
class Delivery:
    """What the peer answered for one instance.

    status: of the C-STORE response.  outcome: stored (also with a warning), refused (again would not help) or retry.
    """

    sop_instance_uid: str
    path: Path
    status: int
    outcome: Outcome
    comment: str = ""


@dataclass(frozen=True)
class _File:
    path: Path
    sop_class_uid: UID
    sop_instance_uid: str
    transfer_syntax: UID


def send(files: Sequence[Path], destination: Destination, settings: SendSettings) -> Iterator[Delivery]:
    """Send over one association and yield one Delivery for each file as it is answered, in order.

    Raises PeerFailure when the association cannot be had or breaks; what was yielded before is answered for.  Raises
    UnreadableObject, before anything is sent, when a file is not a DICOM file.
    """
    instances = [_read_meta(path) for path in files]
    if not instances:
        return
    with associate(_contexts(instances), destination, settings) as association:
        for message_id, instance in enumerate(instances, start=1):
            yield _store(association, instance, message_id % 0xFFFF or 1, destination)


def classify(status: int) -> Outcome:
    """What the status of a C-STORE response (PS3.4 B.2.3, PS3.7 C) means for this instance."""
    if status == 0x0000 or 0xB000 <= status <= 0xBFFF or status in _WARNINGS or status == _DUPLICATE:
        return "stored"
    if 0xA700 <= status <= 0xA7FF or status in _TEMPORARY:
        return "retry"
    return "refused"


def _store(association: Association, instance: _File, message_id: int, destination: Destination) -> Delivery:
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == instance.sop_class_uid
    }
    if instance.transfer_syntax in accepted:
        source: Path | Dataset = instance.path
    elif ImplicitVRLittleEndian in accepted and not instance.transfer_syntax.is_compressed:
        source = dcmread(instance.path)
    else:
        comment = f"no context for {instance.sop_class_uid.name} in {instance.transfer_syntax.name} was accepted"
        return Delivery(instance.sop_instance_uid, instance.path, _NO_CONTEXT, "refused", comment)
    try:
        answer = association.send_c_store(source, msg_id=message_id)
    except RuntimeError as error:  # the association ended between two messages
        raise PeerFailure(f"{destination.words} ended the association; the rest is sent again later") from error
    if "Status" not in answer:
        raise PeerFailure(
            f"{destination.words} broke off or did not answer in time at instance {instance.sop_instance_uid}; it and "
            "the rest are sent again later"
        )
    status = int(answer.Status)
    return Delivery(
        instance.sop_instance_uid, instance.path, status, classify(status), str(answer.get("ErrorComment", ""))
    )


def _contexts(instances: Sequence[_File]) -> list[PresentationContext]:
    """One context for each SOP class and transfer syntax, and the default syntax for what can be re-encoded to it."""
    wanted: dict[tuple[UID, UID], None] = {}
    for instance in instances:
        wanted[instance.sop_class_uid, instance.transfer_syntax] = None
        if not instance.transfer_syntax.is_compressed:
            wanted[instance.sop_class_uid, ImplicitVRLittleEndian] = None
    if len(wanted) > _MOST_CONTEXTS:
        raise UnreadableObject(
            f"{len(wanted)} kinds of objects do not fit in the {_MOST_CONTEXTS} contexts of one association: send fewer"
        )
    return [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in wanted]


def _read_meta(path: Path) -> _File:
    try:
        meta = read_file_meta_info(path)
        return _File(path, meta.MediaStorageSOPClassUID, str(meta.MediaStorageSOPInstanceUID), meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, EOFError) as error:
        raise UnreadableObject(f"{path} is no DICOM file with File Meta Information: {error}") from error
