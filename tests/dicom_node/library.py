"""A node that answers queries and retrieves, and a peer that retrieves from it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SegmentationStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.answer import Answerer
from dicom_node.call import Destination, SendSettings
from dicom_node.catalogue import Catalogue
from dicom_node.checkpoint import install_checkpoint
from dicom_node.convert import describe
from dicom_node.index import Index
from dicom_node.peers import Peer, Peers, Right
from dicom_node.receive import Receiver, ReceiveSettings
from dicom_node.send import send
from dicom_node.spool import Spool
from dicom_node.states import State
from dicom_node.store import Job, Store
from dicom_node.suboperations import Handed
from dicom_node.tls import Identity
from tests.dicom_node.making import the_job
from tests.objects import STUDY, mr_image, write
from tests.peers import wait_until

ALL = frozenset({Right.STORE, Right.QUERY, Right.RETRIEVE})
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))


class Library:
    """A node that holds three images of a study, and a result that a job made of them."""

    def __init__(self, folder: Path, *peers: Peer, tls: Identity | None = None) -> None:
        self.spool = Spool(folder)
        self.store = Store(folder / "node.db")
        self.index = Index(self.store, self.spool, describe)
        self.jobs = folder / "jobs"
        self.catalogue = Catalogue(self.store, self.jobs)
        known = Peers([Peer("workstation", "WORKSTATION", "127.0.0.1", ALL), *peers])
        self.handed: list[Handed] = []
        self.answerer = Answerer(self.catalogue, known, SendSettings(tls=tls), self._caller, self.handed.append)
        self.receiver = Receiver(
            ReceiveSettings(port=0, drain_timeout=1.0),
            self.spool,
            self.index.take,
            self.index.object_to,
            peers=known,
            services=[self.answerer.service()],
        )

    def _caller(self, association: Association) -> Peer:
        return self.receiver.peer(association)

    @property
    def address(self) -> list[str]:
        return ["-aet", "WORKSTATION", "-aec", "QSMNODE", "127.0.0.1", str(self.receiver.port)]

    def take(self, files: Sequence[Path]) -> None:
        target = Destination("node", "127.0.0.1", self.receiver.port, "QSMNODE")
        assert {delivery.status for delivery in send(files, target, SendSettings("WORKSTATION"))} == {0}
        wait_until(lambda: not self.index.pending, "everything is indexed")
        self.catalogue()

    def sent(self, number: int) -> Job:
        for source, target in itertools.pairwise([State.RECONSTRUCTED, State.SENDING, State.SENT]):
            self.store.advance(number, source, target, 2.0)
        return the_job(self.store, number)

    def make_a_result(self, number: int = 1) -> Dataset:
        result = mr_image(100 + number)
        result.SOPClassUID, result.Modality = SegmentationStorage, "SEG"
        result.SeriesInstanceUID = f"{result.SeriesInstanceUID[:-4]}.7"
        made(self, number, result)
        self.catalogue()
        return result


def made(library: Library, number: int, *results: Dataset) -> int:
    """A job that has just made these."""
    job = library.store.open_job(f"g{number}", 1, STUDY, ["1.2"], 1.0).id
    for source, target in itertools.pairwise([State.WAITING, State.READY, State.RECONSTRUCTING]):
        library.store.advance(job, source, target, 1.0)
    write(library.jobs / str(job) / "result" / "dicom", *results)
    library.store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 2.0)
    return job


def get(
    library: Library,
    *,
    level: str = "STUDY",
    model: str = GET,
    syntax: str = ExplicitVRLittleEndian,
    cancel_after: int | None = None,
    answers: Mapping[str, int] = MappingProxyType({}),
    **keys: str,
) -> tuple[list[Dataset], Dataset, Dataset | None]:
    """What came, the last response, and its identifier.  answers: the status for an instance, else success."""
    got: list[Dataset] = []

    def store(event: evt.Event) -> int:
        image = event.dataset
        image.file_meta = event.file_meta
        got.append(image)
        if len(got) == cancel_after:
            event.assoc.send_c_cancel(1, query_model=model)
        return answers.get(str(image.SOPInstanceUID), 0x0000)

    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    association = AE("WORKSTATION").associate(
        "127.0.0.1",
        library.receiver.port,
        contexts=[build_context(model), build_context(MRImageStorage, syntax)],
        ae_title="QSMNODE",
        ext_neg=[build_role(MRImageStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_CONN_OPEN, install_checkpoint)],
    )
    assert association.is_established
    *_, (last, identifier) = association.send_c_get(query, model)
    association.release()
    return got, last, identifier
