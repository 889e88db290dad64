"""Messages: objects go straight to whoever takes them, everything else to pynetdicom, and both have limits."""

from __future__ import annotations

import struct
from collections import deque
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.messages import Messages, StoreRequest

CONTEXT = 3


class Object:
    """Takes everything."""

    def __init__(self) -> None:
        self.content = b""
        self.is_abandoned = False

    def write(self, fragment: memoryview) -> None:
        self.content += fragment

    def finish(self) -> tuple[int, str]:
        return 0xA900, "not this one"

    def abandon(self) -> None:
        self.is_abandoned = True


class Line:
    """Messages of an association that is not there."""

    def __init__(self, largest: int = 10**6, longest_pdu: int = 0) -> None:
        self.objects: list[tuple[StoreRequest, Object]] = []
        self.wire = b""
        self.queue: deque[P_DATA] = deque()
        """What is to be sent and has not been."""
        self.passed: list[P_DATA] = []
        context = SimpleNamespace(abstract_syntax=MRImageStorage, transfer_syntax=[ExplicitVRLittleEndian])
        self.dimse = SimpleNamespace(
            msg_queue=SimpleNamespace(qsize=lambda: 0),
            send_msg=lambda primitive, context_id: None,
            receive_primitive=self.passed.append,
            maximum_pdu_size=longest_pdu,
        )
        association: Any = SimpleNamespace(
            is_requestor=False,
            _accepted_cx={CONTEXT: context},
            dimse=self.dimse,
            dul=SimpleNamespace(
                send_pdu=self.queue.append,
                to_provider_queue=SimpleNamespace(empty=lambda: not self.queue),
                socket=SimpleNamespace(send=self._send),
            ),
            _serve_request=lambda message, context_id: None,
            remote={"address": "192.0.2.1"},
        )
        self.messages = Messages(association, largest, self._begin)
        self.messages.may_store = True

    def _begin(self, association: Any, request: StoreRequest) -> Object:
        self.objects.append((request, Object()))
        return self.objects[-1][1]

    def _send(self, content: bytes) -> None:
        self.wire += content

    def hear(self, *items: tuple[int, bytes], context: int = CONTEXT) -> None:
        """One PDU with these items: message control header and fragment."""
        pdu = b"".join(struct.pack(">LBB", len(content) + 2, context, control) + content for control, content in items)
        self.messages.take(memoryview(pdu))

    @property
    def sent(self) -> list[P_DATA]:
        """What went out, as pynetdicom reads it: one PDU for each."""
        found, position = [], 0
        while position < len(self.wire):
            (length,) = struct.unpack_from(">L", self.wire, position + 2)
            pdu = P_DATA_TF()
            pdu.decode(self.wire[position : position + 6 + length])
            found.append(pdu.to_primitive())
            position += 6 + length
        return found

    @property
    def answer(self) -> C_STORE:
        """What was sent, as pynetdicom reads it."""
        message = DIMSEMessage()
        assert [message.decode_msg(primitive) for primitive in self.sent or self.queue][-1]
        assert isinstance(message, C_STORE_RSP)
        found = message.message_to_primitive()
        assert isinstance(found, C_STORE)
        return found


def command(data_set: bytes = b"x" * 10, uid: str = "1.2.3", message_id: int = 7) -> bytes:
    """A C-STORE request as pynetdicom encodes it."""
    request = C_STORE()
    request.MessageID, request.Priority = message_id, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = MRImageStorage, uid
    if data_set:
        request.DataSet = BytesIO(data_set)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    ((_, first),) = next(message.encode_msg(CONTEXT, 0)).presentation_data_value_list
    return bytes(first[1:])


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
@pytest.mark.parametrize("longest_pdu", [0, 16384, 32])
def test_an_object_is_taken_and_its_answer_is_what_pynetdicom_reads(uid: str, longest_pdu: int) -> None:
    line = Line(longest_pdu=longest_pdu)
    line.hear((0x03, command(uid=uid)), (0x00, b"first "))
    assert line.messages.in_progress
    line.hear((0x02, b"and last"))
    assert not line.messages.in_progress
    ((request, object_),) = line.objects
    assert request == StoreRequest(7, MRImageStorage, uid, MRImageStorage, ExplicitVRLittleEndian)
    assert object_.content == b"first and last"
    answer = line.answer
    assert (answer.MessageIDBeingRespondedTo, answer.Status, answer.ErrorComment) == (7, 0xA900, "not this one")
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (MRImageStorage, uid)
    assert all(
        len(primitive.presentation_data_value_list[0][1]) + 5 <= (longest_pdu or 10**6) for primitive in line.sent
    )
    assert line.passed == []


def test_an_answer_goes_behind_what_waits_to_be_sent() -> None:
    line = Line()
    line.queue.append(waiting := P_DATA())
    line.hear((0x03, command()), (0x02, b"all"))
    assert line.wire == b""
    assert line.queue.popleft() is waiting
    assert line.answer.Status == 0xA900


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8))
@settings(max_examples=50)
def test_however_it_is_cut_the_object_is_the_same(lengths: list[int]) -> None:
    whole, request = bytes(range(200)) * len(lengths), command()
    line = Line()
    cut = min(lengths[0], len(request) - 1)
    line.hear((0x01, request[:cut]), (0x03, request[cut:]))
    position = 0
    for length in lengths:
        line.hear((0x00, whole[position : position + length]))
        position += length
    line.hear((0x02, whole[position:]))
    assert line.objects[0][1].content == whole


def test_other_messages_are_passed_on_as_they_came() -> None:
    line = Line()
    request = C_ECHO()
    request.MessageID, request.AffectedSOPClassUID = 1, "1.2.840.10008.1.1"
    message = C_ECHO_RQ()
    message.primitive_to_message(request)
    (expected,) = message.encode_msg(CONTEXT, 0)
    ((_, content),) = expected.presentation_data_value_list
    line.hear((content[0], content[1:]))
    assert [primitive.presentation_data_value_list for primitive in line.passed] == [[(CONTEXT, content)]]
    assert line.objects == []


def test_a_request_without_a_data_set_is_answered() -> None:
    line = Line()
    line.hear((0x03, command(b"")))
    assert line.answer.Status == 0xA900
    assert line.objects[0][1].content == b""


def a_query() -> bytes:
    """The command set of a C-FIND request (PS3.7 E.1), as far as it is looked at."""
    numbers = {0x0100: 0x0020, 0x0110: 1, 0x0800: 0x0001}
    return b"".join(struct.pack("<HHLH", 0, element, 2, number) for element, number in numbers.items())


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([(0x02, b"data")], "without a command"),
        ([(0x03, command()), (0x03, command())], "in the middle of a data set"),
        ([(0x03, command()), (0x00, bytes(600)), (0x00, bytes(600))], "grows beyond 1000 bytes"),
        ([(0x01, bytes(2**16)), (0x01, b"1")], "larger than 65536 bytes"),
        ([(0x03, command()[:-3])], "of 6 bytes"),
        ([(0x03, b"\0\0\0\1")], "in the middle of an element"),
        ([(0x03, b"")], "without a number"),
    ],
)
def test_what_has_no_place_ends_the_association(items: list[tuple[int, bytes]], reason: str) -> None:
    line = Line(largest=1000)
    *before, last = items
    for item in before:
        line.hear(item)
    with pytest.raises(ConnectionAbortedError, match=reason) as caught:
        line.hear(last)
    line.messages.ended(caught.value)
    assert all(object_.is_abandoned for _, object_ in line.objects)


@pytest.mark.parametrize(
    ("begun", "control"), [((0x01, command()[:20]), 0x03), ((0x03, command()), 0x02), ((0x03, a_query()), 0x02)]
)
def test_a_message_that_changes_its_context_ends_the_association(begun: tuple[int, bytes], control: int) -> None:
    """Or a small object would be judged by the transfer syntax of another context than it came in."""
    line = Line()
    line.hear(begun)
    with pytest.raises(ConnectionAbortedError, match=f"context {CONTEXT + 2}, its message in {CONTEXT}"):
        line.hear((control, b"data"), context=CONTEXT + 2)


def test_large_requests_one_after_another_are_served_and_many_at_once_are_not() -> None:
    """Whoever has its answer may ask again, although the thread that answered has not come to its end."""
    line = Line(largest=10**9)
    fragment = bytes(20 * 10**6)
    for _ in range(3):
        line.messages._served = 1  # the one before
        line.hear((0x03, a_query()))
        line.hear((0x02, fragment))
    line.messages._served = 2
    line.hear((0x03, a_query()))
    line.hear((0x02, fragment))
    line.messages._served = 3
    line.hear((0x03, a_query()))
    with pytest.raises(ConnectionAbortedError, match="grows beyond"):
        line.hear((0x02, fragment))


@pytest.mark.parametrize("pdu", [b"\0", b"\0\0\0\1\3", b"\0\0\0\0\3\3", b"\xff\xff\xff\xff\3\3abc"])
def test_an_item_that_does_not_fit_ends_the_association(pdu: bytes) -> None:
    with pytest.raises(ConnectionAbortedError, match="item"):
        Line().messages.take(memoryview(pdu))


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_a_message_or_end_the_association(pdu: bytes) -> None:
    line = Line()
    try:
        line.messages.take(memoryview(pdu))
    except ConnectionAbortedError:
        return
    assert len(line.objects) <= 1


def test_an_object_in_a_context_that_was_not_accepted_ends_the_association() -> None:
    content = command()
    with pytest.raises(ConnectionAbortedError, match="not accepted"):
        Line().messages.take(memoryview(struct.pack(">LBB", len(content) + 2, 99, 0x03) + content))
