"""Search spaces, through the plan command and the sweep's configurations."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.space import Draw, SpaceParser, count, expand, plain
from orchestrator.sweep import load_sweep
from orchestrator.yaml_source import YamlSource, dump, load

HEAD = "data: {dataset: synthetic}\nfeatures: {kind: log_mel}\n"


def configurations(tmp_path: Path, text: str, *overrides: str) -> list[dict[str, Any]]:
    path = tmp_path / "space.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return [c.parameters for c in load_sweep(path, overrides).configurations]


def test_only_the_branch_with_heads_has_heads(tmp_path: Path) -> None:
    text = "model: {grid: [{name: cnn1d}, {name: cnn_transformer, heads: {grid: [1, 2, 4]}}]}\n"
    found = [(c["model.name"], c.get("model.heads")) for c in configurations(tmp_path, text)]
    assert found == [
        ("cnn1d", None),
        ("cnn_transformer", 1),
        ("cnn_transformer", 2),
        ("cnn_transformer", 4),
    ]


def test_the_product_is_in_schema_order_with_the_last_key_fastest(tmp_path: Path) -> None:
    text = """
train:
  optimizer: {weight_decay: {grid: [0.5, 0.1]}, lr: {grid: [1, 2]}}
  epochs: {grid: [7, 5]}
model: {init: {grid: [xavier, random]}, name: cnn_transformer, heads: {grid: [4, 1]}}
"""
    keys = ("model.heads", "model.init", "train.epochs", "train.optimizer.lr")
    keys = (*keys, "train.optimizer.weight_decay")
    found = [tuple(c[key] for key in keys) for c in configurations(tmp_path, text)]
    assert found == list(product([4, 1], ["xavier", "random"], [7, 5], [1, 2], [0.5, 0.1]))


def test_equal_configurations_are_merged_and_counted(foldgrid, tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    text = "model: {grid: [{name: cnn1d}, {name: cnn1d, init: {grid: [random, xavier]}}]}\n"
    path.write_text(HEAD + text, encoding="utf-8")
    summary = json.loads(foldgrid("plan", path, "--json").out)
    assert len(summary["configurations"]) == 2
    assert summary["merged"] == 1


def test_one_and_one_point_zero_are_one_identity(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HEAD + "model: {name: cnn1d}\ntrain: {optimizer: {lr: 1}}\n")
    (tmp_path / "b.yaml").write_text(HEAD + "model: {name: cnn1d}\ntrain: {optimizer: {lr: 1e0}}\n")
    first, second = (load_sweep(tmp_path / f"{n}.yaml").configurations[0].id for n in "ab")
    assert first == second


def test_the_default_written_out_is_the_same_configuration(tmp_path: Path) -> None:
    short = configurations(tmp_path, "model: {name: cnn_transformer}\n")
    long = configurations(tmp_path, "model: {name: cnn_transformer, layers: 2, dropout: 0.1}\n")
    assert short == long


RANDOM = "search: {method: random, samples: 6}\n"
DRAWN = """
model: {name: cnn_transformer, dropout: {uniform: [0.1, 0.3]}, heads: {choice: [1, 2, 4]}}
train: {batch_size: {randint: [4, 9]}, optimizer: {lr: {loguniform: [1e-4, 1e-1]}}}
"""


def test_draws_stay_within_their_bounds(tmp_path: Path) -> None:
    found = configurations(tmp_path, DRAWN + RANDOM, "search.samples=200")
    assert len(found) == 200
    for c in found:
        assert 0.1 <= c["model.dropout"] < 0.3
        assert c["model.heads"] in (1, 2, 4)
        assert c["train.batch_size"] in range(4, 9)
        assert 1e-4 <= c["train.optimizer.lr"] < 1e-1
    assert {c["model.heads"] for c in found} == {1, 2, 4}
    assert {c["train.batch_size"] for c in found} == set(range(4, 9))
    below = sum(c["train.optimizer.lr"] < 1e-2 for c in found)
    assert 100 < below < 165, "two of three decades lie below 1e-2"


def test_more_samples_keep_the_earlier_ones(tmp_path: Path) -> None:
    few = configurations(tmp_path, DRAWN + RANDOM)
    many = configurations(tmp_path, DRAWN + RANDOM, "search.samples=20")
    assert many[:6] == few


def test_draws_depend_on_the_seed_and_not_on_other_keys(tmp_path: Path) -> None:
    few = configurations(tmp_path, DRAWN + RANDOM)
    other = configurations(tmp_path, DRAWN + RANDOM, "search.seed=1")
    assert [c["model.dropout"] for c in few] != [c["model.dropout"] for c in other]
    less = configurations(tmp_path, DRAWN + RANDOM, "model.heads=4")
    assert [c["model.dropout"] for c in few] == [c["model.dropout"] for c in less]


def test_random_runs_every_grid_point_with_the_same_draws(tmp_path: Path) -> None:
    found = configurations(tmp_path, DRAWN + RANDOM, "model.init={grid: [random, xavier]}")
    assert len(found) == 12
    assert [c["model.init"] for c in found] == ["random"] * 6 + ["xavier"] * 6
    assert [c["model.dropout"] for c in found[:6]] == [c["model.dropout"] for c in found[6:]]


@pytest.mark.parametrize("samples", [1, 3])
def test_a_wrong_branch_is_found_even_if_it_is_not_drawn(
    foldgrid, tmp_path: Path, samples: int
) -> None:
    path = tmp_path / "branch.yaml"
    options = ", ".join(["{name: cnn1d}"] * 40 + ["{name: cnn1d, heads: 2}"])
    text = f"model: {{choice: [{options}]}}\nsearch: {{method: random, samples: {samples}}}\n"
    path.write_text(HEAD + text, encoding="utf-8")
    result = foldgrid("plan", path)
    assert result.code == 2
    assert "model.choice.40.heads: found unknown key" in result.err


def test_overrides_take_mappings_spaces_and_list_elements(tmp_path: Path) -> None:
    found = configurations(
        tmp_path,
        "model: {name: cnn_transformer, heads: {grid: [1, 2]}}\n",
        "model.heads.grid.0=8",
        "train.optimizer={name: adam, lr: {grid: [0.1, 0.2]}}",
        "train.epochs=9",
        "train.epochs=4",
    )
    assert [(c["model.heads"], c["train.optimizer.lr"]) for c in found] == list(
        product([8, 2], [0.1, 0.2])
    )
    assert {c["train.epochs"] for c in found} == {4}


# Properties

scalars = st.one_of(
    st.integers(-5, 5), st.booleans(), st.text("ab", max_size=2), st.floats(0, 1, width=16)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("pqr"), inner, max_size=3),
        st.lists(inner, min_size=1, max_size=3, unique_by=repr).map(lambda v: {"choice": v}),
    ),
    max_leaves=8,
)


def tree(value: Any):
    parser = SpaceParser(YamlSource("x", {}), lambda path: 0)
    return parser.parse(value, (), ()), parser.faults


@given(values, st.integers(0, 3))
@settings(max_examples=200)
def test_one_draw_gives_one_value_without_spaces(value: Any, index: int) -> None:
    node, faults = tree(value)
    assert not faults
    drawn = [plain(t) for t in expand(node, Draw(seed=1, index=index))]
    assert len(drawn) == 1
    assert "choice" not in json.dumps(drawn)
    assert drawn == [plain(t) for t in expand(node, Draw(seed=1, index=index))]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True), max_size=3))
def test_a_grid_is_the_product_of_its_axes(axes: list[list[int]]) -> None:
    node, faults = tree({f"k{i}": {"grid": axis} for i, axis in enumerate(axes)})
    assert not faults
    found = [tuple((plain(t) or {}).values()) for t in expand(node, Draw())]
    assert found == list(product(*axes))
    assert count(node) == math.prod(len(axis) for axis in axes)


yaml_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text("ab 10-:#'\"{[,!&*ü", max_size=8),
        st.sampled_from(["1e-3", "on", "no", "0x1F", "~", "null", ".inf", "1_000", "2026-01-01"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab", min_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", min_size=1), yaml_values, max_size=4))
@settings(max_examples=300)
def test_what_is_dumped_is_loaded_back_equal(data: dict[str, Any]) -> None:
    assert load(dump(data) if data else "{}", "x").data == data
