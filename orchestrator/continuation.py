"""Continuation: whether a run directory may be gone on with.

The plan, the stored specification and the environment each say what a run directory was made
from, so that one of them may be damaged: it is named, the others decide, and it is made again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.clips import Clip
from orchestrator import atomic
from orchestrator.document import differences, digest
from orchestrator.errors import DamagedPlanError, RunDirectoryError, SpecificationError
from orchestrator.experiment import Experiment
from orchestrator.provenance import runs
from orchestrator.run_directory import RunDirectory
from orchestrator.sweep import Sweep
from orchestrator.trials import Plan
from orchestrator.yaml_source import dump, load

_log = logging.getLogger(__name__)

_SEAL = "# sha256 of what follows: "


def write_specification(run_dir: Path, document: Mapping[str, Any]) -> None:
    """Write `spec.yaml`, its first line a comment that tells damage from another specification.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    text = dump(document)
    atomic.write_text(run_dir / "spec.yaml", f"{_SEAL}{_hash(text.encode())}\n{text}")


def refuse_other(experiment: Experiment, directory: RunDirectory, extend: bool) -> None:
    """Raise RunDirectoryError unless the run directory is new or of the same specification."""
    try:
        stored = directory.read_plan()
        fault = "missing"
    except DamagedPlanError:
        stored, fault = None, "damaged"
    if stored is None:
        if fault == "damaged" or directory.has_results():
            _refuse_unknown(experiment, directory, fault)
        _refuse_foreign(directory)
        return
    lines = _differences(experiment, directory.path, stored)
    missing = {t.id for t in stored.trials} - {t.id for t in experiment.plan.trials}
    same_data = [(c.path, c.label) for c in stored.clips] == [
        (c.path, c.label) for c in experiment.plan.clips
    ] and not any(line.startswith("data") for line in lines)
    if not lines and not missing:
        return
    if extend and same_data and not missing and not _other_folds(experiment, lines):
        return
    if missing:
        flag = "--extend: " if extend else ""
        lines.append(f"{flag}{len(missing)} trials of the run directory are not in the new plan")
    raise _other(directory, lines)


def left_out_before(experiment: Experiment, stored: Plan) -> list[tuple[Clip, str]]:
    """The clips that the plan of a run directory has left out, each with its problem."""
    problems = {c.path: c.problem for c in stored.clips if c.problem}
    return [(c, problems[c.path]) for c in experiment.dataset.clips if c.path in problems]


def refuse_within_data(sweep: Sweep, run_dir: Path) -> None:
    """Raise RunDirectoryError where every file of the run directory would be taken for a clip."""
    root = sweep.root
    if sweep.settings.data.dataset != "folder" or root is None:
        return
    if run_dir.resolve().is_relative_to(root.resolve()):
        raise RunDirectoryError(
            f"{run_dir}: found in data.root, where every folder is a class; allowed --out elsewhere"
        )


def _refuse_foreign(directory: RunDirectory) -> None:
    """A sweep would write over a user's files, and remove those that are called like its own."""
    if names := directory.foreign():
        raise RunDirectoryError(
            f"{directory.path}: found {', '.join(names)}, but no run; allowed a new or empty folder"
        )


def _refuse_unknown(experiment: Experiment, directory: RunDirectory, fault: str) -> None:
    """Without a plan the run directory's specification and environment have to say all."""
    path = directory.plan_file
    before = _stored_document(directory.path)
    data = {run.get("data_fingerprint") for run in runs(directory.path)}
    known = before is not None and data
    lines = differences(before or {}, experiment.document) if known else []
    if known and experiment.dataset.fingerprint() not in data:
        lines.append(_OTHER_CLIPS)
    if lines:
        raise _other(directory, lines)
    if not known and directory.has_results():
        raise RunDirectoryError(
            f"{path}: {fault}, and so is spec.yaml or environment.json: what the run directory"
            " was made from is not known; allowed another --out"
        )
    _log.warning("%s: %s, made again", path, fault)


_OTHER_CLIPS = "data: the clips are not those that the run directory was made from"


def _other(directory: RunDirectory, lines: list[str]) -> RunDirectoryError:
    head = f"{directory.path}: made from another specification; allowed the same, or another --out"
    return RunDirectoryError(head, *(f"  {line}" for line in lines))


def _other_folds(experiment: Experiment, lines: list[str]) -> bool:
    """Whether folds of one number may hold other clips than before, where they are made here."""
    made = experiment.sweep.settings.folds.k is not None
    paths = (*(f"folds.{key}:" for key in ("k", "stratify", "group", "seed")), "spec.yaml")
    return made and any(line.startswith(paths) for line in lines)


def _differences(experiment: Experiment, run_dir: Path, stored: Plan) -> list[str]:
    before = _stored_document(run_dir)
    if before is not None:
        lines = differences(before, experiment.document)
    else:
        same = stored.specification == digest(experiment.document)
        lines = [] if same else ["spec.yaml cannot be read: what differs is not known"]
    old = {run.get("data_fingerprint") for run in runs(run_dir)} | {stored.data}
    if experiment.dataset.fingerprint() not in old:
        paths = {c.path for c in stored.clips} ^ {c.path for c in experiment.plan.clips}
        names = f": {', '.join(sorted(paths)[:3])}" if paths else ""
        lines.append(f"{_OTHER_CLIPS}{names}")
    return lines


def _stored_document(run_dir: Path) -> dict[str, Any] | None:
    """What `spec.yaml` says; None where it is missing, or damaged, which a warning says."""
    path = run_dir / "spec.yaml"
    try:
        content = path.read_bytes()
        first, _, rest = content.partition(b"\n")
        seal = _SEAL.encode()
        if first.startswith(seal) and first.removeprefix(seal).decode() != _hash(rest):
            raise ValueError("the checksum does not match")
        return load(content.decode(), str(path)).data
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot read: {atomic.reason(error)}") from error
    except (ValueError, SpecificationError) as error:
        reason = "no specification" if isinstance(error, SpecificationError) else error
        _log.warning("%s: damaged, made again: %s", path, reason)
        return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
