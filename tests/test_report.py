"""The report: one page that says what the tables say and needs nothing but itself."""

from __future__ import annotations

import csv
import json
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock

from features.spec import WaveformSpec
from models.spec import Cnn1dSpec, CnnTransformerSpec, ModelSpec
from orchestrator.configuration_scores import best_configuration, configuration_scores
from orchestrator.errors import RunDirectoryError
from orchestrator.hyperparameters import SgdSpec, TrainSpec
from orchestrator.ledger import Ledger
from orchestrator.plot import Plot
from orchestrator.records import (
    EpochRow,
    ParameterCount,
    Predictions,
    Scores,
    SplitResult,
    Timing,
    TrialFailure,
    TrialRecord,
)
from orchestrator.report import write_report
from orchestrator.score_text import ScoreText
from orchestrator.tables import write_tables
from orchestrator.trials import ClipRow, Configuration, Plan, Trial
from orchestrator.verdict import Certainty, Comparison, compare, judge, words

pytestmark = pytest.mark.pictures

CLASSES = ("dog", "rain")
CLIPS = tuple(ClipRow(f"{i}.wav", i % 2) for i in range(10))


def configuration(decay: float = 0.0, model: ModelSpec | None = None) -> Configuration:
    train = TrainSpec(epochs=2, optimizer=SgdSpec(weight_decay=decay))
    return Configuration(WaveformSpec(seconds=1.0), model or Cnn1dSpec(), train)


def plan_of(
    configurations: Sequence[Configuration],
    folds: Sequence[int] = (2, 3, 4, 5),
    seeds: Sequence[int] = (0,),
    test: int | None = 1,
    **changes: object,
) -> Plan:
    trials = [Trial(c, test, f, s) for f in folds for c in configurations for s in seeds]
    plan = Plan("a sweep", "val_accuracy", "max", CLASSES, CLIPS, tuple(trials))
    return replace(plan, **changes)  # type: ignore[arg-type]


def finish(trial: Trial, accuracy: float = 0.5, loss: float = 1.0) -> TrialRecord:
    def split(accuracy: float, clips: tuple[int, ...]) -> SplitResult:
        n = len(clips)
        scores = Scores(accuracy, loss, 0.5, 0.5, accuracy, None, 0.5, 0.5, 0.5)
        return SplitResult(scores, Predictions(clips, (0,) * n, (1,) * n, ((0.25, 0.75),) * n))

    return TrialRecord(
        trial=trial.id,
        epoch=1,
        epochs=tuple(EpochRow(i, 0.001, 2.0 - i, 0.25, loss, accuracy) for i in range(2)),
        val=split(accuracy, (0, 1, 2)),
        test=None if trial.test_fold is None else split(0.0625, (3, 4)),
        parameters=ParameterCount(641034, 641000),
        timing=Timing("2026-01-01T10:00:00+00:00", 90.0, 80.0, 1, "host", "cpu"),
    )


def failure(trial: Trial, error: str) -> TrialFailure:
    timing = Timing("2026-01-02T00:00:00+00:00", 0.5, 0.25, 3, "host", "cpu")
    return TrialFailure(trial.id, error, "Traceback", timing)


def write(
    run_dir: Path,
    plan: Plan,
    results: Iterable[TrialRecord | TrialFailure] = (),
    plots: Sequence[Plot] = (),
    running: bool | None = None,
) -> Page:
    """Write results, tables and report; the page as a browser's parser sees it."""
    ledger = Ledger.open(run_dir)
    ledger.write_plan(plan)
    for result in results:
        if isinstance(result, TrialRecord):
            ledger.record(result)
        else:
            ledger.fail(result)
    write_tables(run_dir)
    path = write_report(run_dir, plots, running=running)
    assert path == run_dir / "report.html"
    return Page.of(path.read_text(encoding="utf-8"))


def scored(plan: Plan, *accuracies: Sequence[float]) -> list[TrialRecord]:
    """A record for each trial: the accuracies of each configuration, fold by fold."""
    values = {
        (c.id, fold): value
        for c, of_folds in zip(plan.configurations, accuracies, strict=True)
        for fold, value in zip(dict.fromkeys(t.fold for t in plan.trials), of_folds, strict=True)
    }
    return [finish(t, values[t.configuration.id, t.fold]) for t in plan.trials]


@dataclass
class Page(HTMLParser):
    """What a parser finds in a page.

    Attributes:
        source: the HTML.
        attributes: every attribute with its tag.
        tables: rows of cell texts by caption.
        sections: the text of each `<section id>`.
        unclosed: tags that are open at the end, or closed in the wrong order.
    """

    source: str
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)
    unclosed: list[str] = field(default_factory=list)

    VOID = ("meta", "img", "input", "line", "circle", "br")

    @classmethod
    def of(cls, source: str) -> Page:
        page = cls(source)
        HTMLParser.__init__(page)
        page._stack: list[tuple[str, str]] = []  # type: ignore[misc]
        page._rows: list[list[str]] = []  # type: ignore[misc]
        page._caption = ""
        page.feed(source)
        page.close()
        page.unclosed += [tag for tag, _ in page._stack]
        return page

    @property
    def text(self) -> str:
        return " ".join(self.sections.values())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in found.items()]
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in self.VOID:
            self._stack.append((tag, found.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self._stack or self._stack[-1][0] != tag:
            self.unclosed.append(f"/{tag}")
            return
        self._stack.pop()
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        tags = [tag for tag, _ in self._stack]
        if "caption" in tags:
            self._caption += data
        elif "td" in tags or "th" in tags:
            self._rows[-1][-1] += data
        if "script" in tags or "style" in tags:
            return
        for tag, name in self._stack:
            if tag == "section" and name:
                self.sections[name] = self.sections.get(name, "") + data
        if "header" in tags:
            self.sections["head"] = self.sections.get("head", "") + data


def png(path: Path, width: int = 3, height: int = 2) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\0" * 3 * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def check_whole(page: Page) -> None:
    """Well-formed, and nothing in it points outside."""
    assert page.unclosed == []
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            local = value.startswith("#") and value[1:] in ids
            assert local or (tag == "img" and value.startswith("data:image/png;base64,")), value
        assert name != "style"
        assert not name.startswith("on")
    assert "http://" not in page.source
    assert "https://" not in page.source
    assert "url(" not in page.source
    assert "@import" not in page.source


class TestPage:
    def test_every_section_in_order_and_nothing_from_outside(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(0.0), configuration(0.01)])
        plots = [
            Plot(png(tmp_path / "plots/a.png"), "Curves", "Loss", "Loss over epochs."),
            Plot(png(tmp_path / "plots/b.png", 7, 5), "Matrices", "Fold 2", "Counts."),
            Plot(png(tmp_path / "plots/c.png"), "Curves", "Accuracy", "Accuracy over epochs."),
        ]
        page = write(tmp_path, plan, scored(plan, [0.5] * 4, [0.75] * 4), plots)
        check_whole(page)
        names = ("result", "setup", "summaries", "configurations", "statistics", "plots")
        expected = ["head", *names, "trouble", "environment", "repeat"]
        assert list(page.sections) == expected
        images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
        assert images == [
            "Loss. Loss over epochs.",
            "Accuracy. Accuracy over epochs.",
            "Fold 2. Counts.",
        ]
        assert page.source.index(">Curves<") < page.source.index(">Matrices<")
        assert ("img", "width", "7") in page.attributes

    def test_equal_run_directories_give_equal_pages(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(0.0), configuration(0.01)])
        results = scored(plan, [0.5] * 4, [0.75] * 4)
        first = write(tmp_path, plan, results).source
        write_report(tmp_path)
        assert (tmp_path / "report.html").read_text(encoding="utf-8") == first
        assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []

    def test_hostile_names_stay_text(self, tmp_path: Path) -> None:
        classes = ('<script>alert("x")</script>', "Tür & Tor's <b>")
        clips = (*CLIPS, ClipRow('"><img src=x onerror=y>.wav', 0, "<i>empty</i> file"))
        plan = plan_of([configuration()], (2, 3), name="s", classes=classes, clips=clips)
        error = "ValueError: </code><script>bad('1')</script> \x00\x1b[31m ümlaut"
        (tmp_path / "log.txt").write_text(
            "2026-01-01 10:00:00,000 WARNING orchestrator.runner: <u>odd</u>\n", encoding="utf-8"
        )
        (tmp_path / "spec.yaml").write_text("name: '<script>1</script>'\n", encoding="utf-8")
        picture = Plot(png(tmp_path / "plots/a.png"), "<h1>", '" onload="x', "<s>")
        page = write(
            tmp_path, plan, [finish(plan.trials[0]), failure(plan.trials[1], error)], [picture]
        )
        check_whole(page)
        assert page.source.count("<script>") == 1
        assert not re.search("[\x00\x1b]", page.source)
        assert classes[0] in page.sections["setup"]
        assert classes[1] in page.sections["setup"]
        assert "</code><script>bad('1')</script>" in page.sections["trouble"]
        assert "ümlaut" in page.sections["trouble"]
        assert "<u>odd</u>" in page.sections["trouble"]
        assert "name: '<script>1</script>'" in page.sections["repeat"]
        assert page.tables["Clips left out"][1] == [clips[-1].path, classes[0], "<i>empty</i> file"]

    def test_a_plot_that_is_gone_is_left_out(self, tmp_path: Path) -> None:
        plan = plan_of([configuration()], (2,))
        (tmp_path / "no.png").write_text("no picture")
        gone = [Plot(tmp_path / name, "s", name, "d") for name in ("gone.png", "no.png")]
        page = write(tmp_path, plan, [], gone)
        check_whole(page)
        assert "plots" not in page.sections

    def test_without_a_plan_or_tables_it_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(RunDirectoryError, match=r"no run directory: it has no plan\.json"):
            write_report(tmp_path)
        Ledger.open(tmp_path).write_plan(plan_of([configuration()]))
        with pytest.raises(RunDirectoryError, match="write the tables first"):
            write_report(tmp_path)
        assert not (tmp_path / "report.html").exists()


class TestNumbers:
    def test_configurations_as_in_the_table(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(d) for d in (0.0, 0.01, 0.1)], (2, 3))
        results = scored(plan, [0.5125, 0.475], [0.4875, 0.6], [0.3, 0.40625])
        page = write(tmp_path, plan, results)
        header, *rows = page.tables["Configurations by validation accuracy, higher is better"]
        with (tmp_path / "tables/configurations.csv").open(newline="") as file:
            written = {row["configuration"]: row for row in csv.DictReader(file)}
        assert header[:6] == [
            *("Rank", "Mean ± std, %", "Behind the best", "train.optimizer.weight_decay"),
            *("Fold 2", "Fold 3"),
        ]
        assert [row[0] for row in rows] == ["1", "2", "3"]
        assert [row[3] for row in rows] == ["0.01", "0", "0.1"]
        for row in rows:
            table = written[row[-1]]
            mean, std = (100 * float(table[f"{what}_val_accuracy"]) for what in ("mean", "std"))
            shown = [float(number) for number in row[1].split(" ± ")]
            assert shown == pytest.approx([mean, std], abs=0.00501)
            for fold, cell in ((2, row[4]), (3, row[5])):
                value = 100 * float(table[f"split{fold}_val_accuracy"])
                assert float(cell) == pytest.approx(value, abs=0.00501)
            assert row[0] == table["rank_val_accuracy"]
        assert [row[2] for row in rows] == ["0.00", "5.00", "19.06"]
        assert not any("est" in title for title in header if title != "Behind the best")

    def test_run_summaries_as_in_the_files(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(model=CnnTransformerSpec(heads=h)) for h in (1, 4)], (2, 3))
        page = write(tmp_path, plan, scored(plan, [0.5125, 0.4], [0.3, 0.2])[:3])
        assert page.tables["Validation fold 3"][0] == ["Metric", "Head 1", "Head 4"]
        rows = {row[0]: row[1:] for row in page.tables["Validation fold 2"]}
        assert rows["Epoch"] == ["1", "1"]
        assert rows["Validation Accuracy (%)"] == ["51.25", "30.00"]
        assert rows["Average Val Acc (%)"] == ["51.25", "40.63"]
        assert rows["Test F1 Score"] == ["0.063", "0.063"]
        rows = {row[0]: row[1:] for row in page.tables["Validation fold 3"]}
        assert rows["Validation Loss"] == ["1.000", "–"]

    def test_the_best_its_folds_and_its_test_score(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(0.0), configuration(0.01)], (2, 3))
        page = write(tmp_path, plan, scored(plan, [0.5125, 0.475], [0.4875, 0.6]))
        assert "cnn1d, weight_decay = 0.01 reaches a mean validation accuracy" in page.text
        assert "54.38 ± 5.63 %" in page.sections["result"]
        table = page.tables["Each fold of the best configuration"]
        assert [row[:2] for row in table[1:]] == [["Fold 2", "48.75"], ["Fold 3", "60.00"]]
        assert "6.25 ± 0.00 %" in page.sections["result"]
        assert "never used for any choice" in page.sections["result"]
        assert "better in 1 of 2 folds: too few folds to tell" in page.sections["result"]
        best = page.tables["Of the configurations with every fold finished"]
        assert ["train.optimizer.weight_decay", "0.01"] in best
        assert ["optimizer", "sgd"] in best
        assert best[-1] == ["mean ± std val_accuracy", "54.38 ± 5.63"]

    def test_what_was_run(self, tmp_path: Path) -> None:
        models = [configuration(model=CnnTransformerSpec(heads=2)), configuration(0.01)]
        plan = plan_of(models, (2, 3), merged=1)
        page = write(tmp_path, plan, scored(plan, [0.5] * 2, [0.4] * 2))
        setup = page.sections["setup"]
        assert "10 clips of 2 classes" in setup
        assert "Fold 1 is held out as the test fold, which no choice ever sees" in setup
        assert "folds 2 and 3 take turns to validate" in setup
        assert "Scores are those of the last epoch" in setup
        assert "1 equal configuration merged" in setup
        assert page.tables["Splits"][1:] == [["1", "2", "5", "3", "2"], ["1", "3", "5", "3", "2"]]
        counts = page.tables["Parameters of each model"]
        assert counts[1:] == [
            ["cnn_transformer", "641,034", "641,000", "34"],
            ["cnn1d", "641,034", "641,000", "34"],
        ]
        space = {row[0]: row[1] for row in page.tables["What varies"]}
        assert space["model.heads"] == "2; none for cnn1d"
        assert space["train.optimizer.weight_decay"] == "0, 0.01"

    def test_thousands_of_configurations_show_the_best(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(i / 1000) for i in range(250)], (2,))
        page = write(tmp_path, plan, [finish(t, i / 250) for i, t in enumerate(plan.trials)])
        check_whole(page)
        rows = page.tables["Configurations by validation accuracy, higher is better"][1:]
        assert [row[3] for row in rows] == [f"{i / 1000:g}" for i in range(249, 49, -1)]
        shown = "The first 200 of 250; all of them, in full precision: tables/configurations.csv"
        assert shown in page.sections["configurations"]
        assert "40 of 250 tables are shown" in page.sections["summaries"]


class TestStates:
    def test_nothing_has_run(self, tmp_path: Path) -> None:
        page = write(tmp_path, plan_of([configuration(0.0), configuration(0.01)]))
        check_whole(page)
        assert "not started 0 of 8 trials finished, 8 to go" in page.sections["head"]
        assert "No configuration of 2 has all its folds finished yet" in page.sections["result"]
        assert "Run the 8 trials left" in page.sections["repeat"]
        assert "no environment.json" in page.sections["environment"]

    def test_interrupted_and_partly_failed(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(0.0), configuration(0.01)])
        done = scored(plan, [0.5] * 4, [0.4] * 4)[:3]
        errors = [failure(t, "ValueError: no") for t in plan.trials[3:5]]
        page = write(tmp_path, plan, [*done, *errors])
        check_whole(page)
        head = page.sections["head"]
        assert "interrupted 3 of 8 trials finished, 2 failed, 3 to go" in head
        assert "Some trials failed" in head
        trouble = page.sections["trouble"]
        assert trouble.count("ValueError: no") == 1
        assert all(trial.id in trouble for trial in plan.trials[3:5])
        ranks = page.tables["Configurations by validation accuracy, higher is better"]
        assert [row[0] for row in ranks[1:]] == ["–", "–"]

    def test_every_trial_has_ended_but_some_failed(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(0.0), configuration(0.01)], (2,))
        results = [finish(plan.trials[0]), failure(plan.trials[1], "MemoryError")]
        page = write(tmp_path, plan, results)
        assert "finished with failures 1 of 2 trials finished" in page.sections["head"]
        assert "1 further configuration lacks" not in page.sections["result"]
        assert "No other configuration has finished every fold" in page.sections["result"]

    def test_a_driver_is_at_work(self, tmp_path: Path) -> None:
        plan = plan_of([configuration()], (2, 3))
        with FileLock(tmp_path / ".lock"):
            page = write(tmp_path, plan, [finish(plan.trials[0])])
            assert "running 1 of 2 trials finished" in page.sections["head"]
            page = write(tmp_path, plan, running=False)
            assert "interrupted 1 of 2 trials finished" in page.sections["head"]
        page = write(tmp_path, plan)
        assert "interrupted 1 of 2 trials finished" in page.sections["head"]
        page = write(tmp_path, plan, [finish(plan.trials[1])], running=True)
        assert "finished 2 of 2 trials finished." in page.sections["head"]

    def test_one_fold_and_no_test_fold(self, tmp_path: Path) -> None:
        plan = plan_of([configuration(0.0), configuration(0.01)], (1,), test=None)
        page = write(tmp_path, plan, scored(plan, [0.5], [0.6]))
        check_whole(page)
        assert "reaches a validation accuracy of 60.0 % over 1 fold" in page.sections["head"]
        result = page.sections["result"]
        assert "10.0 points lower in the only fold: too few folds to tell" in result
        assert "test" not in result.lower()
        assert "No fold is held out for a test" in page.sections["setup"]
        assert all("Test" not in cell for rows in page.tables.values() for cell in rows[0])

    def test_rotation_and_repeats(self, tmp_path: Path) -> None:
        one, other = configuration(0.0), configuration(0.01)
        trials = tuple(
            Trial(c, test, 1 + test % 3, seed)
            for test in (1, 2, 3)
            for c in (one, other)
            for seed in (0, 1)
        )
        plan = replace(plan_of([one]), trials=trials)
        page = write(tmp_path, plan, [finish(t, 0.5 + t.seed / 10) for t in trials])
        check_whole(page)
        assert "over 3 folds and 2 seeds" in page.sections["head"]
        assert "Mean test accuracy over the 3 test folds" in page.sections["result"]
        assert "Rotation over 3 folds" in page.sections["setup"]
        header = page.tables["Configurations by validation accuracy, higher is better"][0]
        assert "Fold 2, seed 1" in header
        assert "has the same mean and is equal in every fold: a tie" in page.sections["result"]

    def test_leakage_is_said_where_nobody_can_miss_it(self, tmp_path: Path) -> None:
        plan = plan_of([configuration()], (2,), leakage_allowed=True)
        page = write(tmp_path, plan, [finish(plan.trials[0])])
        check_whole(page)
        assert "Leakage was allowed." in page.sections["head"]
        assert page.tables["One column a fold"][0] == ["Metric", "Fold 2"]
        clean = write(tmp_path / "clean", plan_of([configuration()], (2,)))
        assert "Leakage" not in clean.text

    def test_environments_and_specification(self, tmp_path: Path) -> None:
        start = {
            "started": "2026-01-01T09:59:30+00:00",
            "python": "3.12.1",
            "packages": {"torch": "2.11.0"},
            "processor": "A chip",
            "git_commit": "0" * 40,
            "specification": "/somewhere/spec.yaml",
            "executor": "ray",
        }
        again = start | {"started": "2026-01-02T08:00:00+00:00", "packages": {"torch": "2.11.1"}}
        environment = json.dumps({"runs": [start, again | {"later_field": 1}]})
        (tmp_path / "environment.json").write_text(environment)
        spec = "name: s\ndata: {dataset: folder, root: /d}\nsearch: {method: random, samples: 7}\n"
        (tmp_path / "spec.yaml").write_text(spec)
        page = write(tmp_path, plan_of([configuration()], (2,)))
        assert "Started 2026-01-01 09:59 UTC, continued 1 time" in page.sections["head"]
        assert "torch: 2.11.0 then, 2.11.1 now" in page.sections["environment"]
        assert "0" * 40 in page.sections["environment"]
        assert spec in page.sections["repeat"]
        assert "Random search with 7 draws" in page.sections["setup"]
        assert "folder" in page.sections["setup"]
        name = tmp_path.name
        assert f"foldgrid run {name}/spec.yaml --out {name}-again" in page.sections["repeat"]


class TestVerdict:
    @pytest.mark.parametrize(
        ("wins", "losses", "chance", "certainty"),
        [
            (1, 0, 1.0, Certainty.TOO_CLOSE),
            (3, 0, 0.25, Certainty.TOO_CLOSE),
            (2, 2, 1.0, Certainty.TOO_CLOSE),
            (4, 0, 0.125, Certainty.LEAD),
            (4, 1, 0.375, Certainty.TOO_CLOSE),
            (5, 0, 0.0625, Certainty.LEAD),
            (6, 0, 0.03125, Certainty.CLEAR),
            (9, 1, 22 / 1024, Certainty.CLEAR),
        ],
    )
    def test_sign_test(self, wins: int, losses: int, chance: float, certainty: Certainty) -> None:
        comparison = Comparison(0.1, wins, losses, 0)
        assert comparison.chance == pytest.approx(chance)
        assert comparison.certainty is certainty

    def test_known_sentences(self) -> None:
        plan = plan_of([configuration(0.0), configuration(0.01)])
        assert self.said(plan, [0.5, 0.6, 0.5, 0.6], [0.55, 0.55, 0.55, 0.5])[0] == (
            "The runner-up is 1.3 points lower on average and better in 2 of 4 folds:"
            " too close to call."
        )
        assert self.said(plan, [0.5, 0.6, 0.5, 0.6], [0.4, 0.5, 0.4, 0.5]) == [
            "The runner-up is 10.0 points lower on average and better in none of 4 folds:"
            " a lead, but no proof.",
            "Two equally good configurations would come out at least as unevenly in 1 of 8 cases"
            " (sign test).",
        ]
        assert self.said(plan, [0.5, 0.6, 0.3, 0.6], [0.6, 0.5, 0.35, 0.55])[0] == (
            "The runner-up has the same mean and is better in 2 of 4 folds:"
            " a tie that the plan's order broke."
        )
        close = self.said(plan, [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.4999])[0]
        assert close.startswith("The runner-up is less than 0.1 points lower on average")
        assert "(equal in 1)" in self.said(plan, [0.5] * 4, [0.5, 0.4, 0.4, 0.4])[0]

    def test_less_is_better_for_a_loss(self) -> None:
        plan = plan_of([configuration(0.0), configuration(0.01)], metric="val_loss", mode="min")
        first = self.said(plan, [0.5, 0.5, 0.5, 0.5], [0.7, 0.7, 0.7, 0.7])[0]
        assert first.startswith("The runner-up is 0.200 higher on average and better in none of 4")

    def test_alone(self) -> None:
        plan = plan_of([configuration(0.0)])
        assert "only configuration" in self.said(plan, [0.5] * 4)[0]

    def test_how_many_others_are_close(self) -> None:
        plan = plan_of([configuration(d) for d in (0.0, 0.1, 0.2, 0.3)])
        said = self.said(plan, [0.5] * 4, [0.4] * 4, [0.6, 0.4, 0.4, 0.5], [0.1] * 4)
        assert "Of the 3 other complete configurations, 1 is too close" in said[-1]

    def test_seeds_of_a_fold_count_once(self) -> None:
        plan = plan_of([configuration(0.0), configuration(0.1)], (2, 3), seeds=(0, 1, 2))
        values = {t.id: 0.5 - t.configuration.train.optimizer.weight_decay for t in plan.trials}
        scores = configuration_scores(plan, values)
        best = best_configuration(plan, values)
        assert best is not None
        verdict = judge(scores, best, "max")
        assert verdict.comparison is not None
        assert verdict.comparison.folds == 2
        assert verdict.certainty is Certainty.TOO_CLOSE

    def test_only_common_folds_are_compared(self) -> None:
        comparison = compare({(1, 2): 0.5, (1, 3): 0.4}, {(1, 3): 0.3, (1, 4): 0.9}, "max")
        assert (comparison.wins, comparison.folds) == (1, 1)
        assert comparison.difference == pytest.approx(0.1)

    @staticmethod
    def said(plan: Plan, *values: Sequence[float]) -> list[str]:
        of_trials: dict[str, float | None] = {}
        for configuration, of_folds in zip(plan.configurations, values, strict=True):
            own = [t for t in plan.trials if t.configuration.id == configuration.id]
            of_trials |= {t.id: v for t, v in zip(own, of_folds, strict=True)}
        best = best_configuration(plan, of_trials)
        assert best is not None
        verdict = judge(configuration_scores(plan, of_trials), best, plan.mode)
        return words(verdict, ScoreText(plan.metric), plan.mode)
