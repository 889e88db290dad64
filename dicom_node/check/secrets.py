"""The files that hold passwords and tokens: whether the node can read them, and nobody else."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from dicom_node.check.finding import Finding
from dicom_node.config import Config


def secrets(config: Config) -> Iterator[Finding]:
    """Of those alone that are used."""
    notify = config.notify
    files = [(service.name, service.secret_file) for service in (*config.web_destinations, *config.web_sources)]
    files += [("mail", notify.mail_secret_file)] if notify.mail_to else []
    files += [("webhook", notify.webhook_secret_file)] if notify.webhook else []
    for whose, file in files:
        if file:
            yield _secret(f"secret of {whose}", Path(file).expanduser())


def _secret(what: str, file: Path) -> Finding:
    remedy = f"write it into {file}, readable by the node's user only"
    try:
        content = file.read_text(encoding="utf-8")
        mode = file.stat().st_mode
    except UnicodeDecodeError:
        return Finding("FAILURE", what, f"{file} is not UTF-8", remedy)
    except OSError as error:
        return Finding("FAILURE", what, f"{file} cannot be read: {error.strerror}", remedy)
    if not content.strip():
        return Finding("FAILURE", what, f"{file} is empty", remedy)
    if mode & stat.S_IRWXO:
        return Finding("warning", what, f"{file} can be read by everybody", f"chmod 0600 {file}")
    return Finding("good", what, f"{file} can be read")
