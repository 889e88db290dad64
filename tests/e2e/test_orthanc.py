"""Orthanc as the archive that we send to, and as a peer that sends to us."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.call import Destination, SendSettings, echo
from dicom_node.send import send
from tests.objects import encode, enhanced_mr_image, mr_image, write
from tests.peers import running_node, running_orthanc, running_storescp

SETTINGS = SendSettings()


@pytest.mark.orthanc
def test_orthanc_stores_finds_and_returns_and_a_second_sending_adds_nothing(
    orthanc_command: Path, tmp_path: Path
) -> None:
    images = [*(mr_image(number) for number in range(5)), enhanced_mr_image()]
    files = write(tmp_path / "out", *images)
    with running_orthanc(orthanc_command, tmp_path / "orthanc") as orthanc:
        echo(orthanc.destination, SETTINGS)
        for _ in range(2):
            deliveries = list(send(files, orthanc.destination, SETTINGS))
            assert [delivery.outcome for delivery in deliveries] == ["stored"] * len(files)
            assert orthanc.count("Instances") == len(files)
            assert orthanc.count("Studies") == 1
        query = {"Level": "Study", "Query": {"StudyInstanceUID": images[0].StudyInstanceUID}}
        assert len(orthanc.post("tools/find", query)) == 1
        for image in images:
            assert encode(dcmread(BytesIO(orthanc.file(image.SOPInstanceUID)))) == encode(image)


@pytest.mark.orthanc
def test_orthanc_sends_to_us(orthanc_command: Path, tmp_path: Path) -> None:
    files = write(tmp_path / "out", mr_image(1), mr_image(2))
    with (
        running_node(tmp_path / "spool") as node,
        running_orthanc(orthanc_command, tmp_path / "orthanc", {"node": node.destination}) as orthanc,
    ):
        list(send(files, orthanc.destination, SETTINGS))
        orthanc.post("modalities/node/echo", {})
        answer = orthanc.post("modalities/node/store", orthanc.get("instances"))
        assert answer["FailedInstancesCount"] == 0
        assert {dcmread(path).InstanceNumber for path in node.spool.images()} == {1, 2}
        assert node.refused == []


@pytest.mark.dcmtk
def test_storescp_that_knows_only_implicit_vr(storescu_command: Path, tmp_path: Path) -> None:
    files = write(tmp_path / "out", mr_image(1), mr_image(2))
    command = storescu_command.parent / "storescp"
    with running_storescp(command, tmp_path / "in", "+xi") as destination:
        assert isinstance(destination, Destination)
        assert [delivery.outcome for delivery in send(files, destination, SETTINGS)] == ["stored", "stored"]
    arrived = [dcmread(path) for path in (tmp_path / "in").iterdir()]
    assert {image.InstanceNumber for image in arrived} == {1, 2}
    assert all(image.file_meta.TransferSyntaxUID.is_implicit_VR for image in arrived)
