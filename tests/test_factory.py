"""A user's own model: found, imported, checked and built."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from models.build import ModelError, build_model, count_parameters
from models.factory import FactoryError, check_factory, forget_changed, load_factory, source_hash
from models.spec import FactorySpec, InputSpec

INPUTS = InputSpec("bands", (3, 10))

FLAT = """
import torch
from torch import nn

def make(input_shape, classes, width=4, *, bias=True):
    channels, steps = input_shape
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * steps, width), nn.BatchNorm1d(width),
        nn.Dropout(0.5), nn.Linear(width, classes, bias=bias),
    )

def lazy(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))

def wrong(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(30, classes + 1))

def no_module(input_shape, classes):
    return 7

class Pair(nn.Module):
    def forward(self, features):
        return features, features

def pair(input_shape, classes):
    return Pair()

def needs(input_shape, classes, width):
    return nn.Linear(1, 1)

number = 3
"""


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test imports."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("nets"):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(FLAT, encoding="utf-8")
    return tmp_path


def loaded(folder: Path, name: str = "make") -> Callable[..., Any]:
    return load_factory(f"nets:{name}", [folder])


def test_a_factory_is_imported_from_the_folder(folder: Path) -> None:
    assert loaded(folder).__module__ == "nets"
    assert sys.path[0] == str(folder.resolve())
    loaded(folder)
    assert sys.path.count(str(folder.resolve())) == 1


def test_nothing_is_written_beside_the_users_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    loaded(folder)
    assert [p.name for p in folder.iterdir()] == ["nets.py"]
    assert not sys.dont_write_bytecode


def test_a_factory_in_a_package(tmp_path: Path) -> None:
    package = tmp_path / "nets" / "audio"
    package.mkdir(parents=True)
    (tmp_path / "nets" / "__init__.py").write_text("", encoding="utf-8")
    (package / "flat.py").write_text(FLAT, encoding="utf-8")
    assert callable(load_factory("nets.audio.flat:make", [tmp_path]))
    expected = hashlib.sha256(FLAT.encode()).hexdigest()
    assert source_hash("nets.audio.flat:make", [tmp_path]) == expected


def test_the_first_folder_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nets.py").write_text(f"def make(i, c): return '{name}'", "utf-8")
    assert load_factory("nets:make", [tmp_path / "b", tmp_path / "a"])(0, 0) == "b"


def test_imports_inside_a_function_work_later(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "def make(i, c):\n    import nets_more\n    return nets_more.x"
    )
    (tmp_path / "nets_more.py").write_text("x = 5")
    assert load_factory("nets:make", [tmp_path])((1,), 2) == 5


def test_a_module_whose_file_has_changed_can_be_imported_again(tmp_path: Path) -> None:
    file = tmp_path / "changing_models.py"
    for width in (1, 22):
        file.write_text(f"def make(input_shape, classes):\n    return {width}\n")
        forget_changed("changing_models:make")
        first = load_factory("changing_models:make", [tmp_path])
        assert first((), 1) == width
        forget_changed("changing_models:make")
        assert load_factory("changing_models:make", [tmp_path]) is first
    file.write_text("def make(:\n")
    forget_changed("changing_models:make")
    with pytest.raises(FactoryError, match="SyntaxError"):
        load_factory("changing_models:make", [tmp_path])


def test_an_imported_module_is_not_reloaded(folder: Path) -> None:
    first = loaded(folder)
    (folder / "nets.py").write_text("def make(i, c): return 1", encoding="utf-8")
    assert loaded(folder) is first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nettles:make", r"^module nettles not found in .* or the installed packages$"),
        ("nets.deep:make", r"^module nets\.deep not found"),
        ("nets:mak", r"^module nets has no mak \(did you mean make\?\)$"),
        ("nets:number", r"^nets:number is of type int, not callable$"),
        ("sys:exit", r"^module sys has no source file$"),
    ],
)
def test_what_cannot_be_loaded(folder: Path, name: str, message: str) -> None:
    with pytest.raises(FactoryError, match=message):
        load_factory(name, [folder])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('a\\nb')", r"^KeyError while importing nets: 'a"),
        ("raise ValueError('first\\nsecond')", "^ValueError while importing nets: first$"),
        ("raise ValueError", "^ValueError while importing nets$"),
        ("import nets_missing", "^ModuleNotFoundError while importing nets: No module named"),
        ("def broken(:", "^SyntaxError while importing nets: "),
        ("import sys; sys.exit(3)", "^SystemExit while importing nets: 3$"),
    ],
)
def test_a_module_that_raises(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "nets.py").write_text(body, encoding="utf-8")
    with pytest.raises(FactoryError, match=message) as raised:
        load_factory("nets:make", [tmp_path])
    assert "\n" not in str(raised.value)


def test_an_interrupt_while_importing_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        load_factory("nets:make", [tmp_path])


def test_a_file_named_as_an_imported_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(FLAT, encoding="utf-8")
    with pytest.raises(FactoryError, match=r"models is already the name of .*; rename models\.py"):
        load_factory("models:make", [tmp_path])


@pytest.mark.parametrize(
    ("name", "params", "parameter", "message"),
    [
        ("make", {"widht": 3}, "widht", r"no widht; allowed width, bias \(did you mean width\?\)"),
        ("make", {"classes": 3}, "classes", "gets classes from foldgrid"),
        ("lazy", {"width": 3}, "width", "lazy takes no width; allowed none"),
        ("needs", {}, "width", "needs needs width"),
    ],
)
def test_parameters_that_do_not_bind(
    folder: Path, name: str, params: dict[str, Any], parameter: str, message: str
) -> None:
    with pytest.raises(FactoryError, match=message) as raised:
        check_factory(loaded(folder, name), params)
    assert raised.value.parameter == parameter


@pytest.mark.parametrize(
    ("factory", "params"),
    [
        (lambda input_shape, classes, width: 0, {"width": 1}),
        (lambda input_shape, classes, **rest: 0, {"anything": 1}),
        (lambda *both, width=1: 0, {"width": 1}),
        (lambda shape, /, k, *, width=1: 0, {"width": 1}),
        (lambda shape, k, /, **rest: 0, {"shape": 1}),
        (torch.nn.Linear, {"bias": False}),
    ],
)
def test_parameters_that_bind(factory: Callable[..., Any], params: dict[str, Any]) -> None:
    check_factory(factory, params)


@pytest.mark.parametrize("factory", [lambda: 0, lambda shape: 0, lambda shape, *, classes: 0])
def test_a_factory_must_take_shape_and_classes(factory: Callable[..., Any]) -> None:
    with pytest.raises(FactoryError, match="must take"):
        check_factory(factory, {})


def test_checking_does_not_call() -> None:
    def factory(input_shape: object, classes: object) -> None:
        raise AssertionError

    check_factory(factory, {})


def test_the_source_hash_follows_the_file_and_imports_nothing(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text("raise RuntimeError", encoding="utf-8")
    first = source_hash("nets:make", [tmp_path])
    assert first == hashlib.sha256(b"raise RuntimeError").hexdigest()
    file.write_text("raise RuntimeError ", encoding="utf-8")
    assert source_hash("nets:make", [tmp_path]) != first
    assert "nets" not in sys.modules


def test_the_source_hash_of_a_missing_module() -> None:
    with pytest.raises(FactoryError, match="not found"):
        source_hash("nets_nowhere:make", [])


def build(folder: Path, factory: str, **params: object) -> torch.nn.Module:
    spec = FactorySpec(name=f"nets:{factory}", params=params)
    return build_model(spec, INPUTS, 5, import_path=[folder])


def test_a_users_model_is_built(folder: Path) -> None:
    model = build(folder, "make", width=6, bias=False)
    assert model(torch.zeros(3, 3, 10)).shape == (3, 5)
    assert count_parameters(model)[0] == 30 * 6 + 6 + 12 + 30
    assert model.training


def test_the_check_moves_neither_state_nor_generator(folder: Path) -> None:
    torch.manual_seed(3)
    direct = loaded(folder)((3, 10), 5)
    expected, generator = direct.state_dict(), torch.get_rng_state()
    torch.manual_seed(3)
    state = build(folder, "make").state_dict()
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_modules_keep_the_mode_that_the_factory_gave_them(folder: Path) -> None:
    (folder / "nets.py").write_text(
        FLAT + "\ndef frozen(i, c):\n    m = make(i, c)\n    m[2].eval()\n    return m\n", "utf-8"
    )
    model = build(folder, "frozen")
    assert [module.training for module in model.children()] == [True, True, False, True, True]


def test_lazy_layers_can_be_initialized(folder: Path) -> None:
    spec = FactorySpec(name="nets:lazy", init="xavier")
    model = build_model(spec, INPUTS, 5, import_path=[folder])
    assert count_parameters(model) == (155, 155)
    torch.nn.functional.cross_entropy(model(torch.ones(2, 3, 10)), torch.tensor([0, 1])).backward()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("wrong", r"nets:wrong gave logits \[2, 6\], expected \[2, 5\]"),
        ("no_module", r"nets:no_module gave int, expected torch\.nn\.Module"),
        ("pair", r"nets:pair gave tuple, expected logits \[2, 5\]"),
    ],
)
def test_a_model_that_is_no_classifier(folder: Path, factory: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(folder, factory)


def test_wrong_parameters_are_found_before_the_factory_is_called(folder: Path) -> None:
    with pytest.raises(FactoryError, match="no depth"):
        build(folder, "make", depth=3)
