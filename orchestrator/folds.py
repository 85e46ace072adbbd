"""Folds and splits: which clips train, validate and test."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from features.clips import Dataset
from orchestrator.errors import listing
from orchestrator.specification import FoldsSpec


class FoldError(ValueError):
    """The folds asked for cannot be had from the data.

    Attributes:
        key: of the `folds` or `data` section that is at fault, dotted.
        found: what stands in the way.
        allowed: what would do.
    """

    def __init__(self, key: str, found: str, allowed: str) -> None:
        super().__init__(f"{key}: found {found}; allowed {allowed}")
        self.key, self.found, self.allowed = key, found, allowed


@dataclass(frozen=True, slots=True)
class Split:
    """The train, validation and test clips of one fold, as indices into `Dataset.clips`.

    Attributes:
        test_fold: the fold that no choice sees; None without one.
        fold: the validation fold; None for the outer training of a nested cross-validation.
        train: every clip in neither fold.
        val: the clips of `fold`.
        test: the clips of `test_fold`; empty without one, and where the inner trials of a nested
            cross-validation must not see it.
        twin: for such an inner trial, the clips of `test_fold`: they validate the trial whose
            folds are the other way round, which trains on the same clips.
    """

    test_fold: int | None
    fold: int | None
    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    twin: tuple[int, ...] = ()

    @property
    def draws(self) -> tuple[int | None, int | None]:
        """The two folds that seeds derive from: equal for two trials of one training."""
        if self.twin and self.test_fold is not None and self.fold is not None:
            return min(self.test_fold, self.fold), max(self.test_fold, self.fold)
        return self.test_fold, self.fold


def assign_folds(dataset: Dataset, spec: FoldsSpec) -> tuple[int, ...]:
    """The fold of every clip: the predefined one, or one of `spec.k` made here.

    Raises:
        FoldError: no folds and no `k`, both, or too few clips or sources for `k`.
    """
    predefined = [clip.fold for clip in dataset.clips]
    if all(fold is not None for fold in predefined):
        if spec.k is not None:
            raise FoldError("folds.k", str(spec.k), "null: the data bring their own folds")
        return tuple(fold for fold in predefined if fold is not None)
    if spec.k is None:
        raise FoldError("folds.k", "nothing", "a number of folds, since the data bring none")
    return _make_folds(dataset, spec, spec.k)


def _make_folds(dataset: Dataset, spec: FoldsSpec, k: int) -> tuple[int, ...]:
    """Folds 1 to k by scikit-learn's splitters, stratified by class, grouped by source."""
    from sklearn import model_selection

    labels = [clip.label for clip in dataset.clips]
    sources = [clip.source for clip in dataset.clips]
    # Every clip its own source: grouping would only make the classes' shares less even.
    grouped = spec.group and len(set(sources)) < len(sources)
    _refuse_too_many(dataset, k, grouped)
    name = {
        (True, True): "StratifiedGroupKFold",
        (True, False): "StratifiedKFold",
        (False, True): "GroupKFold",
        (False, False): "KFold",
    }[spec.stratify, grouped]
    splitter = getattr(model_selection, name)(n_splits=k, shuffle=True, random_state=spec.seed)
    folds = [0] * len(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (_, members) in enumerate(splitter.split(labels, labels, sources), start=1):
            for i in members:
                folds[i] = number
    return tuple(folds)


def _refuse_too_many(dataset: Dataset, k: int, grouped: bool) -> None:
    unit = "source" if grouped else "clip"
    units: dict[int, set[str]] = defaultdict(set)
    for clip in dataset.clips:
        units[clip.label].add(clip.source if grouped else clip.path)
    label = min(units, key=lambda label: (len(units[label]), label))
    if len(units[label]) < k:
        fewest = len(units[label])
        owned = f"{dataset.classes[label]} has {fewest} {unit}{'' if fewest == 1 else 's'}"
        raise FoldError("folds.k", str(k), f"at most {fewest} ({owned})")


def leaks(dataset: Dataset, folds: Sequence[int]) -> list[str]:
    """One line for each source, and each file content, that stands in two folds."""
    found = []
    for what, key in (("source", "source"), ("byte-identical clips", "sha256")):
        members: dict[str, list[int]] = defaultdict(list)
        for i, clip in enumerate(dataset.clips):
            members[getattr(clip, key)].append(i)
        for value, indices in members.items():
            first = next((i for i in indices if folds[i] != folds[indices[0]]), None)
            if first is None:
                continue
            pair = [f"{dataset.clips[i].path} (fold {folds[i]})" for i in (indices[0], first)]
            name = f"{what} {value}" if key == "source" else what
            found.append(f"{name} in two folds: {' and '.join(pair)}")
    return found


def make_splits(
    dataset: Dataset, folds: Sequence[int], spec: FoldsSpec, left_out: frozenset[int] = frozenset()
) -> tuple[Split, ...]:
    """The splits in plan order.

    `held_out` with folds 1 to 5, test 1 and validate null gives validation folds 2, 3, 4, 5,
    training on the other three. `rotate` gives (test 1, validate 2, train 3 4 5), (2, 3, 4 5 1),
    (3, 4, 5 1 2), (4, 5, 1 2 3), (5, 1, 2 3 4). `cross_validation` gives validation folds 1 to 5,
    training on the other four, and nothing is tested. `nested` gives validation folds 2 to 5 for
    test fold 1, then 1, 3, 4, 5 for test fold 2 and so on: these inner splits test nothing.

    Args:
        dataset: the clips.
        folds: of each clip.
        spec: the protocol.
        left_out: indices of clips that could not be read; in no split.

    Raises:
        FoldError: a fold that the data do not have, an empty training split, or one that lacks
            a class.
    """
    present = _present(folds, left_out)
    splits = []
    for test_fold, fold in _pairs(present, spec):
        split = _split(folds, left_out, test_fold, fold)
        if spec.protocol == "nested":
            split = replace(split, test=(), twin=split.test)
        _check_training(dataset, split)
        splits.append(split)
    return tuple(splits)


def outer_splits(
    dataset: Dataset, folds: Sequence[int], left_out: frozenset[int] = frozenset()
) -> tuple[Split, ...]:
    """For each fold, tested once, the training on all the others: the outer loop of `nested`.

    Args:
        dataset: the clips.
        folds: of each clip.
        left_out: indices of clips that could not be read; in no split.
    """
    return tuple(_split(folds, left_out, fold, None) for fold in _present(folds, left_out))


def _present(folds: Sequence[int], left_out: frozenset[int]) -> list[int]:
    return sorted({fold for i, fold in enumerate(folds) if i not in left_out})


def _split(
    folds: Sequence[int], left_out: frozenset[int], test_fold: int | None, fold: int | None
) -> Split:
    parts = {fold: "val", test_fold: "test"}
    members: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for i, of_clip in enumerate(folds):
        if i not in left_out:
            members[parts.get(of_clip, "train")].append(i)
    return Split(test_fold, fold, *(tuple(members[p]) for p in ("train", "val", "test")))


def _pairs(present: list[int], spec: FoldsSpec) -> list[tuple[int | None, int]]:
    """`(test fold, validation fold)` in plan order."""
    have = f"the data's folds: {listing(present)}"
    if spec.protocol in ("rotate", "nested") and len(present) < 3:
        found = f"{spec.protocol} with {len(present)} folds"
        raise FoldError("folds.protocol", found, "3 or more folds")
    if spec.protocol == "rotate":
        return [(fold, present[(i + 1) % len(present)]) for i, fold in enumerate(present)]
    if spec.protocol == "nested":
        return [(test, fold) for test in present for fold in present if fold != test]
    if spec.test is not None and spec.test not in present:
        raise FoldError("folds.test", f"fold {spec.test}", have)
    for i, fold in enumerate(spec.validate_folds or []):
        if fold not in present:
            raise FoldError(f"folds.validate.{i}", f"fold {fold}", have)
    listed = spec.validate_folds
    others = [fold for fold in present if fold != spec.test] if listed is None else listed
    if not others:
        raise FoldError("folds.test", f"fold {spec.test}, the only one", "another fold beside it")
    return [(spec.test, fold) for fold in others]


def _check_training(dataset: Dataset, split: Split) -> None:
    where = f"validation fold {split.fold}"
    key = "folds.validate"
    if not split.train:
        raise FoldError(key, f"no training clips with {where}", "folds that leave some")
    if len(split.train) < 2:
        raise FoldError(key, f"one training clip with {where}", "folds that leave two or more")
    counts = Counter(dataset.clips[i].label for i in split.train)
    missing = [name for label, name in enumerate(dataset.classes) if not counts[label]]
    if missing:
        found = f"no training clip of {listing(missing)} with {where}"
        raise FoldError(key, found, "training splits with every class")
