"""What was run, said in a report: data, folds, features, models, training and search space."""

from __future__ import annotations

from collections import Counter

from orchestrator.csv_files import text
from orchestrator.report_source import SplitSize
from orchestrator.report_view import Cell, Column, Pair, Part, TableView
from orchestrator.score_text import MISSING, counted, listed, value_text
from orchestrator.standing import Standing
from orchestrator.trials import Configuration, Value, comparable

_MOST_VALUES = 12
_MOST_CLASSES = 100
_MOST_SPLITS = 50
_UNITS = {
    "sample_rate": "Hz",
    "f_min": "Hz",
    "f_max": "Hz",
    "seconds": "s",
    "hop": "s",
    "top_db": "dB",
}
_SELECT = {
    "last": "Scores are those of the last epoch.",
    "best": (
        "Scores are those of the epoch with the highest validation accuracy (train.select: best):"
        " validation scores are a little too good for it, test scores are not."
    ),
}


def setup_parts(standing: Standing) -> tuple[Part, ...]:
    """What was run."""
    return (
        _data(standing),
        _protocol(standing),
        _section(standing, "features", "Features"),
        _models(standing),
        _training(standing),
        _search(standing),
    )


def _data(standing: Standing) -> Part:
    plan, settings = standing.plan, standing.source.settings
    usable = [clip for clip in plan.clips if not clip.problem]
    left_out = len(plan.clips) - len(usable)
    n = counted(len(plan.classes), "class", "classes")
    paragraphs = [f"{counted(len(usable), 'clip')} of {n}."]
    if left_out:
        paragraphs[0] += f" {counted(left_out, 'clip')} could not be read and left out (see below)."
    of_class = Counter(clip.label for clip in usable)
    names = list(plan.classes[:_MOST_CLASSES])
    if len(set(of_class.values())) == 1 and len(of_class) == len(plan.classes):
        each = next(iter(of_class.values()))
        paragraphs.append(f"Classes, {counted(each, 'clip')} each: {', '.join(names)}")
    else:
        counts = [f"{name} ({of_class[label]:,})" for label, name in enumerate(names)]
        paragraphs.append(f"Classes (clips): {', '.join(counts)}")
    more = len(plan.classes) - len(names)
    paragraphs[-1] += f" and {more:,} more." if more else "."
    pairs = [Pair("data set", settings.data.dataset, code=True)] if settings else []
    if settings and settings.data.source_pattern:
        pairs.append(Pair("source pattern", settings.data.source_pattern, code=True))
    return Part("Data", tuple(paragraphs), tuple(pairs))


def _protocol(standing: Standing) -> Part:
    splits = standing.source.splits
    plan = standing.plan
    seeds = sorted({trial.seed for trial in plan.trials})
    sentences = [_who_tests(standing)]
    if len(seeds) > 1:
        sentences.append(
            f"Each is repeated with {len(seeds)} seeds, {seeds[0]} to {seeds[-1]}; a score is the"
            " mean over folds and seeds."
        )
    better = "higher" if plan.mode == "max" else "lower"
    sentences.append(
        f"Configurations are ranked by the mean {standing.metric.title} over their folds, {better}"
        " is better, equal ones in the plan's order."
    )
    if plan.leakage_allowed:
        sentences.append(
            "Sources or equal files stand in two folds and data.allow_leakage let them pass."
        )
    tables = (_split_table(splits),) if any(split.val for split in splits) else ()
    return Part("Folds", (" ".join(sentences),), (), tables)


def _who_tests(standing: Standing) -> str:
    pairs = list(dict.fromkeys((t.test_fold, t.fold) for t in standing.plan.trials))
    tests = list(dict.fromkeys(test for test, _ in pairs))
    if standing.plan.protocol == "nested":
        return (
            f"Nested cross-validation over {len(tests)} folds: for each one as the test fold, the"
            " others take turns to validate and the rest trains; the configuration that is best"
            " there is trained anew on all of them and tested once."
        )
    validate = [str(fold) for fold in dict.fromkeys(fold for _, fold in pairs)]
    if len(tests) > 1:
        return (
            f"Rotation over {len(tests)} folds: each tests once, the fold beside it validates, the"
            " others train. No choice sees the test fold of its own round."
        )
    turns = (
        f"fold {validate[0]} validates, the other folds train"
        if len(validate) == 1
        else f"folds {listed(validate)} take turns to validate, the other folds train"
    )
    if tests == [None]:
        return f"{turns[0].upper()}{turns[1:]}. No fold is held out for a test."
    return f"Fold {tests[0]} is held out as the test fold, which no choice ever sees; {turns}."


def _split_table(splits: tuple[SplitSize, ...]) -> TableView:
    has_test = any(split.test_fold is not None for split in splits)
    columns = [
        *([Column("Test fold", numeric=True)] if has_test else []),
        Column("Validation fold", numeric=True),
        Column("Training clips", numeric=True),
        Column("Validation clips", numeric=True),
        *([Column("Test clips", numeric=True)] if has_test else []),
    ]
    rows = tuple(
        (
            *([Cell(text(split.test_fold))] if has_test else []),
            Cell(str(split.fold)),
            _clips(split.train, split),
            _clips(split.val, split),
            *([_clips(split.test, split)] if has_test else []),
        )
        for split in splits[:_MOST_SPLITS]
    )
    note = f"The first {_MOST_SPLITS} of {len(splits):,}." if len(splits) > _MOST_SPLITS else ""
    return TableView("Splits", tuple(columns), rows, note)


def _clips(n: int, split: SplitSize) -> Cell:
    return Cell(f"{n:,}" if split.val else MISSING)


def _section(standing: Standing, section: str, title: str) -> Part:
    """The values of a section; those that vary with every value they take."""
    return Part(title, (), _pairs(standing.plan.configurations, section))


def _pairs(configurations: tuple[Configuration, ...], section: str) -> tuple[Pair, ...]:
    values: dict[str, dict[object, Value]] = {}
    for configuration in configurations:
        for path, value in configuration.parameters.items():
            if path.startswith(f"{section}."):
                values.setdefault(path, {})[comparable(value)] = value
    return tuple(
        Pair(path.partition(".")[2], _values(path, list(found.values())), code=True)
        for path, found in values.items()
    )


def _values(path: str, found: list[Value]) -> str:
    """Every value, or the range of many, with its unit."""
    unit = _UNITS.get(path.rpartition(".")[2], "")
    numbers = [v for v in found if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(found) <= _MOST_VALUES:
        shown = ", ".join(value_text(value) for value in found)
    elif len(numbers) == len(found):
        shown = f"{value_text(min(numbers))} to {value_text(max(numbers))} ({len(found):,} values)"
    else:
        first = ", ".join(value_text(value) for value in found[:_MOST_VALUES])
        shown = f"{first}, ... ({len(found):,} values)"
    return f"{shown} {unit}" if unit else shown


def _models(standing: Standing) -> Part:
    rows = []
    table = standing.source.table("parameters.csv")
    for row in table.rows if table else ():
        cells = [Cell(f"{int(cell):,}") for cell in row[1:4]]
        rows.append((Cell(row[0]), *cells))
    columns = (
        Column("Model", code=True),
        Column("Parameters", numeric=True),
        Column("Trainable", numeric=True),
        Column("Non-trainable", numeric=True),
    )
    tables = (TableView("Parameters of each model", columns, tuple(rows)),) if rows else ()
    title = "Models" if len(standing.models) > 1 else "Model"
    return Part(title, (), _pairs(standing.plan.configurations, "model"), tables)


def _training(standing: Standing) -> Part:
    configurations = standing.plan.configurations
    selects = dict.fromkeys(c.train.select for c in configurations if c.train)
    sentences = [_SELECT.get(select, select) for select in selects]
    words = sentences[0] if len(sentences) == 1 else "train.select varies: " + " / ".join(sentences)
    fitted = dict.fromkeys(c.model.name for c in configurations if c.train is None)
    paragraphs = [words] if selects else []
    if fitted:
        paragraphs.append(
            f"{listed(list(fitted))}: fitted in one go by scikit-learn, which stands as epoch 0;"
            " training scores are those of the fitted model."
        )
    return Part("Training", tuple(paragraphs), _pairs(configurations, "train"))


def _search(standing: Standing) -> Part:
    plan, settings = standing.plan, standing.source.settings
    n, trials = len(plan.configurations), len(plan.trials)
    how = "Grid"
    if settings is not None and settings.search.method != "grid":
        how = f"{settings.search.method.capitalize()} search"
        if settings.search.samples:
            how += f" with {counted(settings.search.samples, 'draw')}"
    words = f"{how}: {counted(n, 'configuration')}, {counted(trials, 'trial')}."
    if plan.merged:
        words += f" {counted(plan.merged, 'equal configuration')} merged into others."
    if not plan.varying:
        return Part("Search space", (f"{words} Nothing varies.",))
    rows = tuple(_space_row(standing, path) for path in plan.varying)
    columns = (
        Column("Parameter", code=True),
        Column("Values", long=True),
        Column("Number", numeric=True),
    )
    return Part("Search space", (words,), (), (TableView("What varies", columns, rows),))


def _space_row(standing: Standing, path: str) -> tuple[Cell, ...]:
    configurations = standing.plan.configurations
    found = {
        comparable(c.parameters[path]): c.parameters[path]
        for c in configurations
        if path in c.parameters
    }
    values = _values(path, list(found.values()))
    without = dict.fromkeys(c.model.name for c in configurations if path not in c.parameters)
    if without:
        values += f"; none for {listed(list(without))}"
    return Cell(path), Cell(values), Cell(f"{len(found):,}")
