"""From the words of the configuration to those of the network."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path

from demo.archive import Archive
from dicom_node import exchange
from dicom_node.call import SendSettings
from dicom_node.config import Config
from dicom_node.fetches import Fetches
from dicom_node.peers import Right
from dicom_node.send import send
from dicom_node.store import Store
from dicom_node.web import WebService
from tests.e2e.phantom import simple_head
from tests.simulation.siemens import write_siemens

DESTINATION = {"name": "pacs", "host": "10.0.0.1", "port": 104, "ae_title": "PACS"}
PEER = {"name": "pacs", "ae_title": "PACS", "address": "10.0.0.1", "may": ["query"]}


def test_a_destination_that_is_asked_for_commitment_may_answer_and_nothing_else() -> None:
    asked = Config.model_validate({"destination": [{**DESTINATION, "commitment": True}], "peer": [PEER]})
    assert exchange.peers(asked).recognise("PACS", "10.0.0.1").may == {Right.QUERY, Right.REPORT}
    assert exchange.committing(asked) == {"pacs": "PACS"}
    never = Config.model_validate({"destination": [DESTINATION], "peer": [PEER]})
    assert exchange.peers(never).recognise("PACS", "10.0.0.1").may == {Right.QUERY}


def test_without_peers_anybody_may_store_and_nothing_else() -> None:
    assert exchange.peers(Config()).recognise("WHOEVER", "192.0.2.1").may == {Right.STORE}
    assert not exchange.is_queried(Config())
    assert exchange.is_queried(Config.model_validate({"peer": [PEER]}))


def test_looking_by_schedule_writes_down_what_is_new_and_recent(tmp_path: Path) -> None:
    files = write_siemens(simple_head(1, shape=(8, 8, 4)), tmp_path / "study")
    with Archive(tmp_path / "archive") as archive:
        list(send(files, exchange.Destination("archive", archive.host, archive.port, archive.ae_title), SendSettings()))
        peer = {"name": "archive", "ae_title": archive.ae_title, "address": archive.host, "port": archive.port}
        config = Config.model_validate({"peer": [peer], "fetch": {"peer": "archive"}})
        fetches = Fetches(Store(tmp_path / "node.db"))
        asked: list[tuple[str, str]] = []
        asks = lambda to: lambda level, keys: asked.append((to.name, level))  # noqa: E731 - it names itself
        exchange.look(config, fetches, SendSettings(), 1.0, date(1970, 1, 1), asks=asks)
        assert Counter(asked) == {("archive", "STUDY"): 1, ("archive", "SERIES"): 1, ("archive", "IMAGE"): 2}
        assert {fetch.state for fetch in fetches.listed()} == {"found"}
        none = Fetches(Store(tmp_path / "other.db"))
        exchange.look(config, none, SendSettings(), 1.0, date.today())
        assert none.listed() == []


def test_what_may_be_fetched_from_and_who_we_are_there() -> None:
    web = {
        "name": "web",
        "url": "https://a/b",
        "user": "node",
        "secret_file": "s",
        "token_url": "https://t",
        "scope": "x",
    }
    config = Config.model_validate(
        {"peer": [{**PEER, "port": 104}, {**PEER, "name": "mr", "ae_title": "MR"}], "web_source": [web]}
    )
    assert exchange.sources(config) == {
        "pacs": exchange.Destination("pacs", "10.0.0.1", 104, "PACS"),
        "web": WebService("web", "https://a/b", "node", "s", "https://t", "x"),
    }
