"""Who is who: title, address and certificate must agree."""

from __future__ import annotations

import pytest

from dicom_node.peers import ANYBODY, Peer, Peers, Right, UnknownPeer, names_in

SCANNER = Peer("scanner", "MR1", "10.1.2.0/24", frozenset({Right.STORE}))
ARCHIVE = Peer("archive", "PACS", "10.9.9.9", frozenset({Right.QUERY}), port=104)
SECURE = Peer("secure", "MR2", "10.1.2.7", frozenset({Right.STORE}), certificate="mr2.hospital.example")


@pytest.mark.parametrize("address", ["10.1.2.1", "10.1.2.254", "::ffff:10.1.2.3"])
def test_a_peer_is_told_by_title_and_network(address: str) -> None:
    assert Peers([ARCHIVE, SCANNER]).recognise("MR1", address) == SCANNER


def test_a_name_is_looked_up() -> None:
    local = Peer("local", "MR1", "localhost", frozenset({Right.STORE}))
    assert Peers([local]).recognise("MR1", "127.0.0.1") == local
    nowhere = Peer("nowhere", "MR1", "no-such-host.invalid", frozenset({Right.STORE}))
    with pytest.raises(UnknownPeer, match="another address"):
        Peers([nowhere]).recognise("MR1", "127.0.0.1")


@pytest.mark.parametrize(
    ("title", "address", "certificate", "why"),
    [
        ("MR9", "10.1.2.1", None, "no peer has this AE title"),
        ("mr1", "10.1.2.1", None, "no peer has this AE title"),
        ("MR1", "10.1.3.1", None, "has another address"),
        ("MR1", "2001:db8::1", None, "has another address"),
        ("MR2", "10.1.2.7", None, "another certificate name: none was shown"),
        ("MR2", "10.1.2.7", frozenset({"mr3.hospital.example"}), "it holds mr3.hospital.example"),
        ("MR1", "10.1.2.1", frozenset({"mr1.hospital.example"}), "it holds mr1.hospital.example"),
        ("MR1", "10.1.2.1", frozenset(), "it holds none"),
        ("MR1", "10.1.2.1", frozenset({""}), "another certificate name"),
    ],
)
def test_who_does_not_fit_is_told_why(title: str, address: str, certificate: frozenset[str] | None, why: str) -> None:
    with pytest.raises(UnknownPeer, match=why):
        Peers([SCANNER, ARCHIVE, SECURE]).recognise(title, address, certificate)


def test_a_certificate_is_bound_to_its_peer_whatever_its_case() -> None:
    assert Peers([SECURE]).recognise("MR2", "10.1.2.7", frozenset({"mr2.hospital.example", "x"})) == SECURE


def test_of_several_entries_the_narrowest_holds_and_gives_nothing_of_another() -> None:
    wide = Peer("site", "MR1", "10.0.0.0/8", frozenset({Right.STORE, Right.QUERY}), associations=20)
    narrow = Peer("mr1", "MR1", "10.1.2.3", frozenset({Right.STORE}), sop_classes=frozenset({"1.2"}), associations=1)
    for peers in ([wide, SCANNER, narrow], [narrow, SCANNER, wide]):
        assert Peers(peers).recognise("MR1", "10.1.2.3") == narrow
        assert Peers(peers).recognise("MR1", "10.1.2.4") == SCANNER
        assert Peers(peers).recognise("MR1", "10.7.7.7") == wide


def test_who_reports_where_anybody_may_send_is_no_more_limited_than_anybody() -> None:
    reporting = Peer("reporting", "PACS", "10.9.9.9", frozenset({Right.REPORT}))
    found = Peers([reporting], anybody=ANYBODY).recognise("PACS", "10.9.9.9")
    assert (found.may, found.associations) == ({Right.STORE, Right.REPORT}, ANYBODY.associations)


def test_the_right_to_report_is_added_to_a_peer_s_own() -> None:
    reporting = Peer("reporting", "PACS", "10.9.9.9", frozenset({Right.REPORT}))
    for peers in ([ARCHIVE, reporting], [reporting, ARCHIVE]):
        found = Peers(peers).recognise("PACS", "10.9.9.9")
        assert (found.name, found.may) == ("archive", {Right.QUERY, Right.REPORT})


def test_where_anybody_may_send_nobody_does_so_with_a_certificate_that_is_no_peer_s() -> None:
    peers = Peers([ARCHIVE], anybody=ANYBODY)
    assert peers.recognise("WHOEVER", "192.0.2.1").may == {Right.STORE}
    assert peers.recognise("PACS", "10.9.9.9").may == {Right.STORE, Right.QUERY}
    with pytest.raises(UnknownPeer):
        peers.recognise("WHOEVER", "192.0.2.1", frozenset({"who.example"}))


def test_only_who_listens_can_be_called() -> None:
    peers = Peers([SCANNER, ARCHIVE])
    assert peers.called("PACS") == ARCHIVE
    assert peers.called("MR1") is None
    assert peers.called("NOBODY") is None


def test_names_of_a_certificate() -> None:
    certificate = {
        "subject": ((("countryName", "DE"),), (("commonName", "MR2"),)),
        "subjectAltName": (("DNS", "mr2.Hospital.example"), ("IP Address", "10.1.2.7")),
    }
    assert names_in(certificate) == {"mr2", "mr2.hospital.example"}  # type: ignore[arg-type]
    assert names_in(None) == frozenset()
