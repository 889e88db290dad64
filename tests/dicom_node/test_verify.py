"""Every kind of harm is found, and nothing is found where there is none."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dicom_node.index import Index
from dicom_node.ledger import Ledger
from dicom_node.outbox import Outbox, Result
from dicom_node.states import State
from dicom_node.verify import as_data, in_words, verify
from tests.dicom_node import test_index
from tests.dicom_node.making import STUDY, a_file, the_job
from tests.dicom_node.test_retention import House


def describe(path: Path, received_at: float, association: str) -> object:
    """As the real one does, with the digest of the file."""
    found = test_index.describe(path, received_at, association)
    return type(found)(**{**vars(found), "digest": hashlib.sha256(path.read_bytes()).hexdigest()})


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr("tests.dicom_node.test_retention.describe", describe)
    house = House(tmp_path)
    house.take(1, 2, 3)
    job = house.job(State.RECONSTRUCTED, 1, 2)
    dicom = tmp_path / "jobs" / str(job) / "result" / "dicom"
    results = [Result(f"9.{n}", a_file(dicom / f"{n}.dcm", f"9.{n}")) for n in (1, 2)]
    Outbox(house.store).register(the_job(house.store, job), results, ["pacs"], house.clock())
    Ledger(house.store, tmp_path / "ledger")()
    return house


def found(house: House) -> list[tuple[str, str]]:
    return [(one.what, one.path.name) for one in verify(house.folder, house.clock()).findings]


def test_a_sound_one_is_found_sound(house: House) -> None:
    verified = verify(house.folder, house.clock())
    assert (verified.images, verified.results, verified.findings) == (3, 2, ())
    assert in_words(verified).startswith("looked at 3 images")
    assert "results to be sent: no finding" in in_words(verified)
    assert "no finding" in in_words(verified)


def test_one_changed_bit_is_found(house: House) -> None:
    [path, *_] = house.spool.images()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert found(house) == [("image changed", path.name)]
    assert hashlib.sha256(bytes(content)).hexdigest() in in_words(verify(house.folder, house.clock()))


def test_the_digest_of_intake_outlives_an_update_of_the_software(house: House) -> None:
    [path, *_] = house.spool.images()
    path.write_bytes(path.read_bytes().replace(b"#", b" #"))
    house.store.database.execute("UPDATE instances SET software = 'older'")
    Index(house.store, house.spool, describe).reconcile()  # type: ignore[arg-type]  # it gives an Instance
    assert found(house) == [("image changed", path.name)]
    assert [objection.path for objection in house.store.objections()] == [str(path)]
    changed = next(one for one in house.store.instances(STUDY) if one.path == path)
    assert changed.digest != hashlib.sha256(path.read_bytes()).hexdigest(), "nobody is told that we hold it"


def test_a_missing_file_a_stranger_and_a_leftover_are_found(house: House) -> None:
    lost, *_ = house.spool.images()
    lost.unlink()
    stranger = lost.with_name("ab" * 16 + ".dcm")
    stranger.write_bytes(b"x")
    os.utime(stranger, (house.clock() - 100, house.clock() - 100))
    leftover = house.spool.receiving / "1.part"
    leftover.touch()
    os.utime(leftover, (house.clock() - 1e5, house.clock() - 1e5))
    (house.folder / "jobs" / "77").mkdir()
    (house.folder / "ledger" / "78.json").touch()
    assert found(house) == [
        ("image missing", lost.name),
        ("image not indexed", stranger.name),
        ("left over", "1.part"),
        ("folder of no job", "77"),
        ("page of no job", "78.json"),
    ]


def test_what_is_on_its_way_is_no_finding(house: House) -> None:
    new = next(house.spool.images()).with_name("cd" * 16 + ".dcm")
    new.write_bytes(b"x")
    os.utime(new, (house.clock() - 5, house.clock() - 5))
    (house.spool.receiving / "2.part").touch()
    os.utime(house.spool.receiving / "2.part", (house.clock(), house.clock()))
    assert found(house) == []


@pytest.mark.parametrize("harm", ["gone", "cut off", "another"])
def test_a_result_that_is_still_to_be_sent_must_be_there_and_itself(house: House, harm: str) -> None:
    path = house.folder / "jobs" / "1" / "result" / "dicom" / "2.dcm"
    if harm == "gone":
        path.unlink()
    elif harm == "cut off":
        path.write_bytes(path.read_bytes()[:100])
    else:
        a_file(path, "9.3")
    assert found(house) == [("result missing", "2.dcm")]
    house.store.advance(1, State.SENDING, State.SENT, house.clock())
    assert found(house) == [], "what is delivered may go"


def test_a_damaged_database_is_found(house: House) -> None:
    house.store.database.execute("PRAGMA foreign_keys = OFF")
    house.store.database.execute("UPDATE deliveries SET job = 99 WHERE sop_instance_uid = '9.1'")
    assert found(house)[0] == ("database damaged", "node.db")


def test_the_same_for_machines(house: House) -> None:
    next(house.spool.images()).unlink()
    data = as_data(verify(house.folder, house.clock()))
    assert (data["images"], data["findings"][0]["what"]) == (2, "image missing")
