"""No patient leaves by the log."""

import json
import logging
import socket
import threading
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import structlog
from pydicom.dataset import Dataset

from dicom_node import log
from dicom_node.call import Destination, SendSettings, echo
from dicom_node.errors import Unreachable
from dicom_node.seek import Wanted, seek
from dicom_node.web import WebService
from tests.web import Answer, serving


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    with warnings.catch_warnings():
        yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def patient() -> Dataset:
    dataset = Dataset()
    dataset.PatientName = "Doe^Jane"
    return dataset


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_key_and_no_dataset_tells_who_was_scanned(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(style, "debug")  # type: ignore[arg-type]  # one of the two literals
    told = structlog.get_logger("test")
    told.info("stored", PatientName="Doe^Jane", patient_id="Doe^Jane", job=3)
    told.info("stored", AccessionNumber="Doe^Jane", header=patient(), pixel_array="Doe^Jane")
    told.info("stored", OperatorsName="Doe^Jane", PersonName="Doe^Jane", name="Doe^Jane", birth_date="Doe^Jane")
    written = capsys.readouterr().err
    assert "Doe" not in written
    assert written.count("stored") == 3
    assert written.count(log.WITHHELD) == 9


@pytest.mark.parametrize("style", ["json", "console"])
def test_tracebacks_carry_no_local_variables(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(style)  # type: ignore[arg-type]  # one of the two literals
    try:
        local = patient()
        local.Nonesuch  # noqa: B018 - it is read to fail
    except AttributeError:
        structlog.get_logger("test").exception("failed")
        logging.getLogger("another.library").exception("failed")
    written = capsys.readouterr().err
    assert "Nonesuch" in written
    assert "Doe" not in written


def test_json_lines_are_json_with_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    structlog.get_logger("test").info("listening", port=11112)
    logging.getLogger("another.library").warning("beware of %s", "this")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["port"], ours["level"]) == ("listening", 11112, "info")
    assert theirs["event"] == "beware of this"
    assert ours["timestamp"].endswith("Z")


def test_what_pydicom_s_network_tells_names_the_peer_and_quotes_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Each association is a thread, and so is its reader."""

    class Reader(threading.Thread):
        value = "Doe^Jane is no number"
        assoc = SimpleNamespace(remote={"ae_title": "MR1", "address": "10.1.2.3", "port": 1})

        def run(self) -> None:
            logging.getLogger("pynetdicom.dul").error("Unknown PDU type received '0x99'")
            try:
                raise ValueError(self.value)
            except ValueError as error:
                logging.getLogger("pynetdicom.dul").exception(error)
            logging.getLogger("pynetdicom.association").error("Network timeout reached")

    log.configure("json")
    reader = Reader()
    reader.remote = reader.assoc.remote  # type: ignore[attr-defined]  # as an association has
    reader.start()
    reader.join()
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["ae_title"], line["host"]) for line in lines] == [("MR1", "10.1.2.3")] * 3
    assert lines[0]["event"] == "Unknown PDU type received '0x99'"
    assert lines[2]["event"] == "Network timeout reached"
    assert "Doe" not in written


def test_a_destination_that_is_away_is_told_of_by_us_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason that pynetdicom tells to its log alone."""
    log.configure("json")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable, match="took no TCP connection: Connection refused; is it running"):
        echo(Destination("pacs", "127.0.0.1", port, "PACS"), SendSettings())
    assert capsys.readouterr().err == ""


def test_values_that_pydicom_warns_of_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console")
    dataset = Dataset()
    dataset.PatientBirthDate = "Doe, long before"
    assert "Doe" not in capsys.readouterr().err


def test_a_query_by_web_is_in_no_log_however_talkative(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "debug")
    with serving(lambda asked: Answer(200, [])) as archive:
        assert list(seek(Wanted(patient="Doe123"), WebService("web", archive.url), SendSettings())) == []
    assert "Doe123" in str(archive.asked)
    assert "Doe123" not in capsys.readouterr().err
