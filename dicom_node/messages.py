"""The messages of an association, fragment by fragment (PS3.8 Annex E): objects go straight to whoever takes them.

C-STORE requests and their answers are read and packed by hand here (PS3.7 9.3.1): a pydicom data set for each of
them costs more than writing the image.  All other messages are pynetdicom's, which collects them, and messages that
wait for their turn, without end: here both have a limit.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

MOST_WAITING = 4
"""Messages not looked at yet; without asynchronous operations (PS3.7 D.3.3.3) a peer waits for answers."""
_LARGEST_COMMAND = 2**16  # a command set has about 20 elements (PS3.7 E); 300 bytes are many
_LARGEST_DATA_SET = 2**25  # of what is no C-STORE: a request to commit 100,000 instances needs about 20 MB
_LARGEST_HELD = 2 * _LARGEST_DATA_SET  # whoever has its answer may ask again before all of the first is forgotten
P_DATA_TF = 0x04
_PDU = struct.Struct(">BBL")  # PS3.8 9.3: type, reserved, length
_ITEM = struct.Struct(">LB")  # PS3.8 9.3.5.1: length, context
_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")
_COMMAND, _LAST = 0x01, 0x02  # message control header, PS3.8 E.2
_C_STORE_RQ, _C_STORE_RSP, _NO_DATA_SET = 0x0001, 0x8001, 0x0101  # PS3.7 E.1

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE request and the presentation context that it came in.  UIDs are as the peer has written them."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax: str
    transfer_syntax: UID


Answer = tuple[int, str]
"""The status that answers a request (PS3.4 B.2.3), and a comment, empty if there is none."""


class Taking(Protocol):
    """An object while it arrives."""

    def write(self, fragment: memoryview) -> None:
        """Takes the next fragment, which is gone when this returns."""

    def finish(self) -> Answer:
        """It is complete."""

    def abandon(self) -> None:
        """It will not be completed."""


Begin = Callable[[Association, StoreRequest], Taking]


class Messages:
    """What comes over one association.  largest_object: bytes of an object.  Raises ConnectionAbortedError at limits.

    may_store: whether the peer may send objects; whoever may not sends no large ones either.
    """

    def __init__(self, association: Association, largest_object: int, begin: Begin | None) -> None:
        self.may_store = association.is_requestor
        self._association = association
        self._begin_to_take = begin
        self._largest_object = largest_object
        self._command = bytearray()
        self._object: _Object | None = None
        self._passing = False
        """Whether the data set that comes belongs to a message for pynetdicom."""
        self._size = 0
        """Bytes of the object that comes."""
        self._context = 0
        """Of the message that comes."""
        self._held: deque[int] = deque()
        """Bytes of the data sets for pynetdicom: of the one that comes, and of those before it that are not yet served.
        """
        self.answering = False
        """Whether an answer waits until a message of ours has been put into the queue."""
        self._served = 0
        self._served_lock = threading.Lock()
        self._whole_messages = threading.Lock()
        self._keep_messages_whole()
        self._count_what_is_served()

    @property
    def in_progress(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._command) or self._passing or self._object is not None

    def take(self, pdu: memoryview) -> None:
        """The items of a P-DATA-TF PDU."""
        position = 0
        while position < len(pdu):
            if position + _ITEM.size >= len(pdu):
                raise ConnectionAbortedError("a PDU ends in the middle of an item")
            length, context = _ITEM.unpack_from(pdu, position)
            begin, end = position + _ITEM.size, position + _ITEM.size + length - 1  # the context is counted
            if not begin < end <= len(pdu):
                raise ConnectionAbortedError(f"an item of {length} bytes does not fit its PDU of {len(pdu)}")
            with pdu[begin + 1 : end] as fragment:
                self._fragment(context, pdu[begin], fragment)
            position = end

    def abandon(self) -> None:
        """No more will come."""
        if self._object is not None:
            self._object.taking.abandon()
            self._object = None

    def ended(self, error: Exception) -> None:
        """The connection is closed for this reason."""
        log.warning("connection_ended", host=self._association.remote["address"], reason=str(error))
        self.abandon()

    def _fragment(self, context: int, control: int, fragment: memoryview) -> None:
        last = bool(control & _LAST)
        if self.in_progress and context != self._context:
            raise ConnectionAbortedError(f"a fragment came in context {context}, its message in {self._context}")
        self._context = context
        if control & _COMMAND:
            if self._object is not None or self._passing:
                raise ConnectionAbortedError("a command came in the middle of a data set")
            self._command += fragment
            if len(self._command) > _LARGEST_COMMAND:
                raise ConnectionAbortedError(f"a command set is larger than {_LARGEST_COMMAND} bytes")
            if last:
                command, self._command = bytes(self._command), bytearray()
                self._begin(context, command)
        elif self._object is not None:
            self._size += len(fragment)
            self._require(self._size, self._largest_object if self.may_store else _LARGEST_DATA_SET)
            self._object.taking.write(fragment)
            if last:
                self._finish(self._object)
        elif self._passing:
            self._held[-1] += len(fragment)
            self._require(self._held[-1], _LARGEST_DATA_SET)
            self._require(sum(self._held), _LARGEST_HELD)
            self._passing = not last
            self._pass_on(context, control, bytes(fragment))
        else:
            raise ConnectionAbortedError("a data set came without a command")

    def _require(self, size: int, largest: int) -> None:
        allowed = min(largest, self._largest_object)
        if size > allowed:
            raise ConnectionAbortedError(f"a data set grows beyond {allowed} bytes")

    def _begin(self, context: int, command: bytes) -> None:
        """A command set is complete."""
        elements = _elements(command)
        field, data_set_type = (_number(elements, element) for element in (0x0100, 0x0800))
        if field != _C_STORE_RQ or self._begin_to_take is None:
            self._refuse_more()
            self._passing = data_set_type != _NO_DATA_SET
            if self._passing:
                self._held.append(0)
            self._pass_on(context, _COMMAND | _LAST, command)
            return
        accepted = self._association._accepted_cx.get(context)
        if accepted is None or not accepted.transfer_syntax:
            raise ConnectionAbortedError(f"a C-STORE came in context {context}, which was not accepted")
        request = StoreRequest(
            message_id=_number(elements, 0x0110),
            sop_class_uid=_uid(elements, 0x0002),
            sop_instance_uid=_uid(elements, 0x1000),
            abstract_syntax=str(accepted.abstract_syntax),
            transfer_syntax=accepted.transfer_syntax[0],
        )
        self._size = 0
        self._object = _Object(context, elements, self._begin_to_take(self._association, request))
        if data_set_type == _NO_DATA_SET:
            self._finish(self._object)

    def _finish(self, complete: _Object) -> None:
        status, comment = complete.taking.finish()
        self._object, self._size = None, 0
        answer = _store_response(complete.elements, status, comment)
        self.answering = True  # on the thread that empties the queue: who holds the lock must not wait for that now
        with self._whole_messages:
            self.answering = False
            dul, longest = self._association.dul, self._association.dimse.maximum_pdu_size
            fragments = _fragments(answer, longest)
            if dul.to_provider_queue.empty():  # nothing goes before it, and the thread that sends is this one
                assert dul.socket is not None
                dul.socket.send(b"".join(_pdu(complete.context, fragment) for fragment in fragments))
                return
            for fragment in fragments:
                primitive = P_DATA()
                primitive.presentation_data_value_list.append((complete.context, fragment))
                dul.send_pdu(primitive)

    def _pass_on(self, context: int, control: int, fragment: bytes) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context, bytes([control]) + fragment))
        self._association.dimse.receive_primitive(primitive)

    def _refuse_more(self) -> None:
        """Raises ConnectionAbortedError when what has come already is more than is taken."""
        association = self._association
        # Of answers to us the guard reads no more than are looked at.
        waiting = self._served + (0 if association.is_requestor else association.dimse.msg_queue.qsize())
        while len(self._held) > waiting:
            self._held.popleft()
        if waiting > MOST_WAITING:
            raise ConnectionAbortedError(f"{waiting} messages came without waiting for an answer")

    def _count_what_is_served(self) -> None:
        """Whatever service it is for: a request of the peer passes `_serve_request` of pynetdicom 3.0.4."""
        serve = self._association._serve_request

        def counted(message: Any, context_id: int) -> None:
            with self._served_lock:
                self._served += 1
            try:
                serve(message, context_id)
            finally:
                with self._served_lock:
                    self._served -= 1

        self._association._serve_request = counted  # type: ignore[method-assign,assignment]  # there is no other place for it

    def _keep_messages_whole(self) -> None:
        """No fragment of one message is sent between those of another (PS3.7 6.3.1), whichever thread sends it."""
        send = self._association.dimse.send_msg

        def send_whole(primitive: Any, context_id: int) -> None:
            with self._whole_messages:
                send(primitive, context_id)

        self._association.dimse.send_msg = send_whole  # type: ignore[method-assign]  # there is no other place for it


@dataclass(frozen=True)
class _Object:
    """A C-STORE request whose data set arrives."""

    context: int
    elements: dict[int, bytes]
    taking: Taking


def _elements(command: bytes) -> dict[int, bytes]:
    """The values of a command set by the element number of group 0000 (PS3.7 6.3.1: implicit VR little endian)."""
    found: dict[int, bytes] = {}
    position = 0
    while position < len(command):
        if position + _ELEMENT.size > len(command):
            raise ConnectionAbortedError("a command set ends in the middle of an element")
        group, element, length = _ELEMENT.unpack_from(command, position)
        position += _ELEMENT.size
        if group != 0 or length > len(command) - position:
            raise ConnectionAbortedError(f"a command set holds ({group:04X},{element:04X}) of {length} bytes")
        found[element] = command[position : position + length]
        position += length
    return found


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != _US.size:
        raise ConnectionAbortedError(f"a command set without a number in (0000,{element:04X})")
    return int(_US.unpack(value)[0])


def _uid(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("ascii", "replace").rstrip("\0 ")


def _store_response(request: dict[int, bytes], status: int, comment: str) -> bytes:
    """C-STORE-RSP (PS3.7 9.3.1.2); UIDs are sent back as they came."""
    content = b"".join(
        (
            _element(0x0002, request.get(0x0002, b"")),
            _element(0x0100, _US.pack(_C_STORE_RSP)),
            _element(0x0120, request[0x0110]),
            _element(0x0800, _US.pack(_NO_DATA_SET)),
            _element(0x0900, _US.pack(status)),
            _element(0x0902, comment.encode("ascii") + b" " * (len(comment) % 2)) if comment else b"",
            _element(0x1000, request.get(0x1000, b"")),
        )
    )
    return _element(0x0000, struct.pack("<L", len(content))) + content


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _fragments(command: bytes, longest_pdu: int) -> Iterator[bytes]:
    """Each behind its control header.  longest_pdu: what the peer takes, 0 for any length (PS3.8 D.1)."""
    room = max(longest_pdu - _ITEM.size - 1, 1) if longest_pdu else len(command)
    for begin in range(0, len(command), room):
        control = _COMMAND | (_LAST if begin + room >= len(command) else 0)
        yield bytes([control]) + command[begin : begin + room]


def _pdu(context: int, fragment: bytes) -> bytes:
    """P-DATA-TF of one fragment (PS3.8 9.3.5)."""
    item = _ITEM.pack(len(fragment) + 1, context) + fragment
    return _PDU.pack(P_DATA_TF, 0, len(item)) + item
