"""An authority and the certificates it signs, by openssl, for tests of TLS."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from dicom_node.tls import Files


@dataclass(frozen=True)
class Authority:
    """Lies in `folder`; signs for whoever asks."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, days: int = 2) -> Authority:
        folder.mkdir(parents=True)
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", days),
            *("-subj", f"/CN={folder.name}", "-keyout", folder / "authority.key", "-out", folder / "authority.pem"),
        )
        return cls(folder)

    @property
    def certificate(self) -> Path:
        return self.folder / "authority.pem"

    def sign(self, name: str) -> Files:
        """A certificate for the DNS name `name`; signed anew, to the same files, each time."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = self.folder / f"{name}.cnf"
        extensions.write_text(f"subjectAltName=DNS:{name}\n")
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / "authority.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate),
        )
        return Files(certificate, key, self.certificate)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
