"""Queries by QIDO-RS: what is asked, what odd answers mean, and that all of a long answer is had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.call import SendSettings
from dicom_node.errors import PeerFailure, Unreachable
from dicom_node.qido import PAGE, _dataset
from dicom_node.seek import _IMAGE_KEYS, UNTOLD, Candidate, Wanted, judge, seek
from dicom_node.web import WebService
from tests.web import Answer, Asked, Served, serving

SETTINGS = SendSettings(connection_timeout=5, response_timeout=5)
STUDY, SERIES = "0020000D", "0020000E"
INSTANCE, ECHO_TIME, KIND, NUMBER = "00080018", "00180081", "00080008", "00200011"


def item(**elements: Any) -> dict[str, Any]:
    """By tag: x0020000D="1.2.3"."""
    vrs = {STUDY: "UI", SERIES: "UI", INSTANCE: "UI", ECHO_TIME: "DS", KIND: "CS", NUMBER: "IS"}
    return {
        tag[1:]: {"vr": vrs[tag[1:]], "Value": value if isinstance(value, list) else [value]}
        for tag, value in elements.items()
    }


def an_image(number: int, echo: float) -> dict[str, Any]:
    return item(x00080018=f"1.2.3.4.{number}", x00180081=echo, x00080008=["ORIGINAL", "PRIMARY"])


class Archive:
    """Pages of at most `most` results by what the path ends with; `warns` where more are left."""

    def __init__(self, most: int = PAGE, warns: bool = False) -> None:
        self.most = most
        self.warns = warns
        self.held: dict[str, list[Any]] = {
            "studies": [item(x0020000D="1.2.3")],
            "series": [item(x0020000E="1.2.3.4", x00200011=7)],
            "instances": [an_image(number, 4.0 if number % 2 else 8.5) for number in range(8)],
        }

    def answer(self, asked: Asked) -> Answer:
        held = self.held[asked.path.rpartition("/")[2]]
        offset, limit = int(asked.query["offset"][0]), int(asked.query["limit"][0])
        page = held[offset : offset + min(limit, self.most)]
        if not page:
            return Answer(204)
        more = self.warns and offset + len(page) < len(held)
        warning = {"Warning": '299 web "The number of results exceeded the maximum"'} if more else {}
        return Answer(200, page, {"Content-Type": "application/dicom+json", **warning})


def sought(wanted: Wanted, answer: Callable[[Asked], Answer]) -> tuple[list[Candidate], Served]:
    with serving(answer) as served:
        return list(seek(wanted, WebService("web", f"{served.url}/dicom-web"), SETTINGS)), served


def test_it_is_found_at_study_series_and_instance_level() -> None:
    [found], served = sought(Wanted(patient="P*", since="20240101", until="20240630"), Archive().answer)
    assert found == Candidate(
        "1.2.3", "1.2.3.4", "", "7", "", 8, "", frozenset(f"1.2.3.4.{number}" for number in range(8))
    )
    study, *_, series, image = served.asked
    assert study.path == "/dicom-web/studies"
    assert {key: study.query[key] for key in ("PatientID", "StudyDate", "ModalitiesInStudy")} == {
        "PatientID": ["P*"],
        "StudyDate": ["20240101-20240630"],
        "ModalitiesInStudy": ["MR"],
    }
    assert "AccessionNumber" in study.query["includefield"]
    assert (series.path, series.query["Modality"]) == ("/dicom-web/studies/1.2.3/series", ["MR"])
    assert image.path == "/dicom-web/studies/1.2.3/series/1.2.3.4/instances"
    assert {"EchoTime", "ScanningSequence", "SOPClassUID"} <= set(image.query["includefield"])
    assert {one.headers["accept"] for one in served.asked} == {"application/dicom+json"}


@pytest.mark.parametrize(("most", "warns"), [(3, True), (PAGE, False)])
def test_a_service_that_cuts_its_answers_is_asked_for_the_rest(most: int, warns: bool) -> None:
    archive = Archive(most, warns)
    archive.held["studies"] = [item(x0020000D=f"1.2.{number}") for number in range(7)]
    found, _ = sought(Wanted(since="20240101"), archive.answer)
    assert [one.study_instance_uid for one in found] == [f"1.2.{number}" for number in range(7)]
    assert {one.images for one in found} == {8}


def test_studies_are_asked_for_to_the_end_though_nobody_says_that_there_are_more() -> None:
    archive = Archive(most=3)
    archive.held["studies"] = [item(x0020000D=f"1.2.{number}") for number in range(7)]
    found, _ = sought(Wanted(since="20240101"), archive.answer)
    assert len(found) == 7


def test_a_service_that_knows_no_offset_is_not_asked_for_ever() -> None:
    archive = Archive()

    def always_the_first(asked: Asked) -> Answer:
        return archive.answer(Asked(asked.method, asked.path, {**asked.query, "offset": ["0"]}, {}, b""))

    [found], served = sought(Wanted(since="20240101"), always_the_first)
    assert found.images == 8
    assert len(served.asked) == 4


@pytest.mark.parametrize(
    "images",
    [
        [item(x00080018=f"1.2.{number}") for number in range(6)],
        [{**an_image(number, 4), ECHO_TIME: {"vr": "DS", "Value": ["four"]}} for number in range(6)],
        [{**an_image(number, 4), ECHO_TIME: {"vr": 7, "Value": {}}} for number in range(6)],
        [{**an_image(number, 4), ECHO_TIME: "4"} for number in range(6)],
        ["nothing"] * 6,
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_odd_answers_are_those_of_an_archive_that_does_not_tell(images: list[Any]) -> None:
    archive = Archive()
    archive.held["instances"] = images
    archive.held["series"].insert(0, item(x0020000E="../../secrets"))
    [found], served = sought(Wanted(since="20240101"), archive.answer)
    assert found.against == UNTOLD
    assert not any("secrets" in one.path for one in served.asked), "what is no UID goes into no path"
    [found], _ = sought(Wanted(study="1.2.3"), archive.answer)
    assert found.against == "", "its study is named"


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (Answer(200, b"<html>"), PeerFailure, "no DICOM JSON"),
        (Answer(200, b"[" * 100_000), PeerFailure, "no DICOM JSON"),
        (Answer(200, {}), PeerFailure, "expected an array"),
        (Answer(400), PeerFailure, "HTTP 400"),
        (Answer(401), Unreachable, "credentials"),
        (Answer(503), Unreachable, "again later"),
        (Answer(302, b"", {"Location": "/elsewhere"}), Unreachable, "HTTP 302"),
        (Answer(200, b"[", short=5), PeerFailure, "broke off"),
    ],
)
def test_what_goes_wrong_is_told(answer: Answer, kind: type[PeerFailure], why: str) -> None:
    with pytest.raises(kind, match=why):
        sought(Wanted(since="20240101"), lambda asked: answer)


def test_answers_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.qido.MOST_ANSWERS", 5)

    def always_others(asked: Asked) -> Answer:
        begin = int(asked.query["offset"][0])
        return Answer(200, [item(x0020000D=f"1.2.{begin + number}") for number in range(2)])

    with pytest.raises(PeerFailure, match="fewer days"):
        sought(Wanted(since="20240101"), always_others)


def test_a_node_that_stops_asks_no_further() -> None:
    archive = Archive()
    with serving(archive.answer) as served, pytest.raises(PeerFailure, match="the node stops"):
        list(seek(Wanted(since="20240101"), WebService("web", served.url), SETTINGS, lambda: len(served.asked) >= 2))
    assert len(served.asked) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["vr", "Value"]), inner, max_size=3),
    max_leaves=5,
)
TAGS = st.sampled_from([STUDY, SERIES, INSTANCE, ECHO_TIME, KIND, NUMBER, "00180020", "00189008", "00080016"])


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(deadline=None, max_examples=60)
@given(st.lists(JSON | st.dictionaries(TAGS, JSON | st.fixed_dictionaries({"vr": JSON, "Value": JSON})), max_size=6))
def test_whatever_an_archive_answers_is_judged_or_left(answers: list[Any]) -> None:
    images = [_dataset(item, dict.fromkeys(_IMAGE_KEYS, "")) for item in answers]
    assert isinstance(judge({"1.2": images})["1.2"], str)
