"""`make docs`: docs/conformance.md, from docs/conformance.in.md and the tables of the code.

A line `<!-- NAME -->` of the template gives way to what is made under that name here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydicom.uid import UID
from pynetdicom.presentation import build_context

from dicom_node import answer, catalogue, fetch, identity, seek, tls
from dicom_node.admission import ADMITTED_SOP_CLASSES, ADMITTED_TRANSFER_SYNTAXES
from dicom_node.commit import PUSH_MODEL
from dicom_node.config import Config
from dicom_node.exchange import UNCOMPRESSED
from dicom_node.mpps import MPPS
from dicom_node.send import classify

ROOT = Path(__file__).parents[1]
TEMPLATE, PAGE = ROOT / "docs" / "conformance.in.md", ROOT / "docs" / "conformance.md"

ROOTS = (*sorted(answer.PATIENT_ROOT), *sorted(answer.STUDY_ROOT))
ASKED = (seek.FIND, fetch.MOVE, fetch.GET)
MEANING = {"stored": "stored", "retry": "tried again", "refused": "refused"}
OF_PEERS = ("node", "receive", "tls", "send", "fetch")
"""Tables of the configuration whose settings a peer may notice."""
UNNOTICED = ("state_folder", "tick", "certificate", "key", "authorities")


def page() -> str:
    """The page as it should be."""
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, made in {
        "product": product(),
        "sop classes": sop_classes(),
        "contents": contents(text),
        "answers": answers(),
        "levels": levels(),
        "settings": settings(),
        "implementation": implementation(),
        "contexts accepted": contexts_accepted(),
        "transfer syntaxes": transfer_syntaxes(),
        "contexts proposed": contexts_proposed(),
        "suites": suites(),
    }.items():
        text = text.replace(f"<!-- {name} -->", made)
    return text


def table(*rows: Sequence[str]) -> str:
    """The first row is the head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"|{'|'.join(row)}|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in lines)


def product() -> str:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return f"QSM node {version}"


def sop_classes() -> str:
    """Each with the roles that the node takes."""
    taken = {identity.VERIFICATION, *ADMITTED_SOP_CLASSES, PUSH_MODEL, MPPS, *ROOTS}
    sent = {identity.VERIFICATION, *ADMITTED_SOP_CLASSES, *answer.RESULT_CLASSES, PUSH_MODEL, *ASKED}
    order = [identity.VERIFICATION, *ADMITTED_SOP_CLASSES, *answer.RESULT_CLASSES, PUSH_MODEL, MPPS, *ROOTS]
    rows = [
        (named(uid), str(uid), "yes" if uid in sent else "no", "yes" if uid in taken else "no")
        for uid in dict.fromkeys(order)
    ]
    return table(("SOP class", "UID", "as SCU", "as SCP"), *rows)


def contents(text: str) -> str:
    return "\n".join(f"- {heading}" for heading in re.findall(r"(?m)^## (.+)$", text))


def answers() -> str:
    """What every status there is means to the sender of a result."""
    ranges: dict[str, list[str]] = {}
    for first, last, outcome in _runs([classify(status) for status in range(0x10000)]):
        words = f"0x{first:04X}" if first == last else f"0x{first:04X} to 0x{last:04X}"
        ranges.setdefault(outcome, []).append(words)
    rows = [(", ".join(ranges[outcome]), MEANING[outcome]) for outcome in ("stored", "retry")]
    refused = ("any other; also a presentation context that the peer rejected", MEANING["refused"])
    return table(("status", "the instance is"), *rows, refused)


def levels() -> str:
    keys = {
        "PATIENT": catalogue.PATIENT,
        "STUDY": catalogue.STUDY,
        "SERIES": catalogue.SERIES,
        "IMAGE": catalogue.IMAGE,
    }
    rows = [(level, ", ".join([*found, *catalogue.COUNTED[level]])) for level, found in keys.items()]
    return table(("level", "attributes"), *rows)


def settings() -> str:
    """Those that a peer may notice, with their defaults, and what config/node.toml says of them."""
    comments = _comments()
    rows = [
        (f"`[{name}] {key}`", f"`{json.dumps(value)}`", comments[name, key])
        for name in OF_PEERS
        for key, value in getattr(Config(), name)
        if key not in UNNOTICED
    ]
    return table(("setting", "default", "meaning"), *rows)


def implementation() -> str:
    config = Config()
    return table(
        ("item", "value"),
        ("Implementation Class UID", identity.IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name", identity.IMPLEMENTATION_VERSION_NAME),
        ("AE title", f"`[node] ae_title`, {config.node.ae_title} by default; used for receiving and sending"),
        ("Port", f"`[receive] port`, {config.receive.port} by default, on {config.receive.host} by default"),
        ("Port for TLS", f"`[tls] port`, {config.tls.port} by default"),
        ("Maximum PDU", f"{config.receive.maximum_pdu} bytes by default"),
    )


def contexts_accepted() -> str:
    verification = build_context(identity.VERIFICATION).transfer_syntax
    return table(
        ("abstract syntax", "transfer syntaxes", "role of the node"),
        (_listed(ADMITTED_SOP_CLASSES), "those listed below", "SCP"),
        (_listed([identity.VERIFICATION]), _listed(verification), "SCP"),
        (_listed([PUSH_MODEL]), _listed(UNCOMPRESSED), "SCP; SCU where role selection asks for it"),
        (_listed([MPPS]), _listed(UNCOMPRESSED), "SCP"),
        (_listed(ROOTS), _listed(UNCOMPRESSED), "SCP"),
        (
            _listed([*ADMITTED_SOP_CLASSES, *answer.RESULT_CLASSES]),
            "as proposed, for what is held in them",
            "SCU, where role selection asks for it (C-GET)",
        ),
    )


def transfer_syntaxes() -> str:
    rows = [(named(uid), str(uid)) for uid in ADMITTED_TRANSFER_SYNTAXES]
    return table(("transfer syntax", "UID"), *rows)


def contexts_proposed() -> str:
    default = build_context(identity.VERIFICATION).transfer_syntax
    return table(
        ("for", "abstract syntax", "transfer syntaxes", "role of the node"),
        ("results", "of each result", _listed(UNCOMPRESSED), "SCU"),
        ("C-MOVE of a peer", "of each object", "as it is held; uncompressed ones also in Implicit VR", "SCU"),
        ("commitment, asked", named(PUSH_MODEL), _listed(default), "SCU"),
        ("commitment, reported", named(PUSH_MODEL), _listed(default), "SCP, by role selection"),
        ("queries of an archive", named(UID(seek.FIND)), _listed(default), "SCU"),
        ("C-MOVE to the node", named(UID(fetch.MOVE)), _listed(default), "SCU"),
        ("C-GET", named(UID(fetch.GET)), _listed(default), "SCU"),
        ("C-GET, what comes", _listed(ADMITTED_SOP_CLASSES), "those of section 7.4", "SCP, by role selection"),
        ("`qsm-node check`", named(identity.VERIFICATION), _listed(default), "SCU"),
    )


def suites() -> str:
    return f"TLS 1.3: all of its own. TLS 1.2: `{tls._TLS_1_2_CIPHERS}`."


def named(uid: UID | str) -> str:
    return UID(uid).name.removesuffix(" SOP Class")


def _listed(uids: Iterable[UID | str]) -> str:
    return ", ".join(dict.fromkeys(named(uid) for uid in uids))


def _runs(values: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """First and last place of each stretch of one value."""
    first = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[first]:
            yield first, place - 1, values[first]
            first = place


def _comments() -> dict[tuple[str, str], str]:
    """What stands beside each setting in config/node.toml."""
    found, name = {}, ""
    for line in (ROOT / "config" / "node.toml").read_text(encoding="utf-8").splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            name = header[1]
        elif setting := re.match(r"(\w+) = .*? +# (.*)", line):
            found[name, setting[1]] = setting[2].replace("|", "\\|")
    return found
