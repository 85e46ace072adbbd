"""Provenance: what a run was made with, for `environment.json`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("foldgrid", "torch", "torchaudio", "torchvision", "ray", "numpy", "scikit-learn"),
    *("librosa", "soundfile", "soxr", "pydantic"),
)
"""Distributions whose version can change results."""


@dataclass(frozen=True)
class Environment:
    """One start of a sweep.

    Attributes:
        started: UTC, ISO 8601.
        python: its version.
        packages: version by distribution; a missing one is left out.
        platform: operating system and architecture.
        processor: its name.
        cores: that this process may use.
        gpus: device files of NVIDIA GPUs, a count.
        git_commit: of the specification's folder; empty outside a repository; `-dirty` appended
            where it has uncommitted changes.
        data_fingerprint: of every clip's path, label, fold, source and content.
        specification: absolute path that was run.
        executor: `ray` or `serial`.
    """

    started: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    platform: str = ""
    processor: str = ""
    cores: int = 0
    gpus: int = 0
    git_commit: str = ""
    data_fingerprint: str = ""
    specification: str = ""
    executor: str = ""

    def to_json(self) -> dict[str, Any]:
        """The environment as JSON values."""
        return asdict(self)


def capture(specification: Path, fingerprint: str, executor: str) -> Environment:
    """The environment of this process."""
    return Environment(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        python=platform.python_version(),
        packages=_versions(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=usable_cores(),
        gpus=visible_gpus(),
        git_commit=_git_commit(specification.parent),
        data_fingerprint=fingerprint,
        specification=str(specification),
        executor=executor,
    )


def runs(run_dir: Path) -> list[dict[str, Any]]:
    """What `environment.json` keeps of each start; empty where there is none to read."""
    try:
        data = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
        return [run for run in data["runs"] if isinstance(run.get("specification"), str)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def origin(specification: Path) -> tuple[Path, ...]:
    """The folders of the specifications that a run directory's own `spec.yaml` was made from.

    A user's model lies there, not in the run directory.
    """
    starts = runs(specification.absolute().parent)
    return tuple(dict.fromkeys(Path(run["specification"]).parent for run in starts))


def changes(before: dict[str, Any], now: Environment) -> list[str]:
    """One line for each package version or kind of device that is not what it was."""
    lines = []
    old = dict(before.get("packages", {}))
    for name in dict.fromkeys([*old, *now.packages]):
        if old.get(name) != now.packages.get(name):
            was, is_now = old.get(name, "not installed"), now.packages.get(name, "not installed")
            lines.append(f"{name} was {was}, is now {is_now}")
    if before.get("python") != now.python:
        lines.append(f"python was {before.get('python')}, is now {now.python}")
    if before.get("processor") != now.processor:
        lines.append(f"the processor was {before.get('processor')}, is now {now.processor}")
    if bool(before.get("gpus")) != bool(now.gpus):
        lines.append(f"GPUs were {before.get('gpus')}, are now {now.gpus}")
    return lines


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


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    if sys.platform == "linux":
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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
