"""ReportView: what `report.html` shows, as text; its template has loops and conditions only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: as shown.
        key: what the column is sorted by where that is not the text; empty for a missing value.
    """

    text: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column.

    Attributes:
        title: its header.
        numeric: right-aligned, and sorted as numbers.
        code: names and values of the specification, set as code.
        long: sentences, which may take several lines.
    """

    title: str
    numeric: bool = False
    code: bool = False
    long: bool = False


@dataclass(frozen=True)
class TableView:
    """A table.

    Attributes:
        caption: what it is.
        columns: at least one.
        rows: as many cells as columns each.
        note: below the table: where the rest or the full precision stands.
        marked: index of the row that stands out.
        sortable: by each column, with a filter for its rows.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    marked: int | None = None
    sortable: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A name and its value.

    Attributes:
        name: of a parameter, a package, a file.
        value: as text.
        code: the value is code too.
    """

    name: str
    value: str
    code: bool = False


@dataclass(frozen=True, slots=True)
class StateView:
    """How far the sweep is.

    Attributes:
        word: e.g. `finished`; also the class that colours it.
        sentence: how many trials are where.
        times: when it started and ended, on what.
    """

    word: str
    sentence: str
    times: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A fold's value on a strip, from 0 (left) to 100 (right)."""

    at: str
    label: str


@dataclass(frozen=True)
class Strip:
    """One configuration's values over its folds on the scale that all strips share.

    Attributes:
        label: the configuration.
        value: mean and standard deviation.
        mean: its place.
        dots: one for each fold.
    """

    label: str
    value: str
    mean: Dot
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class BestView:
    """The best configuration.

    Attributes:
        configuration: its identity.
        score: mean and standard deviation with their unit.
        metric: what it is the best by.
        parameters: those that vary over the plan.
        folds: the value of each.
        verdict: how sure it is, in sentences, the first of which says it all.
        caveat: why even that is not to be taken too literally; empty with one configuration.
        runner_up: in one line; empty where there is none.
        comparison: what the statistics say of it, in a sentence; empty likewise.
        test: mean and standard deviation on the test fold; empty without one.
        test_words: what kind of test that is.
        strips: the first few configurations.
        scale: the strips' left and right end.
        scale_words: what the strips show.
    """

    configuration: str
    score: str
    metric: str
    parameters: tuple[Pair, ...]
    folds: TableView
    verdict: tuple[str, ...]
    caveat: str
    runner_up: str
    comparison: str
    test: str
    test_words: tuple[str, ...]
    strips: tuple[Strip, ...]
    scale: tuple[str, str]
    scale_words: str


@dataclass(frozen=True)
class Part:
    """A piece of a section under its own heading.

    Attributes:
        title: of the heading.
        text: paragraphs.
        pairs: names and values below them.
        tables: below these.
    """

    title: str
    text: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    tables: tuple[TableView, ...] = ()


@dataclass(frozen=True)
class SummaryView:
    """The run summaries of one run set.

    Attributes:
        title: the model and its settings.
        tables: one, or one for each fold.
        shown: open from the start.
    """

    title: str
    tables: tuple[TableView, ...]
    shown: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot.

    Attributes:
        anchor: unique in the page.
        title: one line.
        description: for those who cannot see it too.
        file: its name in the run directory.
        source: a data URI.
        width: pixels.
        height: pixels.
    """

    anchor: str
    title: str
    description: str
    file: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class PictureSection:
    """Plots that belong together."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class FailureView:
    """Trials that failed with one error.

    Attributes:
        error: exception type and first line.
        trials: the first of them.
        more: how many there are beside these.
        traceback: where the story of the first one stands.
    """

    error: str
    trials: tuple[str, ...]
    more: int
    traceback: str


@dataclass(frozen=True)
class TroubleView:
    """What did not go well.

    Attributes:
        failures: one for each error.
        failures_left_out: how many more errors there are.
        skipped: the clips left out; None where there are none.
        warnings: of the log.
    """

    failures: tuple[FailureView, ...]
    failures_left_out: int
    skipped: TableView | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """What to type for what."""

    purpose: str
    line: str


@dataclass(frozen=True)
class ReportView:
    """The whole report.

    Attributes:
        name: of the sweep.
        state: how far it is.
        headline: the result in one sentence.
        leakage: `data.allow_leakage` let a leak pass.
        best: None while no configuration has every fold.
        nested: what a nested cross-validation has found; None without one.
        setup: what was run.
        summaries: the reports' run summaries.
        summaries_note: how they are to be read, and which are left out.
        hyperparameters: the best ones; None while there are none.
        configurations: ranked.
        trials: hyperparameters and run summary of each.
        statistics: how sure the differences are, and what the choice of the epoch does.
        pictures: by section.
        trouble: what did not go well.
        environment: of the last start, and what changed before.
        packages: versions.
        specification: as YAML.
        commands: how to repeat it.
        files: of the run directory.
    """

    name: str
    state: StateView
    headline: str
    leakage: bool
    best: BestView | None
    nested: Part | None
    setup: tuple[Part, ...]
    summaries: tuple[SummaryView, ...]
    summaries_note: str
    hyperparameters: TableView | None
    configurations: TableView
    trials: TableView
    statistics: tuple[Part, ...]
    pictures: tuple[PictureSection, ...]
    trouble: TroubleView
    environment: tuple[Part, ...]
    specification: str
    commands: tuple[Command, ...]
    files: tuple[Pair, ...]
