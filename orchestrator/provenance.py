"""Provenance: what a run was made with, for `environment.json`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator import atomic

_log = logging.getLogger(__name__)

NAME = "environment.json"

_NONE = (OSError,)
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)

PACKAGES = (
    *("foldgrid", "torch", "torchaudio", "torchvision", "ray", "numpy", "scikit-learn"),
    *("librosa", "soundfile", "soxr", "pydantic"),
)
"""Distributions whose version can change results."""

VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR"),
    *("MKL_ENABLE_INSTRUCTIONS", "NVIDIA_TF32_OVERRIDE"),
)
"""Environment variables that can change results."""

INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""Sets of processor instructions that PyTorch's kernels are chosen by."""


@dataclass(frozen=True)
class Environment:
    """One start of a sweep.

    Attributes:
        started: UTC, ISO 8601.
        python: its version.
        packages: version of what can change results; a missing one is left out.
        installed: version of every distribution.
        platform: operating system and architecture.
        processor: its name.
        instructions: of `INSTRUCTIONS`, those that it has, where the system tells.
        cores: that this process may use.
        gpus: device files of NVIDIA GPUs, a count.
        git_commit: of the specification's folder; empty outside a repository; `-dirty` appended
            where it has uncommitted changes.
        data_fingerprint: of every clip's path, label, fold, source and content.
        specification: absolute path that was run.
        executor: `ray` or `serial`.
        command: the words of the command line.
        variables: of `VARIABLES`, those that are set.
    """

    started: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    installed: dict[str, str] = field(default_factory=dict)
    platform: str = ""
    processor: str = ""
    instructions: tuple[str, ...] = ()
    cores: int = 0
    gpus: int = 0
    git_commit: str = ""
    data_fingerprint: str = ""
    specification: str = ""
    executor: str = ""
    command: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The environment as JSON values."""
        return asdict(self)


def capture(specification: Path, fingerprint: str, executor: str) -> Environment:
    """The environment of this process."""
    return Environment(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        python=platform.python_version(),
        packages=versions(),
        installed=_installed(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        instructions=_instructions(),
        cores=usable_cores(),
        gpus=visible_gpus(),
        git_commit=_git_commit(specification.parent),
        data_fingerprint=fingerprint,
        specification=str(specification),
        executor=executor,
        command=tuple(sys.argv),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
    )


def runs(run_dir: Path) -> list[dict[str, Any]]:
    """What `environment.json` keeps of each start; empty where there is none to read.

    A damaged one is named in a warning.
    """
    try:
        return _stored(run_dir)
    except _NONE:
        return []
    except _DAMAGED:
        path = run_dir / NAME
        _log.warning("%s: damaged, what it says of earlier starts is not used", path)
        return []


def write_runs(run_dir: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Write `environment.json`.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    data = {"runs": list(runs)}
    atomic.write_json(run_dir / NAME, {"checksum": _checksum(data)} | data)


def _stored(run_dir: Path) -> list[dict[str, Any]]:
    data = json.loads((run_dir / NAME).read_bytes())
    if data.pop("checksum", None) not in (None, _checksum(data)):
        raise ValueError("the checksum does not match")
    return [run for run in data["runs"] if isinstance(run.get("specification"), str)]


def _checksum(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def origin(specification: Path) -> tuple[Path, ...]:
    """The folders of the specifications that a run directory's own `spec.yaml` was made from.

    A user's model lies there, not in the run directory.
    """
    try:
        starts = _stored(specification.absolute().parent)
    except (*_NONE, *_DAMAGED):
        # Elsewhere a file of this name is somebody else's.
        starts = []
    return tuple(dict.fromkeys(Path(run["specification"]).parent for run in starts))


def changes(before: dict[str, Any], now: Environment) -> list[str]:
    """One line for each package version or kind of device that is not what it was."""
    pairs: list[tuple[str, Any, Any]] = [("python", before.get("python"), now.python)]
    pairs += _each(before.get("packages"), now.packages, "not installed")
    pairs += _each(before.get("variables"), now.variables, "not set")
    instructions = before.get("instructions", list(now.instructions))
    pairs += [
        ("the processor", before.get("processor"), now.processor),
        ("its instructions", instructions, list(now.instructions)),
        ("GPUs", bool(before.get("gpus")), bool(now.gpus)),
    ]
    return [f"{what}: {was} then, {is_now} now" for what, was, is_now in pairs if was != is_now]


def _each(before: object, now: dict[str, str], absent: str) -> list[tuple[str, Any, Any]]:
    old = before if isinstance(before, dict) else now
    return [(name, old.get(name, absent), now.get(name, absent)) for name in {**old, **now}]


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> int:
    """NVIDIA GPUs that this process may use, found without loading a driver library."""
    devices = [p for p in Path("/dev").glob("nvidia[0-9]*") if p.name[6:].isdecimal()]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return len(devices)
    return min(len(devices), len([d for d in allowed.split(",") if d.strip() not in ("", "-1")]))


def versions() -> dict[str, str]:
    """Version of each package that can change results; a missing one is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _installed() -> dict[str, str]:
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return dict(sorted((name, version) for name, version in found.items() if name))


def _processor() -> str:
    return _cpu_line("model name") or platform.processor() or platform.machine()


def _instructions() -> tuple[str, ...]:
    found = {*_cpu_line("flags").split(), *_cpu_line("Features").split()}
    return tuple(name for name in INSTRUCTIONS if name in found)


def _cpu_line(key: str) -> str:
    """What Linux says of the first processor under a key; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _git_commit(folder: Path) -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}-dirty" if commit and git("status", "--porcelain") else commit
    except (OSError, subprocess.TimeoutExpired):
        return ""
