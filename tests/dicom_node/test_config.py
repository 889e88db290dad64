"""The configuration: what is documented is what holds, and all faults are told at once."""

import contextlib
import json
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from dicom_node import exchange
from dicom_node.call import SendSettings
from dicom_node.config import Config, config_folder, load, recipe_file
from dicom_node.errors import InvalidConfiguration
from dicom_node.receive import ReceiveSettings
from dicom_node.settings import Send

DOCUMENTED = config_folder() / "node.toml"


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return file


def test_the_documented_file_names_every_key_with_its_default() -> None:
    assert load(DOCUMENTED) == load(None)
    content = tomllib.loads(DOCUMENTED.read_text())
    for table, field in Config.model_fields.items():
        if table not in ("destinations", "web_destinations", "web_sources", "peers", "scanners"):
            assert field.annotation is not None
            assert set(content[table]) == set(field.annotation.model_fields), f"[{table}] of node.toml"


def test_the_documented_destination_is_valid(tmp_path: Path) -> None:
    example = re.sub(r"(?m)^# (?=\[\[|\w+ = )", "", DOCUMENTED.read_text())
    config = load(write(tmp_path, example))
    [destination] = config.destinations
    assert (destination.name, destination.port) == ("pacs", 4242)
    for web in (*config.web_destinations, *config.web_sources):
        assert web.model_fields_set == set(type(web).model_fields)
    assert (len(config.web_destinations), len(config.web_sources)) == (1, 1)
    [peer] = config.peers
    assert (peer.name, peer.address, peer.may) == ("scanner1", "10.1.2.0/24", ("store",))
    assert peer.model_fields_set == set(type(peer).model_fields)
    [scanner] = config.scanners
    assert (scanner.station_name, scanner.phase_sign, scanner.phase_half_turn) == ("MR1", "flip", 4096)
    assert scanner.model_fields_set == set(type(scanner).model_fields)


def test_a_scanner_without_a_name_and_a_sign_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="a scanner has no name"):
        load(write(tmp_path, '[[scanner]]\nphase_sign = "flip"'))
    with pytest.raises(InvalidConfiguration, match=r"scanner\.0\.phase_sign is 'turn'"):
        load(write(tmp_path, '[[scanner]]\nstation_name = "MR1"\nphase_sign = "turn"'))
    with pytest.raises(InvalidConfiguration, match="did you mean phase_sign"):
        load(write(tmp_path, '[[scanner]]\nstation_name = "MR1"\nphase_sing = "flip"'))


def test_an_empty_file_is_valid_and_loopback_only(tmp_path: Path) -> None:
    config = load(write(tmp_path, ""))
    assert config == load(None)
    assert config.receive.host == "127.0.0.1"
    assert config.node.state_folder.is_absolute()


def test_the_network_settings_are_those_of_the_network_rooms() -> None:
    config = load(None)
    assert exchange.receive_settings(config) == ReceiveSettings()
    assert exchange.identity(config) is None
    assert exchange.send_settings(config, None) == SendSettings()


def test_all_faults_are_told_at_once_each_with_key_and_remedy(tmp_path: Path) -> None:
    faulty = """
        [node]
        ae_title = "SEVENTEEN LETTERS"
        [receive]
        prot = 11112
        port = 99999
        [retain]
        [[destination]]
        name = "pacs"
        host = "127.0.0.1"
        ae_title = "PACS"
        [log]
        level = "chatty"
    """
    with pytest.raises(InvalidConfiguration) as caught:
        load(write(tmp_path, faulty))
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    for expected in (
        "node.ae_title is 'SEVENTEEN LETTERS': expected 1 to 16 ASCII characters",
        "receive.prot is no setting; did you mean port?",
        "receive.port is 99999: Input should be less than or equal to 65535",
        "retain is no setting; expected one of node, receive, group",
        "destination.0.port is missing; add it",
        "log.level is 'chatty': Input should be 'debug', 'info', 'warning' or 'error'",
    ):
        assert any(expected in line for line in lines), f"{expected!r} is not among {lines}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[node", "is not TOML"),
        ('[reconstruct]\nrecipe = "nonesuch"', r"recipe 'nonesuch' is neither a file nor one of: .*default"),
        (
            '[[destination]]\nname="a"\nhost="h"\nport=1\nae_title="A"\n' * 2,
            "destination a is there more than once",
        ),
        ("[reconstruct]\ntime_limit = inf", "time_limit"),
        ("[node]\ntick = 0", "tick"),
        ('[output]\nobjects = ["pages"]', r"output\.objects\.0 is 'pages'.*'page'"),
        ('[output]\nmaps = ["t1"]', r"output\.maps\.0 is 't1'"),
        ('[output]\nreference_ranges = "nobody"', "neither a file nor one of: hallgren_sourander_1958"),
        ("[node]\nfrobnicate = 1", "expected one of ae_title, state_folder, tick"),
    ],
)
def test_faults(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        load(write(tmp_path, text))


def test_a_faulty_table_of_ranges_is_refused_before_any_work(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        'name = "x"\nsource = "y"\nages = [0, 100]\nreference_regions = ["csf"]\n[[curve]]\noffset = "40"\n'
    )
    told = f"  line 2: output.reference_ranges: {table} is no table of reference ranges: line 5: curve.0.structures: "
    with pytest.raises(InvalidConfiguration, match=re.escape(told)):
        load(write(tmp_path, f'[output]\nreference_ranges = "{table}"'))


@pytest.mark.parametrize("kind", ["reconstruct]\nrecipe", "output]\nreference_ranges"])
def test_names_that_are_told_are_ours_and_not_those_beside_a_missing_path(tmp_path: Path, kind: str) -> None:
    (tmp_path / "foreign.toml").touch()
    with pytest.raises(InvalidConfiguration, match=r"neither a file nor one of: (?!.*foreign)"):
        load(write(tmp_path, f'[{kind} = "{tmp_path}/absent.toml"'))


@pytest.mark.parametrize(
    "text",
    [
        '[[web_destination]]\nname = "a"\nurl = "https://node:hunter2@pacs/dicom-web"',
        '[[web_source]]\nname = "a"\nurl = "https:/node:hunter2@pacs"\n',
        '[[web_source]]\nname = "a"\nurl = "https://pacs/x?key=hunter2"\nscope = "s"',
        '[[web_source]]\nname = "a"\nurl = "https://pacs"\nuser = "node:hunter2"',
        '[[web_source]]\nname = "a"\nurl = "https://node:hunter2@pacs"\nuser = "node:hunter2"\nsecret_file = 5',
        '[[destination]]\nname = "a"\nhost = "h"\nport = "http://node:hunter2@h"\nae_title = "A"',
        '[notify]\nwebhook = "https://node:hunter2@chat"',
    ],
)
def test_what_may_hold_a_password_is_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"line \d: ") as caught:
        load(write(tmp_path, text))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"absent\.toml cannot be read: No such file"):
        load(tmp_path / "absent.toml")


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None).node.tick = 2.0  # type: ignore[misc]  # that is what is tested


def test_recipes_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert recipe_file("default") == config_folder() / "recipes" / "default.toml"
    mine = tmp_path / "mine.toml"
    mine.touch()
    assert recipe_file(str(mine)) == mine


def test_pauses_grow_to_the_longest_and_stay_there() -> None:
    send = Send(first_pause=5, pause_factor=2, longest_pause=60)
    assert [send.pause(attempts) for attempts in (1, 2, 3, 4, 5, 6, 10_000)] == [5, 10, 20, 40, 60, 60, 60]


def _peer(name: str, *more: str, address: str = "10.0.0.0/8") -> str:
    address = name if any(line.startswith("port") for line in more) else address
    return "\n".join(["[[peer]]", f'name = "{name}"', 'ae_title = "A"', f'address = "{address}"', *more, ""])


def test_peers_of_one_title_that_can_be_told_apart(tmp_path: Path) -> None:
    text = _peer("a", "port = 1") + _peer("b", 'may = ["query"]', address="10.1.0.0/16") + _peer("c")
    assert [peer.name for peer in load(write(tmp_path, text)).peers] == ["a", "b", "c"]
    get = _peer("a", "port = 1", 'may = ["query"]') + '[fetch]\npeer = "a"\nby = "get"'
    assert load(write(tmp_path, get)).fetch.by == "get"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[receive]\ncalling_ae_titles = ["MR1"]', r"calling_ae_titles is no setting any more; .*\[\[peer\]\]"),
        (
            '[[peer]]\nname = "a"\nae_title = "A"\naddress = "10.0.0.0/33"',
            "expected a host name, an IP address or a net",
        ),
        ('[[peer]]\nname = "a"\nae_title = "A"\naddress = "10.1.0.0/16"\nport = 104', "give the peer one address"),
        (
            '[[peer]]\nname = "a"\nae_title = "A"\naddress = "h"\nmay = ["print"]',
            "'store', 'query', 'retrieve', 'commit' or 'mpps'",
        ),
        ('[[peer]]\nname = "a"\nae_title = "A"\naddress = "h"\nsop_classes = ["MR"]', "such as MRImageStorage"),
        (
            '[[peer]]\nname = "a"\nae_title = "A"\naddress = "h"\ncertificate = "h"',
            r"this node has none; fill in \[tls\]",
        ),
        (2 * '[[peer]]\nname = "a"\nae_title = "A"\naddress = "h"\n', "peer a is there more than once"),
        ('[[web_destination]]\nname = "w"\nurl = "ftp://a/b"', "should match pattern"),
        ('[[web_destination]]\nname = "w"\nurl = "https://u:p@a/b"', "should match pattern"),
        ('[[web_destination]]\nname = "w"\nurl = "https://a/b"\nuser = "u"', "user of w has no password"),
        ('[[web_destination]]\nname = "w"\nurl = "http://a/b"\nsecret_file = "s"', "in the clear"),
        ('[[web_source]]\nname = "w"\nurl = "https://a/b"\ntoken_url = "https://t"', "token_url of w needs a client"),
        ('[[web_source]]\nname = "w"\nurl = "https://a/b"\nscope = "x"', "name it as token_url"),
        (
            '[[web_source]]\nname = "w"\nurl = "https://a/b"\nuser = "u"\nsecret_file = "s"\ntoken_url = "http://t/x"',
            "go to t in the clear",
        ),
        ('[[web_source]]\nname = "w"\nurl = "https://a/b"\n[[web_source]]\nname = "w"\nurl = "https://b"', "more than"),
        (
            '[[peer]]\nname = "w"\nae_title = "W"\naddress = "h"\n[[web_source]]\nname = "w"\nurl = "https://b"',
            "peer w is there more than once",
        ),
        ('[tls]\ncertificate = "a.pem"', "TLS needs all of certificate, key and authorities"),
        ("[tls]\nonly = true", "would hear nobody"),
        ('[fetch]\npeer = "a"', r"fetch.peer is 'a': expected a \[\[peer\]\] with a port"),
        ('[fetch]\nschedule = "0 2 * * *"', "schedule needs a peer"),
        ('[fetch]\npeer = "a"\nschedule = "at night"', "is no line of crontab"),
        ('[fetch]\npeer = "a"\nschedule = "0 2 * * 8"', "is no line of crontab: '8' is no weekday"),
        (_peer("a", "port = 1") + _peer("b", "port = 2"), "a and b both listen as A"),
        (_peer("a", address="10.0.0.1") + _peer("b", address="10.0.0.1/32"), "the same ae_title, address and cert"),
        (
            _peer("a", "port = 1", 'may = ["query"]') + '[fetch]\npeer = "a"',
            "a is to move images to us and may not",
        ),
        ('[receive]\nport = 2762\n[tls]\ncertificate = "c"\nkey = "k"\nauthorities = "a"', "are both 2762"),
        ('[notify]\nmail_to = ["a@b"]', "mail needs a sender"),
        ('[notify]\nmail_user = "u"', "go together"),
        (
            '[notify]\nmail_user = "u"\nmail_secret_file = "f"\nmail_security = "none"\nmail_host = "m"',
            "a password would go to m in the clear",
        ),
        ('[notify]\nwebhook = "http://elsewhere.example/"', "would go to elsewhere.example in the clear"),
        ("[retention]\nfree_bytes = 2000000", "free_bytes is 2000000; expected 0 or at least 1342177280"),
    ],
)
def test_who_may_come_is_looked_at_closely_beside_other_faults_too(tmp_path: Path, text: str, message: str) -> None:
    others = '\n[[scanner]]\nstation_name = ""\nphase_sign = "turn"\n[[destination]]\nname = "w w"\nport = "x"\n'
    told = []
    for file in (text, text + others):
        with pytest.raises(InvalidConfiguration, match=message) as caught:
            load(write(tmp_path, file))
        told.append(set(str(caught.value).splitlines()[1:]))
    assert told[0] <= told[1]
    assert len(told[1] - told[0]) == 6


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (_peer("a", "port = 99999") + '[fetch]\npeer = "a"', "port is 99999"),
        (_peer("a", "port = 1", 'may = ["print"]') + '[fetch]\npeer = "a"', "may.0"),
        (_peer("a", "port = 1", 'may = ["query"]') + '[fetch]\npeer = "a"\nby = "gat"', "by is 'gat'"),
        (_peer("a", "certificate = 5") + _peer("b", address="10.0.0.0/8"), "certificate is 5"),
        (
            _peer("a", 'certificate = "a"') + '[tls]\ncertificate = 5\nkey = "k"\nauthorities = "a"',
            "tls.certificate is 5",
        ),
        ('[tls]\ncertificate = "c"\nkey = "k"\nauthorities = "a"\nport = 11112\nonly = "perhaps"', "tls.only is"),
        ('[receive]\nport = "x"\n[tls]\ncertificate = "c"\nkey = "k"\nauthorities = "a"', "receive.port is 'x'"),
        ('[retention]\nfree_bytes = 1\nminimum_free_bytes = "much"', "minimum_free_bytes is 'much'"),
        ('[retention]\nfree_bytes = "little"', "free_bytes is 'little'"),
        ('[notify]\nmail_to = ["a@b.example"]\nmail_from = "nobody"', "mail_from is 'nobody'"),
        ('[[web_source]]\nname = "a"\nurl = "https://[x/"\nsecret_file = "s"', "its host or port cannot be read"),
        ("[[scanner]]\nstation_name = 5", "station_name is 5"),
        ('[fetch]\npeer = 5\nschedule = "0 2 * * *"', "fetch.peer is 5"),
        ("reconstruct = 5", "reconstruct is 5"),
    ],
)
def test_a_setting_that_is_at_fault_is_told_once_and_blamed_on_no_other(
    tmp_path: Path, text: str, setting: str
) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        load(write(tmp_path, text))
    [told] = str(caught.value).splitlines()[1:]
    assert setting in told


def test_what_a_setting_means_is_understood_beside_faults(tmp_path: Path) -> None:
    tls = '[tls]\ncertificate = "c"\nkey = "k"\nauthorities = "a"\nport = 2762.0\nonly = "no"'
    text = f'[receive]\nport = "2762"\nhosts = 1\n{tls}'
    with pytest.raises(InvalidConfiguration, match=r"tls\.port and receive\.port are both 2762"):
        load(write(tmp_path, text))


def test_what_is_no_sop_class_is_told_in_our_words_alone(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in ("MRImage", "1.2.3", "UID", "1.2." + "3" * 80):
            with pytest.raises(InvalidConfiguration, match=r"sop_classes\.0 is .*such as MRImageStorage"):
                load(write(tmp_path, _peer("a", f'sop_classes = ["{value}"]')))


def test_classes_of_a_peer_are_named_by_keyword_or_uid(tmp_path: Path) -> None:
    text = '[[peer]]\nname = "a"\nae_title = "A"\naddress = "h"\nsop_classes = ["MRImageStorage", "1.2.840.10008.1.1"]'
    [peer] = load(write(tmp_path, text)).peers
    assert peer.sop_classes == ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.1")


def test_each_fault_is_told_with_its_line(tmp_path: Path) -> None:
    faulty = """\
# a site's file
[node]
ae_title = "SEVENTEEN LETTERS"

[[peer]]
name = "a"
ae_title = "A"
address = "10.0.0.1"
may = [
  "store",
  "print",
]

[[destination]]
name = "pacs"
host = "127.0.0.1"
ae_title = "PACS"
"""
    with pytest.raises(InvalidConfiguration) as caught:
        load(write(tmp_path, faulty))
    told = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert told == ["line 3", "line 9", "line 14"]


def test_contradictions_are_told_all_at_once_with_their_lines(tmp_path: Path) -> None:
    text = _peer("a", "port = 1") + _peer("a", 'certificate = "a"') + '[fetch]\npeer = "c"\n'
    text += '[reconstruct]\nrecipe = "nonesuch"\n'
    with pytest.raises(InvalidConfiguration) as caught:
        load(write(tmp_path, text))
    told = re.findall(r"line (\d+): (.*)", str(caught.value))
    assert [(text.splitlines()[int(line) - 1], fault.split(";")[0]) for line, fault in told] == [
        ('name = "a"', "peer a is there more than once"),
        ('certificate = "a"', "a has a certificate, but this node has none"),
        ('peer = "c"', "fetch.peer is 'c': expected a [[peer]] with a port or a [[web_source]], one of (none)"),
        ('recipe = "nonesuch"', told[-1][1].split(";")[0]),
    ]


def _keys(field: FieldInfo) -> set[str]:
    """The settings of a table, or of the tables of a list."""
    kind = next((part for part in get_args(field.annotation) if part is not ...), field.annotation)
    return set(kind.model_fields)


def _toml(value: Any) -> str:
    """A value, or a table in one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return str(value)
    return json.dumps(value).replace("\\ud", "?").replace("\x7f", "")


_TABLES = [*(field.alias or name for name, field in Config.model_fields.items()), "nonsense"]
_KEYS = sorted({key for table in Config.model_fields.values() for key in _keys(table)} | {"nonsense"})
_SCALARS = (
    st.integers()
    | st.floats()
    | st.booleans()
    | st.text(max_size=20)
    | st.sampled_from(["~nobody/x", "A" * 5000, "../x", "10.0.0.0/8", "127.0.0.1", "store", "UID", "* * * * *", "/"])
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(_TABLES),
        st.dictionaries(st.sampled_from(_KEYS), _SCALARS | st.lists(_SCALARS, max_size=2), max_size=4)
        | st.lists(st.dictionaries(st.sampled_from(_KEYS), _SCALARS, max_size=5), max_size=2)
        | _SCALARS,
        max_size=3,
    )
)
def test_no_file_does_more_harm_than_to_be_refused(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    text = "".join(f"{table} = {_toml(entries)}\n" for table, entries in content.items())
    assert set(tomllib.loads(text)) == set(content)
    try:
        config = load(write(tmp_path_factory.getbasetemp(), text))
    except InvalidConfiguration as error:
        for fault in str(error).splitlines()[1:]:
            assert re.match(r"  line \d+: ", fault), f"{fault} stands nowhere in\n{text}"
    else:
        assert config.node.state_folder.is_absolute()


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60) | st.sampled_from([b"a = " + b"[" * 10_000, b"a = " + b"1" * 5000, b"\xef\xbb\xbfa = 1"]))
def test_no_bytes_do_more_harm_than_to_be_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    with contextlib.suppress(InvalidConfiguration):
        load(file)
