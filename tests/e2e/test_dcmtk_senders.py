"""dcmtk sends to us: echoscu, storescu in every syntax it has, dcmsend."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.objects import enhanced_mr_image, mr_image, write
from tests.peers import Node, running_node, wait_until

pytestmark = pytest.mark.dcmtk
Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "spool") as running:
        yield running


@pytest.fixture
def dcmtk(storescu_command: Path) -> Dcmtk:
    """Run one of dcmtk's commands to its end."""

    def run(command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        line = [str(storescu_command.parent / command), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60)

    return run


def _address(node: Node) -> list[str]:
    return ["-aet", "SCANNER", "-aec", "QSMNODE", "127.0.0.1", str(node.receiver.port)]


def test_echoscu(node: Node, dcmtk: Dcmtk) -> None:
    answer = dcmtk("echoscu", *_address(node))
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("convert", "propose", "syntax"),
    [
        ("+te", "-xe", ExplicitVRLittleEndian),
        ("+ti", "-xi", ImplicitVRLittleEndian),
        ("+tb", "-xb", ExplicitVRBigEndian),
        ("+td", "-xd", DeflatedExplicitVRLittleEndian),
    ],
)
def test_storescu_in_every_plain_syntax(
    node: Node, dcmtk: Dcmtk, tmp_path: Path, convert: str, propose: str, syntax: str
) -> None:
    images = [*(mr_image(number, rows=32, columns=24) for number in range(4)), enhanced_mr_image()]
    files = write(tmp_path / "scan", *images)
    for file in files:
        assert dcmtk("dcmconv", convert, file, file).returncode == 0
    answer = dcmtk("storescu", propose, "-R", *_address(node), *files)
    assert answer.returncode == 0, answer.stderr
    assert len(node.stored) == len(images)
    for stored, image in zip(node.stored, images, strict=True):
        arrived = dcmread(stored.path)
        assert arrived.file_meta.TransferSyntaxUID == syntax
        assert arrived.SOPInstanceUID == image.SOPInstanceUID
        assert np.array_equal(arrived.pixel_array, _pixels(image))
    assert node.refused == []


def _pixels(image):  # type: ignore[no-untyped-def]  # numpy array of whatever shape the image has
    shape = (image.Rows, image.Columns) if "NumberOfFrames" not in image else (-1, image.Rows, image.Columns)
    return np.frombuffer(image.PixelData, "<u2").reshape(shape)


@pytest.mark.parametrize(
    ("tool", "option", "syntax"),
    [
        (["dcmcrle"], "-xr", RLELossless),
        (["dcmcjpeg", "+e1"], "-xs", JPEGLosslessSV1),
        (["dcmcjpls", "+el"], "-xt", JPEGLSLossless),
    ],
)
def test_storescu_in_every_lossless_syntax(
    node: Node, dcmtk: Dcmtk, tmp_path: Path, tool: list[str], option: str, syntax: str
) -> None:
    image = mr_image(rows=32, columns=24)
    (file,) = write(tmp_path / "scan", image)
    compressed = tmp_path / "compressed.dcm"
    squeezed = dcmtk(*tool, file, compressed)
    assert squeezed.returncode == 0, squeezed.stderr
    answer = dcmtk("storescu", option, "-R", *_address(node), compressed)
    assert answer.returncode == 0, answer.stderr
    arrived = dcmread(node.stored[0].path)
    assert arrived.file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(arrived.pixel_array, _pixels(image))


def test_dcmsend_and_again(node: Node, dcmtk: Dcmtk, tmp_path: Path) -> None:
    files = write(tmp_path / "scan", *(mr_image(number) for number in range(6)))
    for _ in range(2):
        answer = dcmtk("dcmsend", "-v", *_address(node), *files)
        assert answer.returncode == 0, answer.stderr
    assert len(node.stored) == 12
    assert len(list(node.spool.images())) == 6
    assert [stored.repeated for stored in node.stored] == [False] * 6 + [True] * 6
    wait_until(lambda: len(node.released) == 2, "both associations ended")


def test_an_aborting_storescu_leaves_what_it_was_acknowledged(node: Node, dcmtk: Dcmtk, tmp_path: Path) -> None:
    files = write(tmp_path / "scan", mr_image(1), mr_image(2))
    dcmtk("storescu", "--abort", "-R", *_address(node), *files)
    wait_until(lambda: node.released, "the abort was seen")
    assert len(list(node.spool.images())) == 2
    assert node.receiver.open_associations == frozenset()


def test_storescu_hears_a_refusal_and_goes_on(node: Node, dcmtk: Dcmtk, tmp_path: Path) -> None:
    broken = mr_image(2)
    broken.PixelData = broken.PixelData[:-2]
    files = write(tmp_path / "scan", mr_image(1), broken, mr_image(3))
    answer = dcmtk("storescu", "-v", "-nh", "-R", *_address(node), *files)
    assert "Error: CannotUnderstand" in answer.stderr
    assert [dcmread(stored.path).InstanceNumber for stored in node.stored] == [1, 3]
    (refused,) = node.refused
    assert "truncated" in refused.reason


def test_two_storescu_at_once(node: Node, storescu_command: Path, tmp_path: Path) -> None:
    files = write(tmp_path / "scan", *(mr_image(number) for number in range(40)))
    senders = [
        subprocess.Popen([str(storescu_command), "-R", *_address(node), *map(str, part)], stderr=subprocess.DEVNULL)
        for part in (files[:25], files[15:])
    ]
    assert [sender.wait(60) for sender in senders] == [0, 0]
    assert len(list(node.spool.images())) == 40
    assert len({stored.association for stored in node.stored}) == 2
    assert node.refused == []
