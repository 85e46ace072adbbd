"""Short names of configurations and of the paths that vary, as they stand in pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from orchestrator.csv_files import text
from orchestrator.plot_style import label
from orchestrator.run_digest import ModelRuns
from orchestrator.trials import Configuration, Value, varying_paths

LONGEST = 62
"""Characters of a configuration's name."""


def path_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or as much more as tells it from the others.

    >>> path_names(("model.name", "model.params.rate", "train.rate", "model.heads"))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'model.name': 'model', 'model.params.rate': 'params.rate', 'train.rate': 'train.rate',
     'model.heads': 'heads'}
    """
    names = {path: _tail(path, 1) for path in paths}
    for parts in range(2, 6):
        shared = Counter(names.values())
        names = {p: name if shared[name] == 1 else _tail(p, parts) for p, name in names.items()}
    return names


def value_name(value: Value | None) -> str:
    """A value with at most four significant digits; `none` where there is none.

    >>> value_name(0.00123456), value_name(None), value_name("xavier"), value_name(True)
    ('0.001235', 'none', 'xavier', 'true')
    """
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return label(text(value), 30)


def configuration_names(configurations: Iterable[Configuration]) -> dict[str, str]:
    """A name for each configuration, by identity: what tells it from the others of these.

    The name of the model comes first where there are several; a configuration alone has the name
    of its model.
    """
    distinct = tuple({c.id: c for c in configurations}.values())
    paths = [path for path in varying_paths(distinct) if path != "model.name"]
    several = len({c.model.name for c in distinct}) > 1
    names = path_names(paths)
    # What only one model has, the other's name need not deny; what one model has once and for
    # all tells nothing.
    fixed = _fixed_by_model(distinct, paths)

    def name(configuration: Configuration) -> str:
        parts = [configuration.model.name] if several or not paths else []
        parameters = configuration.parameters
        parts += [
            f"{names[path]} {value_name(parameters.get(path))}"
            for path in paths
            if (configuration.model.name, path) not in fixed
        ]
        full = ", ".join(parts) or configuration.model.name
        if len(full) <= LONGEST:
            return label(full)
        digits = configuration.id[-8:]
        return label(f"{full[: LONGEST - 12]}… ({digits})", LONGEST + 2)

    return {c.id: name(c) for c in distinct}


def best_of(model: ModelRuns) -> str:
    """Which configuration of a model is shown, and whether that is settled; empty for the one."""
    run = model.runs[0]
    text = ""
    if model.count > 1:
        names = configuration_names(one.configuration for one in model.runs)
        text = f"Best of {model.count} configurations: {names[run.configuration.id]}."
    return text if run.scores.complete else f"{text} Not every fold of it has finished.".strip()


def _fixed_by_model(
    configurations: Sequence[Configuration], paths: Sequence[str]
) -> set[tuple[str, str]]:
    """Models and paths of which all configurations here have one value, or none."""
    values: dict[tuple[str, str], set[str]] = {}
    for configuration in configurations:
        for path in paths:
            value = text(configuration.parameters.get(path))
            values.setdefault((configuration.model.name, path), set()).add(value)
    return {key for key, found in values.items() if len(found) == 1}


def _tail(path: str, parts: int) -> str:
    pieces = path.split(".")
    if pieces[-1] == "name" and parts == 1:
        pieces = pieces[:-1]
    return ".".join(pieces[-parts:])
