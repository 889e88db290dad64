"""docs/conformance.md says what the code does: every list, table and default on the page is read and compared."""

from __future__ import annotations

import re

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import PYDICOM_ROOT_UID, UID, ExplicitVRLittleEndian, MRImageStorage

from benchmarks import conformance
from dicom_node import answer, commit, fetch, fetches, gate, identity, matching, messages, mpps, seek, vouch
from dicom_node.admission import (
    ADMITTED_SOP_CLASSES,
    ADMITTED_TRANSFER_SYNTAXES,
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH_SOP_CLASS,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
)
from dicom_node.commit import PUSH_MODEL
from dicom_node.config import Config
from dicom_node.convert import readers
from dicom_node.encode import encode
from dicom_node.encode.record import KINDS, names
from dicom_node.receive import SUCCESS
from dicom_node.send import classify
from dicom_node.settings import Output, Peer
from tests.dicom_node.encode.example import CREATED, EVERYTHING, enhanced_source, header, recipe, whole_maps

PAGE = conformance.PAGE.read_text(encoding="utf-8")
_UID = re.compile(r"(?<![\w.])[0-2](?:\.\d+){4,}(?![\w.])")


def section(number: str) -> str:
    """With the sections below it."""
    level = "###" if re.fullmatch(r"\d\.\d+", number) else "##"
    found = re.search(
        rf"^{level} {re.escape(number)} .*?(?=^##{{1,{len(level) - 1}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found, f"the page has no section {number}"
    return found[0]


def rows(number: str, first: str) -> list[list[str]]:
    """The cells of the table in a section whose head begins with `first`."""
    lines = section(number).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


@pytest.fixture(scope="module")
def outputs() -> list[Dataset]:
    """Everything that can be made, of an enhanced source."""
    return encode(whole_maps(), enhanced_source(), recipe(), CREATED, EVERYTHING).datasets


def test_the_page_is_up_to_date() -> None:
    assert conformance.page() == PAGE, "run `make docs`"
    assert "<!--" not in PAGE


def test_sop_classes_and_roles(outputs: list[Dataset]) -> None:
    table = {UID(uid): (name, scu, scp) for name, uid, scu, scp in rows("1.1", "SOP class")}
    sent = {dataset.SOPClassUID for dataset in outputs}
    sent |= {identity.VERIFICATION, *ADMITTED_SOP_CLASSES, *answer.RESULT_CLASSES, PUSH_MODEL}
    sent |= {UID(uid) for uid in (seek.FIND, fetch.MOVE, fetch.GET)}
    asked = {UID(uid) for uid in answer.PATIENT_ROOT | answer.STUDY_ROOT}
    taken = {identity.VERIFICATION, *ADMITTED_SOP_CLASSES, PUSH_MODEL, mpps.MPPS, *asked}
    assert table == {
        uid: (
            uid.name.removesuffix(" SOP Class"),
            "yes" if uid in sent else "no",
            "yes" if uid in taken else "no",
        )
        for uid in sent | taken
    }


def test_defaults_and_limits() -> None:
    config = Config()
    assert f"Listening, port {config.tls.port} by default" in section("8")
    assert f"`associations` ({Peer.model_fields['associations'].default})" in section("7.2")
    for name in (
        "maximum_associations",
        "maximum_pdu",
        "maximum_object_bytes",
        "association_timeout",
        "pdu_timeout",
        "idle_timeout",
    ):
        assert f"`{name}` ({int(getattr(config.receive, name))})" in section("7.2")


def test_how_much_a_peer_may_send() -> None:
    text = " ".join(section("7.2").split())
    assert f"`store`: {messages._LARGEST_DATA_SET / 2**20:.0f} MiB" in text
    assert f"command set: {messages._LARGEST_COMMAND / 2**10:.0f} KiB" in text
    assert f"more than {messages.MOST_WAITING} messages" in text
    assert f"more than {matching._LONGEST_PATTERN} characters" in " ".join(section("5.6").split())


def test_how_an_association_is_rejected() -> None:
    told = [re.search(r"\((\d), (\d), (\d)\)", row[0]) for row in rows("7.2", "A-ASSOCIATE-RJ")]
    assert {tuple(map(int, found.groups())) for found in told if found} == {
        gate.CALLED_AE_NOT_RECOGNISED,
        gate.CALLING_AE_NOT_RECOGNISED,
        gate.LOCAL_LIMIT_EXCEEDED,
    }
    assert f"answered 0x{gate.NOT_AUTHORISED:04X}" in section("7.2")


def test_statuses_that_a_sender_is_told() -> None:
    told = {SUCCESS, CANNOT_UNDERSTAND, DOES_NOT_MATCH_SOP_CLASS, OUT_OF_RESOURCES, SOP_CLASS_NOT_SUPPORTED}
    told |= {gate.NOT_AUTHORISED}
    assert {int(row[0], 16) for row in rows("5.2", "status")} == told


def test_what_an_archive_s_answer_means() -> None:
    """Every status that there is, on the page or not."""
    meaning = {"stored": "stored", "tried again": "retry", "refused": "refused"}
    named: dict[int, str] = {}
    for statuses, outcome in rows("5.4", "status"):
        for first, last in re.findall(r"0x([0-9A-F]{4})(?: to 0x([0-9A-F]{4}))?", statuses):
            named |= dict.fromkeys(range(int(first, 16), int(last or first, 16) + 1), meaning[outcome])
    assert {status: classify(status) for status in range(0x10000)} == {
        status: named.get(status, "refused") for status in range(0x10000)
    }


def test_storage_commitment() -> None:
    text = " ".join(section("5.5").split())
    assert f"`commitment_timeout` ({Config().send.commitment_timeout:.0f} s)" in text
    assert f"stays open for {commit.STAY:.0f} s" in text
    assert f"not held (0x{commit.NOT_HELD:04X})" in text
    assert f"({', '.join(f'0x{reason:04X}' for reason in sorted(commit.PASSING))}, or none)" in text
    for status in (
        *(commit.NO_SUCH_EVENT_TYPE, commit.INVALID_ARGUMENT, commit.NOT_TOLD),
        *(vouch.NO_SUCH_ACTION, vouch.NO_SUCH_INSTANCE),
    ):
        assert f"0x{status:04X}" in text
    assert f"0x{commit.NOT_HELD:04X} no such" in text
    assert f"0x{vouch.CLASS_CONFLICT:04X} class" in text
    assert f"for {vouch.ASKED_FOR / 86400:.0f} days" in text


def test_procedure_steps() -> None:
    text = " ".join(section("5.9").split())
    statuses = (mpps.INVALID_VALUE, mpps.FAILURE, mpps.DUPLICATE, mpps.UNKNOWN, mpps.INVALID_INSTANCE, mpps.MISSING)
    for status in (*statuses, mpps.NO_LONGER_UPDATED):
        assert f"0x{status:04X}" in text
    assert f"for {mpps.KEPT / 86400:.0f} days" in text


def test_query_and_retrieve() -> None:
    told = {int(status, 16) for row in rows("5.6", "status") for status in row[0].split(", ")}
    ours = {answer.NOT_YET_FOUND, answer.NOT_YET_COUNTED, answer.DOES_NOT_MATCH_MODEL, answer.CANNOT_BE_PROCESSED}
    assert ours | {0xA801, 0xB000, 0xA702} == told
    assert f"more than {answer.MOST_SUBOPERATIONS} objects" in section("5.6")
    assert (fetches.ATTEMPTS, "ten times" in section("5.7")) == (10, True)


def test_every_reader_has_its_line_with_its_sign() -> None:
    signs = {1: "as stored", -1: "conjugate"}
    known = {readers.name(reader): signs[reader.SIGN] for reader in readers._READERS}
    table = {}
    for encoding, _, _, sign, evidence in rows("5.3", "reader: encoding"):
        assert re.search("synthetic only|validated|^refused", evidence), encoding
        if sign:
            table[encoding.split("`")[1]] = sign
    assert table == known


def test_only_what_was_read_from_real_files_is_called_validated() -> None:
    validated = {row[0].split("`")[1] for row in rows("5.3", "reader: encoding") if "**validated**" in row[4]}
    assert validated == {"philips", "philips_enhanced"}


def test_what_is_sent(outputs: list[Dataset]) -> None:
    table = {}
    for files, series, sop_class, content in rows("A.A", "file"):
        for file, number in zip(re.findall("`(.*?)`", files), re.findall(r"7\d\d", series), strict=False):
            table[file] = (int(number), sop_class, content.replace("\\", "\\"))
    sent: dict[str, Dataset] = {}
    for name, dataset in names(outputs).items():
        sent.setdefault(name.split("-")[1], dataset)
    assert table.keys() == sent.keys() == set(KINDS)
    for kind, dataset in sent.items():
        number, sop_class, content = table[kind]
        assert dataset.SOPClassUID.name == sop_class, kind
        assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert dataset.SOPInstanceUID.startswith(PYDICOM_ROOT_UID)
        assert dataset.SeriesNumber == (number if kind not in ("enhanced", "parametric") else number + 1), kind
        if dataset.SOPClassUID != MRImageStorage or "arbitrary unit" in content:
            continue
        low, high = (int(dataset.WindowCenter + sign * dataset.WindowWidth / 2) for sign in (-1, 1))
        window = f"{low}…{high:+d}".replace("-", "−") if low else f"0…{high}"
        assert f"stored value = {dataset.RescaleType}" in content
        assert f"Rescale {dataset.RescaleSlope:g}/{dataset.RescaleIntercept:g}" in content
        assert f"window {window}" in content
        assert "`{}`".format("\\".join(dataset.ImageType)) in content
    assert header().SeriesNumber == 7
    assert PYDICOM_ROOT_UID.rstrip(".") in section("A.A")


def test_every_option_of_the_output_is_on_the_page() -> None:
    for option in (*Output.model_fields, *EVERYTHING.maps, *EVERYTHING.objects):
        assert f"`{option}`" in section("A.A") + section("A.B")


def test_no_other_uid_stands_on_the_page() -> None:
    known = {
        *ADMITTED_SOP_CLASSES,
        *ADMITTED_TRANSFER_SYNTAXES,
        *(uid for _, uid, _, _ in rows("1.1", "SOP class")),
        identity.IMPLEMENTATION_CLASS_UID,
        PYDICOM_ROOT_UID.rstrip("."),
    }
    assert set(_UID.findall(PAGE)) <= known
