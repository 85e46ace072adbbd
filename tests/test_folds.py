"""Folds and splits: the protocols, folds made here, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.clips import Clip, Dataset
from orchestrator.folds import FoldError, assign_folds, leaks, make_splits
from orchestrator.specification import FoldsSpec


def dataset(rows: list[tuple[int, int | None, str]]) -> Dataset:
    """Clips of `(label, fold, source)`."""
    clips = tuple(
        Clip(f"{i:03d}.wav", label, fold, source, f"hash{i}")
        for i, (label, fold, source) in enumerate(rows)
    )
    labels = max(label for label, _, _ in rows) + 1
    return Dataset("manifest", None, tuple(f"class{i}" for i in range(labels)), clips)


def folded(folds: int = 5, classes: int = 2, each: int = 2) -> Dataset:
    return dataset(
        [
            (label, fold, f"s{label}-{fold}-{i}")
            for fold in range(1, folds + 1)
            for label in range(classes)
            for i in range(each)
        ]
    )


def folds_of(data: Dataset, indices: tuple[int, ...]) -> set[int | None]:
    return {data.clips[i].fold for i in indices}


def test_a_held_out_fold_is_in_no_training_or_validation_split() -> None:
    data = folded()
    spec = FoldsSpec(test=1)
    splits = make_splits(data, assign_folds(data, spec), spec)
    assert [split.fold for split in splits] == [2, 3, 4, 5]
    for split in splits:
        assert folds_of(data, split.test) == {1}
        assert folds_of(data, split.val) == {split.fold}
        assert folds_of(data, split.train) == {2, 3, 4, 5} - {split.fold}


def test_validation_folds_run_in_the_order_listed() -> None:
    data = folded()
    spec = FoldsSpec.model_validate({"test": None, "validate": [4, 2]})
    splits = make_splits(data, assign_folds(data, spec), spec)
    assert [(s.test_fold, s.fold, s.test) for s in splits] == [(None, 4, ()), (None, 2, ())]
    assert folds_of(data, splits[0].train) == {1, 2, 3, 5}


def test_rotate_tests_every_fold_once() -> None:
    data = folded()
    spec = FoldsSpec(protocol="rotate")
    splits = make_splits(data, assign_folds(data, spec), spec)
    assert [(s.test_fold, s.fold) for s in splits] == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 1)]
    assert Counter(i for s in splits for i in s.test) == Counter(range(len(data.clips)))


def test_cross_validation_validates_every_fold_once_and_tests_none() -> None:
    data = folded()
    spec = FoldsSpec(protocol="cross_validation")
    splits = make_splits(data, assign_folds(data, spec), spec)
    assert [(s.test_fold, s.fold, s.test) for s in splits] == [
        (None, fold, ()) for fold in (1, 2, 3, 4, 5)
    ]
    assert Counter(i for s in splits for i in s.val) == Counter(range(len(data.clips)))


@given(folds=st.integers(3, 6), classes=st.integers(2, 4), each=st.integers(2, 3), data=st.data())
@settings(max_examples=60)
def test_the_parts_of_a_split_are_apart_and_complete(folds, classes, each, data) -> None:
    clips = folded(folds, classes, each)
    spec = data.draw(
        st.one_of(
            st.just(FoldsSpec(protocol="rotate")),
            st.integers(1, folds).map(lambda f: FoldsSpec(test=f)),
        )
    )
    out = frozenset(data.draw(st.sets(st.just(0))))
    for split in make_splits(clips, assign_folds(clips, spec), spec, out):
        parts = [*split.train, *split.val, *split.test]
        assert sorted(parts) == sorted(set(range(len(clips.clips))) - out)


@given(
    k=st.integers(2, 5),
    counts=st.lists(st.integers(5, 12), min_size=2, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_folds_made_are_stratified_seeded_and_numbered_from_one(k, counts, seed) -> None:
    rows = [(label, None, f"s{label}-{i}") for label, n in enumerate(counts) for i in range(n)]
    data = dataset(rows)
    spec = FoldsSpec(k=k, seed=seed)
    folds = assign_folds(data, spec)
    assert folds == assign_folds(data, spec)
    assert set(folds) == set(range(1, k + 1))
    for label, n in enumerate(counts):
        sizes = Counter(f for f, clip in zip(folds, data.clips, strict=True) if clip.label == label)
        assert all(n // k <= sizes[f] <= -(-n // k) for f in range(1, k + 1))


@given(seed=st.integers(0, 99), stratify=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_source_stays_in_one_fold_made(seed: int, stratify: bool) -> None:
    rows = [(label, None, f"s{label}-{i // 3}") for label in range(3) for i in range(15)]
    data = dataset(rows)
    folds = assign_folds(data, FoldsSpec(k=4, seed=seed, stratify=stratify))
    assert leaks(data, folds) == []
    ungrouped = assign_folds(data, FoldsSpec(k=4, seed=seed, group=False))
    assert leaks(data, ungrouped)


def test_another_seed_makes_other_folds() -> None:
    data = dataset([(i % 2, None, f"s{i}") for i in range(40)])
    assert assign_folds(data, FoldsSpec(k=4)) != assign_folds(data, FoldsSpec(k=4, seed=1))


@pytest.mark.parametrize(
    ("rows", "spec", "key", "word"),
    [
        ([(0, None, "a"), (1, None, "b")], {}, "folds.k", "nothing"),
        ([(0, None, "a"), (1, None, "b")], {"k": 2}, "folds.k", "at most 1"),
        ([(0, 1, "a"), (1, 2, "b")], {"k": 2}, "folds.k", "own folds"),
        ([(0, 1, "a"), (1, 2, "b")], {"test": 3}, "folds.test", "1, 2"),
        ([(0, 1, "a"), (1, 1, "b")], {"test": 1}, "folds.test", "the only one"),
        ([(0, 1, "a"), (1, 2, "b")], {"protocol": "rotate"}, "folds.protocol", "3 or more"),
        (
            [(0, 1, "a"), (1, 1, "b"), (0, 2, "c"), (1, 2, "d")],
            {"test": 1},
            "folds.validate",
            "no training clips",
        ),
        (
            [(label, fold, f"{label}{fold}") for label, fold in ((0, 1), (1, 1), (0, 2), (0, 3))],
            {"validate": [1]},
            "folds.validate",
            "class1",
        ),
    ],
)
def test_folds_that_the_data_do_not_have_are_refused(rows, spec, key: str, word: str) -> None:
    data = dataset(rows)
    folds = FoldsSpec.model_validate(spec)
    with pytest.raises(FoldError) as caught:
        make_splits(data, assign_folds(data, folds), folds)
    assert caught.value.key == key
    assert word in str(caught.value)


def test_a_source_in_two_folds_is_named() -> None:
    data = dataset([(0, 1, "rec7"), (1, 1, "x"), (0, 2, "rec7"), (1, 2, "y")])
    (line,) = leaks(data, [1, 1, 2, 2])
    assert "rec7" in line
    assert "000.wav (fold 1)" in line
    assert "002.wav (fold 2)" in line


def test_equal_files_in_two_folds_are_named() -> None:
    clips = [
        Clip(f"{i}.wav", i % 2, i // 2, f"s{i}", "same" if i in (0, 3) else str(i))
        for i in range(4)
    ]
    (line,) = leaks(Dataset("x", None, ("a", "b"), tuple(clips)), [0, 0, 1, 1])
    assert "byte-identical" in line
    assert "0.wav" in line
    assert "3.wav" in line
