"""A failure that nobody foresaw tells where it was and quotes nobody."""

import errno
import pickle
import re
import sqlite3

import pytest

from dicom_node.crontab import trigger
from dicom_node.errors import NotConvertible, UnreadableObject
from dicom_node.surprise import place, trace, words
from dicom_node.worker import _portable


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


@pytest.mark.parametrize("error", [ValueError("Doe^Jane"), KeyError("Doe^Jane"), OSError("Doe^Jane")])
def test_the_words_of_a_library_are_withheld_and_its_place_is_told(error: Exception) -> None:
    found = raised(error)
    assert re.fullmatch(rf"{type(error).__name__} at {__name__}:\d+; the log tells the way there", words(found))
    assert "Doe" not in trace(found)
    assert "in raised" in trace(found)


@pytest.mark.parametrize(
    "error",
    [
        NotConvertible("no echo"),
        OSError(errno.ENOSPC, "no room"),
        sqlite3.OperationalError("locked"),
        MemoryError("no memory"),
    ],
)
def test_words_that_are_ours_or_the_machines_are_told(error: Exception) -> None:
    assert words(raised(error)) == f"{type(error).__name__}: {error}"
    assert str(error) in trace(raised(error))


def test_what_led_to_it_is_told_without_its_words() -> None:
    found = trace(raised(UnreadableObject("it is none"), raised(ValueError("Doe^Jane"))))
    assert found.index("ValueError") < found.index("which led to") < found.index("it is none")
    assert "Doe" not in found


def test_the_place_is_the_innermost_that_is_ours() -> None:
    with pytest.raises(ValueError, match="expression") as caught:
        trigger("Doe * * * *")
    assert place(caught.value).startswith("dicom_node.crontab:")


def test_from_another_process_place_and_way_come_along() -> None:
    _, error = pickle.loads(_portable(raised(ValueError("Doe^Jane"))))
    assert words(error).startswith(f"ValueError at {__name__}:")
    assert "in raised" in trace(error)
    assert "Doe" not in trace(error)
    assert not any("Doe" in note for note in error.__notes__)
