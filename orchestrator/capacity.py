"""Capacity: what a sweep needs of the machine, known before anything is started."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.experiment import Experiment
from orchestrator.provenance import usable_cores, visible_gpus

_SHARED_MEMORY = Path("/dev/shm")
_SHARE = 0.6
"""Of the memory, for the object store: the workers need the rest."""


@dataclass(frozen=True)
class Capacity:
    """What a sweep needs and what this machine has.

    Attributes:
        feature_bytes: of all feature arrays together, once a machine.
        store_bytes: the largest object store that this machine can hold.
        cpu: cores of a trial.
        gpu: GPUs of a trial; of `auto` a whole one where there is one, else none.
        cores: of this machine.
        gpus: of this machine.
        measured: a run measures at its start how many trials share a GPU.
    """

    feature_bytes: int
    store_bytes: int
    cpu: float
    gpu: float
    cores: int
    gpus: int
    measured: bool = False

    @property
    def concurrency(self) -> int:
        """How many trials fit on this machine at once; at least that many where it is measured."""
        fits = [math.floor(self.cores / self.cpu + 1e-9)]
        if self.gpu:
            # A share of a GPU does not span two of them.
            per_gpu = math.floor(1 / self.gpu + 1e-9)
            fits.append(per_gpu * self.gpus if self.gpu < 1 else self.gpus // int(self.gpu))
        return min(fits)


def measure(experiment: Experiment) -> Capacity:
    """The needs of an experiment beside this machine."""
    clips = len(experiment.dataset.clips)
    resources = experiment.sweep.settings.resources
    gpus = visible_gpus()
    # Estimators compute on a CPU.
    trained = any(c.train is not None for c in experiment.plan.configurations)
    wanted = resources.gpu if trained else 0.0
    gpu = (1.0 if gpus else 0.0) if wanted == "auto" else float(wanted)
    return Capacity(
        feature_bytes=sum(clips * f.stored_bytes for f in experiment.features),
        store_bytes=_store_bytes(),
        cpu=resources.cpu,
        gpu=gpu,
        cores=usable_cores(),
        gpus=gpus,
        measured=wanted == "auto" and gpus > 0,
    )


def refuse_too_large(experiment: Experiment, capacity: Capacity) -> None:
    """Raise SpecificationError where the features do not fit into the object store."""
    if capacity.feature_bytes <= capacity.store_bytes:
        return
    found = f"features of {size(capacity.feature_bytes)}"
    allowed = (
        f"at most {size(capacity.store_bytes)} of object store on this machine (fewer feature"
        " configurations in one sweep; for waveforms a lower sample_rate, no overlapping windows,"
        " or log_mel; for images a smaller size)"
    )
    raise experiment.sweep.fault(("features",), found, allowed)


def refuse_too_weak(experiment: Experiment, capacity: Capacity) -> None:
    """Raise SpecificationError where this machine has not what one trial asks for."""
    for name, need, have in (
        ("cpu", capacity.cpu, capacity.cores),
        ("gpu", capacity.gpu, capacity.gpus),
    ):
        if need > have:
            allowed = f"at most {have} on this machine"
            raise experiment.sweep.fault(("resources", name), f"{need:g}", allowed)


def size(count: float) -> str:
    """Bytes as `230 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _store_bytes() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = int(memory * _SHARE)
    if _SHARED_MEMORY.is_dir():
        # A container may give it 64 MB; Ray then falls back to a slow file.
        limit = min(limit, shutil.disk_usage(_SHARED_MEMORY).free)
    return limit
