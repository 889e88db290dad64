"""Send: the C-STORE SCU.

Each file goes out as the bytes it holds, in its own transfer syntax; only a peer that takes nothing but implicit VR
gets it re-encoded (every peer must take that one, PS3.5 10.1).  Every wait has an end.  A peer that breaks off at an
instance gets the others over another association.
"""

from __future__ import annotations

from collections import deque
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
MOST_SUSPECTED = 3
"""Instances in a row at which a peer may break off before it is the peer itself: an archive may well stumble over
segmentation, report and page, which come one after the other."""
_MOST_CONTEXTS = 128  # odd context IDs of one byte (PS3.8 9.3.2.2)

# Files are sent as they lie on disk.
_config.STORE_SEND_CHUNKED_DATASET = True


@dataclass(frozen=True)
class Delivery:
    """What the peer answered for one instance.

    status: of the C-STORE response, None where there was none.  outcome: stored (also with a warning), refused (again
    would not help) or retry.  broke_off: whether the peer broke off at this instance and went on without it.
    """

    sop_instance_uid: str
    path: Path
    status: int | None
    outcome: Outcome
    comment: str = ""
    broke_off: bool = False


@dataclass(frozen=True)
class _File:
    path: Path
    sop_class_uid: UID
    sop_instance_uid: str
    transfer_syntax: UID


class _Ended(PeerFailure):
    """The peer ended the association between two instances."""


class _BrokeOff(PeerFailure):
    """The peer gave no (whole) answer to an instance."""


def send(files: Sequence[Path], destination: Destination, settings: SendSettings) -> Iterator[Delivery]:
    """Send over one association and yield one Delivery for each file as it is answered, in order.

    Where the peer breaks off at an instance, the next ones go over another association.  If it answers there, that one
    instance was the reason, and its Delivery says so; if it breaks off at one after the other, it is the peer.  Raises
    PeerFailure then, and when an association cannot be had; what was yielded before is answered for.  Raises
    UnreadableObject, before anything is sent, when a file is not a DICOM file.
    """
    left = deque(_read_meta(path) for path in files)
    contexts = _contexts(left)
    suspected: list[Delivery] = []
    while left:
        answered = 0
        try:
            with associate(contexts, destination, settings) as association:
                while left:
                    delivery = _store(association, left[0], (answered + 1) % 0xFFFF or 1, destination)
                    left.popleft()
                    answered += 1
                    while suspected:
                        yield suspected.pop(0)
                    yield delivery
        except _Ended:
            if not answered:
                raise
        except _BrokeOff as error:
            if len(suspected) == MOST_SUSPECTED:
                raise
            one = left.popleft()
            suspected.append(Delivery(one.sop_instance_uid, one.path, None, "retry", str(error), broke_off=True))
    if suspected:
        with associate(contexts, destination, settings):
            pass  # they were the last, and the peer still takes associations
        yield from suspected


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
        raise _Ended(f"{destination.words} ended the association; the rest is sent again later") from error
    if "Status" not in answer:
        raise _BrokeOff(
            f"{destination.words} broke off or did not answer in time at instance {instance.sop_instance_uid}, "
            "which is sent again later"
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
