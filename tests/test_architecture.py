"""The layers and habits of the code, read from its syntax."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("features", "models", "orchestrator")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path, *, run_time: bool = False) -> Iterator[str]:
    """Modules that a file imports; with `run_time`, only those imported with the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _at_import(tree) if run_time else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node


def test_there_are_files_to_read() -> None:
    assert len(FILES) > 40


def test_ray_is_imported_in_one_module_only() -> None:
    found = {p.name for p in FILES if any(m.split(".")[0] == "ray" for m in imports(p))}
    assert found == {"ray_executor.py"}


@pytest.mark.parametrize("library", ["tensorboardX", "mlflow", "wandb"])
def test_a_tracker_is_imported_in_one_module_only(library: str) -> None:
    found = {p.name for p in FILES if any(m.split(".")[0] == library for m in imports(p))}
    name = library.removesuffix("X").lower()
    assert found == {f"{name}_tracker.py"}
    assert library not in loaded("import orchestrator.runner")


def test_skops_is_imported_in_one_module_only_and_for_estimators_only() -> None:
    found = {p.name for p in FILES if any(m.split(".")[0] == "skops" for m in imports(p))}
    assert found == {"estimator_file.py"}
    # It imports all of scikit-learn.
    assert not loaded("import orchestrator.classifier, orchestrator.export") & {"skops", "sklearn"}


@pytest.mark.parametrize("package", ["features", "models"])
def test_features_and_models_know_nothing_of_experiments(package: str) -> None:
    others = set(PACKAGES) - {package}
    for path in (ROOT / package).rglob("*.py"):
        known = {module.split(".")[0] for module in imports(path)}
        assert not known & others, path


def test_training_runs_without_ray_disk_and_audio() -> None:
    for name in (
        *("training", "evaluation", "losses", "early_stopping", "schedules"),
        *("batches", "optim", "seeding", "metrics", "selection", "estimator_fit"),
    ):
        known = set(imports(ROOT / "orchestrator" / f"{name}.py"))
        assert not known & {"ray", "soundfile", "librosa", "pathlib", "os", "io"}, name


def test_the_summarizer_reads_the_run_directory_only() -> None:
    above = (
        *("sweep", "runner", "experiment", "executors", "training", "trial", "folds"),
        "extraction",
    )
    reached, open_ = set(), ["orchestrator.summary"]
    while open_:
        name = open_.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name in reached or not path.exists():
            continue
        reached.add(name)
        open_ += [module for module in imports(path) if module.startswith("orchestrator.")]
    assert {"orchestrator.tables", "orchestrator.plots", "orchestrator.report"} <= reached
    assert not reached & {f"orchestrator.{module}" for module in above}


def test_no_import_circles() -> None:
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES}
    graph = {
        name: set(imports(path, run_time=True)) & set(modules) for name, path in modules.items()
    }
    while graph:
        leaves = {name for name, needed in graph.items() if not needed & set(graph)}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: needed for name, needed in graph.items() if name not in leaves}


def test_no_module_is_a_dumping_ground() -> None:
    assert not {p.stem for p in FILES} & {"utils", "util", "helpers", "common", "misc"}


def test_every_public_name_is_documented() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in [tree, *tree.body]:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = getattr(node, "name", path.stem)
                assert name.startswith("_") or ast.get_docstring(node), f"{path}: {name}"


def loaded(code: str) -> set[str]:
    """Top-level modules that are loaded after running code in a process of its own."""
    show = "; import sys; print(' '.join({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code + show], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def test_the_command_line_and_plans_load_no_heavy_library() -> None:
    heavy = {"torch", "ray", "sklearn", "librosa", "pandas", "scipy", "soundfile"}
    assert not loaded("import orchestrator.cli") & heavy
    assert not loaded("import orchestrator.experiment, orchestrator.capacity") & heavy
    assert not loaded("import features.datasets, models.spec") & heavy


def test_a_training_worker_loads_no_library_that_it_can_do_without() -> None:
    code = "from orchestrator import executors, trial; trial.warm_up()"
    assert not loaded(code) & {"librosa", "numba", "soundfile", "torchaudio", "sklearn", "scipy"}


@pytest.mark.parametrize("optimizer", ["SgdSpec", "AdamSpec", "AdamWSpec"])
def test_an_optimizer_takes_its_steps_without_the_compiler(optimizer: str) -> None:
    code = f"""
import sys, torch
from orchestrator.hyperparameters import {optimizer}
from orchestrator.optim import make_optimizer
layer = torch.nn.Linear(2, 2)
steps = make_optimizer({optimizer}(), layer)
for _ in range(2):
    steps.zero_grad()
    layer(torch.ones(1, 2)).sum().backward()
    steps.step()
steps.load_state_dict(steps.state_dict())
assert torch.is_grad_enabled()
assert "torch._dynamo" not in sys.modules"""
    loaded(code)


RUNS_WHAT_IT_READS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}
SAFE_ARGUMENTS = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen", "numpy.save", "numpy.savez"}


def _full_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `np` for `numpy`, `load` for `yaml.load`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name if alias.asname else alias.name.partition(".")[0]
                names[alias.asname or top] = top
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def _called(node: ast.Call, names: dict[str, str]) -> str:
    first, dot, rest = ast.unparse(node.func).partition(".")
    return f"{names.get(first, first)}{dot}{rest}"


def unsafe_reading(tree: ast.Module) -> Iterator[str]:
    """Calls that may run what a file or a text says."""
    names = _full_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = _called(node, names)
        said = {keyword.arg: keyword.value for keyword in node.keywords}
        if called in SAFE_ARGUMENTS:
            argument, safe = SAFE_ARGUMENTS[called]
            value = said.get(argument)
            if not isinstance(value, ast.Constant) or value.value is not safe:
                yield f"line {node.lineno}: {called} without {argument}={safe}"
        elif called in UNSAFE_CALLS or called.split(".")[0] in RUNS_WHAT_IT_READS:
            yield f"line {node.lineno}: {called}"
        elif called.startswith("yaml.") and called.split(".")[1].endswith(("load", "load_all")):
            yield f"line {node.lineno}: {called}, where orchestrator.yaml_source.load is safe"
        elif isinstance(shell := said.get("shell"), ast.Constant) and shell.value:
            yield f"line {node.lineno}: {called} with a shell"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in map(ast.unparse, node.bases):
                if base.endswith("Loader") and base != "yaml.SafeLoader":
                    yield f"line {node.lineno}: {base} in place of yaml.SafeLoader"


def test_nothing_that_is_read_can_run() -> None:
    found = {p.name: list(unsafe_reading(ast.parse(p.read_text(encoding="utf-8")))) for p in FILES}
    assert not {name: faults for name, faults in found.items() if faults}


@pytest.mark.parametrize(
    "code",
    [
        *("import torch; torch.load(f)", "import torch; torch.load(f, weights_only=False)"),
        *("from torch import load; load(f)", "import numpy as n; n.load(f, allow_pickle=True)"),
        *("import numpy as np; np.load(f)", "import pickle; pickle.loads(b)", "eval(text)"),
        *("import yaml; yaml.load(text, yaml.Loader)", "from yaml import unsafe_load as u; u(t)"),
        *(
            "import yaml\nclass L(yaml.Loader): pass",
            "import subprocess; subprocess.run(t, shell=True)",
        ),
    ],
)
def test_unsafe_reading_is_found(code: str) -> None:
    assert list(unsafe_reading(ast.parse(code)))
