"""Packing: how many trials share a GPU, and how much of its memory each may take.

`resources.gpu: auto` tries out one trial of each kind alone on a GPU and packs by what it needed.
Plain arithmetic: without torch, without Ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.trials import Trial, canonical

MARGIN = 1.2
"""By how much more memory than a trial needed it is given room for."""

MOST = 16
"""Trials on a GPU at most: the driver switches between the processes that share one."""

CONTEXT_BYTES = 512 * 2**20
"""Of a GPU's memory, what CUDA takes for a process, where it was not measured."""

_SAME_MEMORY = {
    *("model.init", "train.epochs", "train.label_smoothing", "train.test_every_epoch"),
    *("train.optimizer.lr", "train.early_stopping", "train.schedule"),
}
"""Parameters that a trial's need of memory does not depend on; all others make a kind."""

_ONLY_WHETHER = (
    *("train.optimizer.weight_decay", "train.optimizer.momentum"),
    *("train.augment.", "model.dropout"),
)
"""Parameters that cost memory where they are not 0, whatever they are."""


@dataclass(frozen=True)
class Need:
    """What a trial needed while it was tried out alone on a GPU.

    Attributes:
        memory: bytes that PyTorch's allocator had reserved at most.
        context: bytes in use beside them: CUDA's own for the process, and whatever other
            programs had on the GPU, which cannot be told apart.
        total: bytes that the GPU has.
        seconds: an epoch, about.
        busy: share of the time in which the GPU computed, 0..1; None where unknown.
    """

    memory: int
    context: int
    total: int
    seconds: float
    busy: float | None = None


@dataclass(frozen=True)
class Room:
    """What bounds the number of trials on a GPU beside its memory.

    Attributes:
        trials: to be run, or at most at once if that is less.
        gpus: in the cluster.
        cores: a GPU has on its node.
        cpu: cores of a trial.
    """

    trials: int
    gpus: int
    cores: float
    cpu: float

    @property
    def most(self) -> int:
        """Trials on a GPU at most, whatever they need."""
        cores = math.floor(self.cores / self.cpu + 1e-9)
        return max(1, min(MOST, cores, math.ceil(self.trials / self.gpus)))


@dataclass(frozen=True)
class Packing:
    """Which share of a GPU each trial gets.

    Attributes:
        shares: 1 or 1/n, by position of the trial; 0 without a GPU, and of an estimator.
        context: bytes of GPU memory that every process takes beside its tensors.
    """

    shares: tuple[float, ...]
    context: int = CONTEXT_BYTES


def kinds(
    trials: Sequence[Trial], clips: Mapping[tuple[int | None, int | None], int]
) -> list[list[int]]:
    """Positions of trials that need the same memory, the largest trial of a kind first.

    The kinds of the largest batches come first: should there be no time for all of them, the
    others probably need less.

    Those of estimators are left out, which compute on a CPU.

    Args:
        trials: of a sweep.
        clips: of a split, by test and validation fold.
    """
    found: dict[str, list[int]] = {}
    for i, trial in enumerate(trials):
        if trial.configuration.train is not None:
            found.setdefault(_kind(trial), []).append(i)
    for positions in found.values():
        positions.sort(key=lambda i: -clips[trials[i].test_fold, trials[i].fold])
    return sorted(found.values(), key=lambda positions: -_batch_bytes(trials[positions[0]]))


def _kind(trial: Trial) -> str:
    """Text that is equal for trials that need the same memory."""
    configuration = trial.configuration
    values = {
        path: bool(value) if path.startswith(_ONLY_WHETHER) else value
        for path, value in configuration.parameters.items()
        if not any(path == same or path.startswith(f"{same}.") for same in _SAME_MEMORY)
    }
    return canonical([configuration.source, values])


def _batch_bytes(trial: Trial) -> int:
    configuration = trial.configuration
    batch = 1 if configuration.train is None else configuration.train.batch_size
    return batch * math.prod(configuration.features.shape)


def trials_per_gpu(need: Need, room: Room) -> int:
    """How many trials of a kind fit on a GPU at once, at least one.

    >>> room = Room(trials=12, gpus=1, cores=16, cpu=1)
    >>> trials_per_gpu(Need(2 * 10**9, 4 * 10**8, 24 * 10**9, seconds=1), room)
    6

    Eight would fit, but twelve trials take two turns either way.
    """
    fit = math.floor(need.total / (MARGIN * (need.memory + need.context)))
    bounds = [fit, room.most]
    if need.busy:
        # One more than would fill the GPU if they never met.
        bounds.append(math.ceil(1 / need.busy) + 1)
    most = max(1, min(bounds))
    each = math.ceil(room.trials / room.gpus)
    return math.ceil(each / math.ceil(each / most))


def worse(one: Need | None, other: Need | None) -> Need | None:
    """The larger need of one kind on two GPUs, on the smaller of them; None where one failed."""
    if one is None or other is None:
        return None
    return Need(
        memory=max(one.memory, other.memory),
        context=max(one.context, other.context),
        total=min(one.total, other.total),
        seconds=max(one.seconds, other.seconds),
        busy=max(one.busy, other.busy) if one.busy and other.busy else None,
    )


def pack(
    groups: Sequence[Sequence[int]], needs: Mapping[int, Need | None], room: Room, trials: int
) -> Packing:
    """The shares of all trials; those of no kind get none.

    A kind that could not be tried out gets a whole GPU: its trials will tell why. One that there
    was no time for is taken to need as much as the largest.

    Args:
        groups: positions of the trials of each kind.
        needs: by kind; None where the attempt failed, missing where there was none.
        room: what else bounds them.
        trials: how many there are.
    """
    known = _alike(needs)
    counts = {kind: trials_per_gpu(need, room) for kind, need in known.items()}
    least = min(counts.values(), default=1)
    shares: dict[int, float] = {}
    for kind, group in enumerate(groups):
        count = 1 if needs.get(kind, room) is None else counts.get(kind, least)
        shares |= dict.fromkeys(group, 1 / count)
    context = max((need.context for need in known.values()), default=CONTEXT_BYTES)
    return Packing(tuple(shares.get(i, 0.0) for i in range(trials)), context)


def _alike(needs: Mapping[int, Need | None]) -> dict[int, Need]:
    """Measured needs as on the smallest GPU, beside processes of the largest context.

    Kinds share GPUs and processes: any trial may meet any other on any GPU.
    """
    known = {kind: need for kind, need in needs.items() if need is not None}
    total = min((need.total for need in known.values()), default=0)
    context = max((need.context for need in known.values()), default=0)
    return {kind: replace(need, total=total, context=context) for kind, need in known.items()}


def memory_fraction(share: float, context: int, total: int) -> float:
    """The fraction of a GPU's memory that PyTorch's allocator may reserve for a trial.

    Its share without what CUDA takes for the process, which no allocator counts, so that all
    trials of a GPU together never take more than it has. Where that would leave next to nothing
    (a share that nobody measured), the part of the share that a margin is.

    >>> memory_fraction(1 / 4, context=10**9, total=20 * 10**9)
    0.2
    >>> memory_fraction(1.0, context=10**9, total=20 * 10**9)
    1.0
    """
    if share >= 1:
        return 1.0
    return max(share - context / total, share * (1 - 1 / MARGIN))


def sentence(packing: Packing, needs: Mapping[int, Need | None]) -> str:
    """What was chosen, for people."""
    counts = sorted({round(1 / share) for share in packing.shares if share})
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    chosen = f"gpu: auto: {span} trial{'' if counts == [1] else 's'} a GPU"
    known = _alike(needs).values()
    if not known:
        return f"{chosen} (what one needs could not be measured)"
    largest = max(known, key=lambda need: need.memory)
    text = (
        f"{chosen} (each at most {_gb(largest.memory + largest.context)} of"
        f" {_gb(largest.total)} GB, {max(need.seconds for need in known):.2g} s an epoch alone"
    )
    if all(need.busy for need in known):
        text += f", the GPU {max(need.busy or 0.0 for need in known):.0%} busy"
    failed = sum(need is None for need in needs.values())
    return text + (f"; {failed} of {len(needs)} kinds could not be measured)" if failed else ")")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}"
