"""From a sweep and its data to the plan: the ordered list of trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from features.clips import Clip, Dataset, DatasetError
from features.formulas import ALLOWED, is_formula
from features.spec import FeatureSpec
from orchestrator.document import digest
from orchestrator.errors import SpecificationError
from orchestrator.folds import FoldError, Split, assign_folds, leaks, make_splits, outer_splits
from orchestrator.nested import twins
from orchestrator.pruning import doubts
from orchestrator.sweep import Sweep
from orchestrator.trials import ClipRow, Plan, Trial

if TYPE_CHECKING:
    import pandas as pd

MOST_TRIALS = 1_000_000


@dataclass(frozen=True)
class Experiment:
    """A sweep together with its data.

    Attributes:
        sweep: the specification.
        dataset: every clip.
        folds: of each clip.
        splits: in plan order.
        outer: of a nested cross-validation, the training on all folds but each one.
        plan: the trials.
        leaks: sources or files in two folds, where `data.allow_leakage` lets them pass.
    """

    sweep: Sweep
    dataset: Dataset
    folds: tuple[int, ...]
    splits: tuple[Split, ...]
    plan: Plan
    leaks: tuple[str, ...]
    outer: tuple[Split, ...] = ()

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """The distinct feature configurations in plan order."""
        return self.sweep.all_features

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The plan as a data frame: a row a trial, the first columns of `trials.csv`."""
        # Not at module level: the command line needs none, and pandas is slow to import.
        from orchestrator.frames import plan_frame

        return plan_frame(self.plan)

    @property
    def split_of(self) -> dict[tuple[int | None, int | None], Split]:
        """The splits by `(test fold, validation fold)`."""
        return {(split.test_fold, split.fold): split for split in self.splits + self.outer}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before anything runs, a line each."""
        pruner = self.sweep.settings.search.pruner
        return (
            *(*self.sweep.warnings, *self.leaks, *dict.fromkeys(self._undefined())),
            *(doubts(self.plan, pruner) if pruner else ()),
        )

    def _undefined(self) -> Iterator[str]:
        """Validation folds on which no configuration has the metric that all are ranked by."""
        if self.plan.metric != "val_auroc":
            return
        classes = self.dataset.classes
        for split in self.splits:
            there = {self.dataset.clips[i].label for i in split.val}
            absent = [name for label, name in enumerate(classes) if label not in there]
            if absent:
                yield (
                    f"search.metric: val_auroc is not defined on fold {split.fold}, which has no"
                    f" clip of {', '.join(absent)}: no configuration will have a rank"
                )

    @property
    def document(self) -> dict[str, Any]:
        """The specification with the defaults that depend on the data filled in too."""
        document = dict(self.sweep.document)
        if self.sweep.settings.folds.protocol == "held_out":
            tried = list(dict.fromkeys(split.fold for split in self.splits))
            document["folds"] = document["folds"] | {"validate": tried}
        return document

    @property
    def product(self) -> str:
        """How the number of trials comes about, in words."""
        plan, repeats, search = self.plan, self.sweep.settings.repeats, self.sweep.settings.search
        merged = f" ({plan.merged} equal ones merged)" if plan.merged else ""
        folds = several(len(self.outer or self.splits), "fold")
        if self.outer:
            folds += f" x {len(self.outer) - 1} inner ones"
        configurations = several(len(plan.configurations), "configuration") + merged
        if search.method == "optuna":
            made = len(plan.suggestions)
            configurations += (
                f" ({made} of {search.samples} suggestions of Optuna, {search.sampler})"
            )
        factors = [
            configurations,
            folds,
            *([several(repeats, "repeat")] if repeats > 1 else []),
        ]
        text = f"{several(len(plan.trials), 'trial')} = {' x '.join(factors)}"
        if not self.outer:
            return text
        trainings = len(plan.trials) - len(twins(plan))
        outer = several(len(self.outer) * repeats, "outer one")
        return f"{text}, in {several(trainings, 'training')}; then {outer}"


def several(number: int, noun: str) -> str:
    """A number with its noun: `1 fold`, `4 folds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def load_dataset(sweep: Sweep) -> Dataset:
    """The clips that a specification names, found and hashed but not decoded.

    Raises:
        SpecificationError: the data cannot be used, with every fault; or a clip or a class has a
            name that a spreadsheet would run, see `features.formulas`.
    """
    data = sweep.settings.data
    key = "manifest" if data.dataset == "manifest" else "root"
    try:
        dataset = _dataset(sweep)
    except DatasetError as error:
        raise SpecificationError(*(_data_fault(sweep, f, key) for f in error.faults)) from None
    formulas = [f"class {name!r}" for name in dataset.classes if is_formula(name)]
    formulas += [f"clip {clip.path!r}" for clip in dataset.clips if is_formula(clip.path)]
    if formulas:
        place = f"{sweep.source.place(('data', key))}: data.{key}"
        allowed = f"a formula to spreadsheets; allowed {ALLOWED}"
        raise SpecificationError(*(f"{place}: found {name}, {allowed}" for name in formulas))
    return dataset


def _dataset(sweep: Sweep) -> Dataset:
    from features import datasets

    data = sweep.settings.data
    root, manifest = sweep.root, sweep.manifest
    if data.dataset == "synthetic":
        return datasets.load_synthetic()
    assert root is not None
    if data.dataset == "esc10":
        return datasets.load_esc10(root)
    if data.dataset == "esc50":
        return datasets.load_esc50(root)
    if data.dataset == "urbansound8k":
        return datasets.load_urbansound8k(root)
    if data.dataset == "folder":
        return datasets.load_folder(root, data.source_pattern)
    assert manifest is not None
    return datasets.load_manifest(manifest, root)


def _data_fault(sweep: Sweep, fault: str, key: str) -> str:
    """A fault of the data, at the key of the specification that led to them."""
    name = "data.source_pattern"
    if name in fault:
        key, fault = "source_pattern", fault.removeprefix(f"{name}: ").removeprefix("found ")
    text = fault.replace("; expected ", "; allowed ")
    return f"{sweep.source.place(('data', key))}: data.{key}: found {text}"


def make_experiment(
    sweep: Sweep, dataset: Dataset, left_out: Sequence[tuple[Clip, str]] = ()
) -> Experiment:
    """The plan of a sweep on its data.

    Args:
        sweep: the specification.
        dataset: its clips.
        left_out: clips that could not be read, each with its problem.

    Raises:
        SpecificationError: folds that the data do not have, a leak, a class missing from a
            training split.
    """
    settings = sweep.settings
    problems = {clip.path: problem for clip, problem in left_out}
    absent = frozenset(i for i, clip in enumerate(dataset.clips) if clip.path in problems)
    try:
        folds = assign_folds(dataset, settings.folds)
        found = leaks(dataset, folds)
        if found and not settings.data.allow_leakage:
            place = sweep.source.place(("data",))
            allowed = "each source in one fold (or data.allow_leakage: true)"
            lines = [f"{place}: data: found {leak}; allowed {allowed}" for leak in found]
            raise SpecificationError(*lines)
        splits = make_splits(dataset, folds, settings.folds, absent)
    except FoldError as error:
        raise sweep.fault(_key_path(error.key), error.found, error.allowed) from None
    plan = Plan(
        name=settings.name,
        metric=settings.search.metric,
        mode=settings.search.mode or "max",
        classes=dataset.classes,
        clips=tuple(ClipRow(c.path, c.label, problems.get(c.path, "")) for c in dataset.clips),
        trials=_trials(sweep, splits),
        merged=sweep.merged,
        suggestions=sweep.suggestions,
        protocol=settings.folds.protocol,
        leakage_allowed=settings.data.allow_leakage,
        data=dataset.fingerprint(),
    )
    nested = settings.folds.protocol == "nested"
    outer = outer_splits(dataset, folds, absent) if nested else ()
    experiment = Experiment(sweep, dataset, folds, splits, plan, tuple(found), outer)
    plan = replace(plan, specification=digest(experiment.document))
    return replace(experiment, plan=plan)


def _trials(sweep: Sweep, splits: Sequence[Split]) -> tuple[Trial, ...]:
    seeds = range(sweep.settings.seed, sweep.settings.seed + sweep.settings.repeats)
    total = len(splits) * len(sweep.configurations) * len(seeds)
    if total > MOST_TRIALS:
        raise sweep.fault(("repeats",), f"{total} trials", f"at most {MOST_TRIALS}")
    return tuple(
        Trial(configuration, split.test_fold, split.fold, seed)
        for split in splits
        for configuration in sweep.configurations
        for seed in seeds
    )


def _key_path(key: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


__all__ = ["Experiment", "load_dataset", "make_experiment"]
