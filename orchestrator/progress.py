"""Progress: what a sweep is doing, live on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from orchestrator.configuration_scores import Best, best_configuration, metric_of
from orchestrator.records import EpochRow, TrialRecord
from orchestrator.remaining import Remaining
from orchestrator.streams import twin
from orchestrator.trials import Plan, Trial

_LINE_SECONDS = 30.0
"""Between two plain lines while nothing ends."""


@dataclass
class SweepState:
    """How far a sweep is.

    Attributes:
        plan: every trial, finished before or not.
        total: trials of this call.
        epochs_total: epochs of this call.
        done: trials that finished in this call, or came as far as they are to for now.
        failed: trials that failed in this call.
        running: epochs done by running trial.
        epochs_done: epochs of this call, those of failed trials and before checkpoints too.
        remaining: the time that is left.
        scores: metric by finished trial, earlier calls included.
    """

    plan: Plan
    total: int
    epochs_total: int
    remaining: Remaining
    done: int = 0
    failed: int = 0
    epochs_done: int = 0
    running: dict[str, int] = field(default_factory=dict)
    scores: dict[str, float | None] = field(default_factory=dict)

    def score(self, record: TrialRecord) -> float | None:
        """Note the metric of a finished trial; None where it has none."""
        self.scores[record.trial] = metric_of(record, self.plan.metric)
        # Found again when it is asked for, not four times a second while nothing has changed.
        self.__dict__.pop("best", None)
        return self.scores[record.trial]

    @cached_property
    def best(self) -> Best | None:
        """The best configuration among those whose every trial has finished."""
        return best_configuration(self.plan, self.scores)


class SweepProgress:
    """Keeps the state up to date and shows it."""

    def __init__(self, state: SweepState, epochs: Mapping[str, int], console: Console) -> None:
        """Take the state, the epochs of each trial, and where to show them."""
        self.state = state
        self._epochs = epochs
        self._console = console
        self._live: Live | None = None
        self._bar = _bar(console)
        self._task = self._bar.add_task("epochs", total=state.epochs_total)
        self._last_line = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the progress for as long as the context lasts."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
        ) as self._live:
            yield

    def started(self, trial: str, epoch: int) -> None:
        """A trial runs its first step, from this epoch on, or starts again."""
        self.state.remaining.started(trial, epoch, time.monotonic())
        self.state.epochs_done += epoch - self.state.running.get(trial, 0)
        self.state.running[trial] = epoch
        self._move()

    def epoch(self, trial: str, row: EpochRow, seconds: float) -> None:
        """A trial ended an epoch that took it so long."""
        self.state.remaining.epoch(trial, row.epoch, seconds, time.monotonic())
        self.state.running[trial] = self.state.running.get(trial, 0) + 1
        self.state.epochs_done += 1
        self._move()
        if self._live is None and time.monotonic() - self._last_line > _LINE_SECONDS:
            self._line("")

    def note(self, text: str) -> None:
        """Something worth knowing before the first trial starts."""
        console = self._console if self._live is None else self._live.console
        say(console, text)

    def waiting(self, seconds: float) -> None:
        """No trial has run for so long."""
        self._line(
            f"waiting for {duration(seconds)}: no node of the cluster has room for a trial",
            bad=True,
        )

    def retried(self, trial: str, error: str) -> None:
        """An attempt at a trial ended; it waits for the next one."""
        self.state.epochs_done -= self.state.running.pop(trial, 0)
        self.state.remaining.again(trial, time.monotonic())
        self._move()
        self._line(f"{trial} will be tried again: {error}", bad=True)

    def finished(self, record: TrialRecord) -> None:
        """A trial ended well; its score counts for the best configuration so far."""
        self._ended(record.trial, well=True)
        self.state.done += 1
        score = self.state.score(record)
        text = "" if score is None else f" {self.state.plan.metric} {score:.4g}"
        self._line(f"{record.trial} finished{text}")

    def twin(self, record: TrialRecord) -> None:
        """A trial has shared the training of one that is about to finish."""
        self.state.score(record)

    def failed(self, trial: str, error: str) -> None:
        """A trial ended with an error."""
        self._ended(trial, well=False)
        self.state.failed += 1
        self._line(f"{trial} failed: {error}", bad=True)

    def paused(self, trial: str) -> None:
        """A trial waits for those beside it."""
        self._ended(trial, well=False)
        self.state.done += 1
        self._line(f"{trial} waits")

    def _ended(self, trial: str, *, well: bool) -> None:
        """Count the epochs that a trial was spared, by early stopping or an error, as done."""
        self.state.remaining.ended(trial, time.monotonic(), well=well)
        self.state.epochs_done += self._epochs[trial] - self.state.running.pop(trial, 0)
        self._move()

    def _move(self) -> None:
        self._bar.update(self._task, completed=self.state.epochs_done)

    def _line(self, event: str, *, bad: bool = False) -> None:
        if self._live is None:
            parts = [event] if event else []
            say(self._console, " | ".join([*parts, self._summary()]))
            self._last_line = time.monotonic()
        elif bad:
            self._live.console.print(Text(event, style="red"))

    def _summary(self) -> str:
        state = self.state
        parts = [f"{state.done}/{state.total} trials done"]
        if state.failed:
            parts.append(f"{state.failed} failed")
        parts.append(f"{len(state.running)} running")
        parts.append(f"{state.epochs_done}/{state.epochs_total} epochs")
        left = state.remaining.seconds(time.monotonic())
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _render(self) -> RenderableType:
        best = self.state.best
        lines = [Text(self._summary())]
        if best is not None:
            mean = f"mean {best.metric} {best.mean:.4f}"
            lines.append(Text(f"best so far: {best.configuration.id}, {mean}"))
        return Group(self._bar, *lines)


def say(console: Console, text: str) -> None:
    """Print a line as it is: not wrapped, no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def epochs_of(trials: Sequence[Trial], ends: Mapping[str, int]) -> dict[str, int]:
    """Epochs by trial, its own or those after which it ends before."""
    own = {trial.id: trial.configuration.epochs for trial in trials}
    return {trial: min(epochs, ends.get(trial, epochs)) for trial, epochs in own.items()}


def duration(seconds: float) -> str:
    """Seconds as `1 h 02 min`, `3 min 05 s` or `12 s`."""
    whole = max(round(seconds), 0)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


@contextmanager
def counted(
    console: Console, title: str, total: int, noun: str = "clips"
) -> Iterator[Callable[[int, int], None]]:
    """A bar for a countable piece of work; where there is no terminal, a line.

    What is yielded takes how much is done and of how much. The line comes with the first call:
    what need not be done, as features that are in the cache, is not announced.
    """
    if not console.is_terminal:
        lines = iter([f"{title}: {total} {noun}"])

        def show(done: int, of: int) -> None:
            for line in lines:
                say(console, line)

        yield show
        return
    bar = _bar(console)
    task = bar.add_task(title, total=total)
    with bar:
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    return Progress(*columns, console=console, transient=True)


def stderr_console(quiet: bool) -> Console:
    """Where progress is shown: standard error, or nowhere.

    On a descriptor of its own, as standard error is muted for C libraries while clips are read.
    """
    stream = None if quiet or sys.stderr is None else twin(sys.stderr)
    return Console(stderr=True, quiet=quiet) if stream is None else Console(file=stream)
