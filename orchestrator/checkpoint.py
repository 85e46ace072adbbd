"""Checkpoints: the state of a running trial as bytes that show when they are damaged.

A file is one line of JSON (format version, trial, epoch, checksum) and the payload, which only the
trial itself understands. So the driver, which keeps checkpoints, needs no torch to judge one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import atomic
from orchestrator.envelope import DamagedFileError

FORMAT_VERSION = 2
"""Of the header and of the payload."""

_LONGEST_HEAD = 4096
"""Bytes; what begins with a longer line is no checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trial between two epochs.

    Attributes:
        trial: its identity.
        epoch: the next epoch, counted from 0.
        payload: what `TrialRun` made and takes back.
    """

    trial: str
    epoch: int
    # Tune formats every result that it is given, whether anybody reads it or not.
    payload: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The content of its file."""
        head = {
            "format_version": FORMAT_VERSION,
            "trial": self.trial,
            "epoch": self.epoch,
            "sha256": _checksum(self.trial, self.epoch, self.payload),
        }
        return json.dumps(head).encode() + b"\n" + self.payload

    @classmethod
    def from_bytes(cls, data: bytes, trial: str) -> Checkpoint:
        """Read what `to_bytes` wrote.

        Raises:
            DamagedFileError: it is anything else, of another trial or of another format version.
        """
        line, _, payload = data.partition(b"\n")
        try:
            head = json.loads(line)
            version, owner, epoch = head["format_version"], head["trial"], head["epoch"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DamagedFileError("no checkpoint") from None
        if version != FORMAT_VERSION:
            raise DamagedFileError(f"format_version {version!r}, not {FORMAT_VERSION}")
        if owner != trial:
            raise DamagedFileError(f"it is of trial {owner}")
        if head.get("sha256") != _checksum(owner, epoch, payload):
            raise DamagedFileError("the checksum does not match")
        return cls(trial, epoch, payload)


def storage_file(storage: Path, trial: str) -> Path:
    """Where a folder of checkpoints keeps that of one trial."""
    return storage / f"{trial}.pt"


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of an earlier one.

    Not durably: after a power failure its checksum tells, and the trial begins anew.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    atomic.write_bytes(path, checkpoint.to_bytes(), durable=False)


def read_checkpoint(path: Path, trial: str) -> Checkpoint | None:
    """The checkpoint of a trial; None where there is none.

    Raises:
        DamagedFileError: it cannot be believed, or not be read.
    """
    try:
        return Checkpoint.from_bytes(path.read_bytes(), trial)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedFileError(atomic.reason(error)) from error


def saved_epochs(path: Path) -> int:
    """How many epochs a checkpoint claims to spare, its payload not looked at; 0 without one."""
    try:
        with path.open("rb") as stream:
            epoch = json.loads(stream.readline(_LONGEST_HEAD))["epoch"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return epoch if isinstance(epoch, int) and epoch > 0 else 0


def _checksum(trial: str, epoch: object, payload: bytes) -> str:
    digest = hashlib.sha256(f"{trial}\n{epoch}\n".encode())
    digest.update(payload)
    return digest.hexdigest()
