"""How plan, ledger, tables, plots and report grow with the number of trials.

    python tests/benchmarks/growth.py [TRIALS ...] [--keep FOLDER]

For 100, 1,000 and 10,000 trials (or the numbers given) of ten epochs with 20 validation and 20
test clips of ten classes: a grid of two models, head counts, learning rates and weight decays over
four folds, planned by the real command; its records are synthetic and written by the real ledger.
10,000 trials take about three minutes on two cores and 0.4 GB of disk. Each phase runs in a
process of its own:

    plan               the command `foldgrid plan`, start of the process included
    write, read,       the ledger: every record written, durably; every record read and verified;
    pending            what is left to run, asked as at a continuation
    tables             every table but predictions.csv, in one pass over the records
    predictions.csv    what it adds to that pass
    plots, report      the pictures; report.html
    foldgrid report    the whole command: process, tables, predictions, plots, report

    json: write        what a user would do instead: json.dump of each record, fsync, rename
    json: read         json.load of each record
    pandas: tables     json.load of each record, trials and epochs into data frames, to_csv
    pandas: predictions.csv  likewise, what the predictions add

Columns, for each number of trials: wall and processor seconds (of the process and its children),
and the peak resident memory of the process, its imports included (MB). `growth` is the processor
time beside that of the number before, divided by the ratio of the numbers: 1.0 is linear, below
1.0 there is a constant part. `beside` is the processor time at the largest number over that of
the baseline named behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, FOLDS, EPOCHS = 10, 5, 10

SPEC = """\
name: growth
data: {dataset: manifest, root: ROOT, manifest: MANIFEST}
features: {kind: log_mel, seconds: 0.5, n_mels: 16, hop_length: 256}
folds: {test: 1}
model: {grid: [{name: cnn1d}, {name: cnn_transformer, heads: {grid: [1, 2, 4, 8]}}]}
train:
  epochs: 10
  optimizer: {name: adam, lr: {grid: RATES}, weight_decay: {grid: DECAYS}}
"""

BASELINES = {
    "write": "json: write",
    "read": "json: read",
    "pending": "json: read",
    "tables": "pandas: tables",
    "predictions.csv": "pandas: predictions.csv",
}


@dataclass(frozen=True)
class Cost:
    """Wall and processor seconds, and the peak resident memory in bytes."""

    wall: float
    processor: float
    memory: int

    def less(self, other: Cost) -> Cost:
        """What is spent beyond another measurement."""
        return Cost(self.wall - other.wall, self.processor - other.processor, self.memory)


def write_specification(folder: Path, trials: int) -> Path:
    """A specification of so many trials, and its clips: 20 a fold, of ten classes."""
    import soundfile

    rows = ["path,label,fold"]
    generator = np.random.default_rng(0)
    clips = folder / "clips"
    clips.mkdir()
    for i in range(20 * FOLDS):
        samples = generator.uniform(-0.5, 0.5, 800).astype(np.float32)
        soundfile.write(clips / f"{i:03}.wav", samples, 16000)
        rows.append(f"{i:03}.wav,class {i % CLASSES},{i // 20 + 1}")
    manifest = folder / "clips.csv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    points = max(1, trials // ((FOLDS - 1) * 5))
    rates = next(n for n in range(int(points**0.5), 0, -1) if points % n == 0)
    text = SPEC.replace("ROOT", str(clips)).replace("MANIFEST", str(manifest))
    text = text.replace("RATES", str([round(0.0001 * (i + 1), 6) for i in range(rates)]))
    decays = [round(0.00001 * (i + 1), 7) for i in range(points // rates)]
    path = folder / "spec.yaml"
    path.write_text(text.replace("DECAYS", str(decays)), encoding="utf-8")
    return path


def experiment(folder: Path) -> Any:
    """The specification with its data, as the commands make it."""
    from orchestrator.experiment import load_dataset, make_experiment
    from orchestrator.sweep import load_sweep

    sweep = load_sweep(folder / "spec.yaml", ())
    return make_experiment(sweep, load_dataset(sweep))


def records(made: Any) -> Iterator[Any]:
    """A record of every trial, with numbers of full length."""
    from orchestrator.records import (
        EpochRow,
        ParameterCount,
        Predictions,
        Scores,
        SplitResult,
        Timing,
        TrialRecord,
    )

    labels = [clip.label for clip in made.dataset.clips]
    splits = made.split_of
    generator = np.random.default_rng(1)

    def result(clips: list[int], skill: float) -> Any:
        logits = generator.normal(size=(len(clips), CLASSES))
        truth = [labels[i] for i in clips]
        logits[np.arange(len(clips)), truth] += skill
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        predicted = shares.argmax(axis=1)
        accuracy = float((predicted == truth).mean())
        spread = generator.uniform(0.8, 1.0, 7) * accuracy
        scores = Scores(accuracy, float(2.5 - skill), *map(float, spread))
        rows = tuple(map(tuple, shares.tolist()))
        given = Predictions(tuple(clips), tuple(truth), tuple(predicted.tolist()), rows)
        return SplitResult(scores, given)

    for trial in made.plan.trials:
        split = splits[trial.test_fold, trial.fold]
        skill = float(generator.uniform(0.5, 2.0))
        seconds = float(generator.uniform(8, 9))
        curves = np.sort(generator.uniform(0.1, 2.3, (EPOCHS, 4)), axis=0).tolist()
        yield TrialRecord(
            trial=trial.id,
            epoch=EPOCHS - 1,
            epochs=tuple(
                EpochRow(i, 0.001, 2.4 - row[0], row[1] / 2.3, 2.4 - row[2], row[3] / 2.3)
                for i, row in enumerate(curves)
            ),
            val=result(list(split.val), skill),
            test=result(list(split.test), skill),
            parameters=ParameterCount(100_000, 100_000),
            timing=Timing("2026-01-01T00:00:00+00:00", 10.0, seconds, 1, "host", "cpu"),
        )


def phase_write(folder: Path) -> Callable[[], None]:
    """Write every record with the ledger, and what else a sweep leaves."""
    from orchestrator.continuation import write_specification as store
    from orchestrator.ledger import Ledger
    from orchestrator.provenance import capture, write_runs

    made = experiment(folder)
    ledger = Ledger.open(folder / "run")
    store(ledger.run_dir, made.document)
    write_runs(ledger.run_dir, [capture(folder / "spec.yaml", made.plan.data, "ray").to_json()])
    ledger.write_plan(made.plan)
    every = records(made)
    return lambda: _timed_each(every, ledger.record)


def phase_json_write(folder: Path) -> Callable[[], None]:
    """Write every record as plain JSON, durably."""
    from dataclasses import asdict

    target = folder / "plain"
    target.mkdir()

    def write(record: Any) -> None:
        path = target / f"{record.trial}.json"
        with path.with_suffix(".tmp").open("w", encoding="utf-8") as stream:
            json.dump(asdict(record), stream)
            stream.flush()
            os.fsync(stream.fileno())
        path.with_suffix(".tmp").replace(path)

    every = records(experiment(folder))
    return lambda: _timed_each(every, write)


_SPENT = {"wall": 0.0, "processor": 0.0}
"""On making the records, which is no part of writing them."""


def _timed_each(every: Iterator[Any], write: Callable[[Any], None]) -> None:
    while True:
        wall, processor = time.perf_counter(), time.process_time()
        record = next(every, None)
        _SPENT["wall"] += time.perf_counter() - wall
        _SPENT["processor"] += time.process_time() - processor
        if record is None:
            return
        write(record)


def phase_read(folder: Path) -> Callable[[], None]:
    """Read and verify every record."""
    from orchestrator.run_directory import RunDirectory

    directory = RunDirectory(folder / "run")
    plan = directory.read_plan()
    assert plan is not None

    def read() -> None:
        assert sum(1 for _ in directory.records(plan)) == len(plan.trials)

    return read


def phase_pending(folder: Path) -> Callable[[], None]:
    """What is left to run."""
    from orchestrator.ledger import Ledger

    ledger = Ledger.open(folder / "run")
    plan = ledger.read_plan()
    assert plan is not None

    def pending() -> None:
        assert not ledger.pending(plan)

    return pending


def phase_all_tables(folder: Path) -> Callable[[], None]:
    """Every table."""
    from orchestrator.tables import write_tables

    def write() -> None:
        write_tables(folder / "run")

    return write


def phase_tables(folder: Path) -> Callable[[], None]:
    """Every table but the predictions."""
    from orchestrator import trial_tables

    every = trial_tables.trial_tables
    trial_tables.trial_tables = lambda plan: tuple(
        table for table in every(plan) if table.name != "predictions.csv"
    )
    return phase_all_tables(folder)


def phase_plots(folder: Path) -> Callable[[], None]:
    """Every picture, from results that the tables have read."""
    from orchestrator.outcomes import Results
    from orchestrator.plots import write_plots

    results = Results.read(folder / "run")

    def write() -> None:
        write_plots(results)

    return write


def phase_page(folder: Path) -> Callable[[], None]:
    """The page, from the tables and pictures that are there."""
    from orchestrator.outcomes import Results
    from orchestrator.plot import Plot
    from orchestrator.report import write_report

    paths = sorted((folder / "run" / "plots").glob("*.png"))
    plots = [Plot(path, "plots", path.stem, path.stem) for path in paths]
    plan = Results.read(folder / "run").plan

    def write() -> None:
        write_report(folder / "run", plots, running=False, plan=plan)

    return write


def phase_json_read(folder: Path) -> Callable[[], None]:
    """Load every record as plain JSON."""

    def read() -> None:
        for path in _results(folder):
            _load(path)

    return read


def _results(folder: Path) -> list[Path]:
    return sorted((folder / "run" / "trials").glob("*/result.json"))


def _load(path: Path) -> None:
    with path.open(encoding="utf-8") as stream:
        json.load(stream)


def phase_pandas_tables(folder: Path) -> Callable[[], None]:
    """Trials and epochs by pandas."""
    import pandas  # noqa: F401  (its import is no part of the measurement)

    return lambda: _pandas(folder, predictions=False)


def phase_pandas_all(folder: Path) -> Callable[[], None]:
    """Trials, epochs and predictions by pandas."""
    import pandas  # noqa: F401

    return lambda: _pandas(folder, predictions=True)


def _pandas(folder: Path, *, predictions: bool) -> None:
    import pandas as pd

    trials, epochs, answers = [], [], []
    for path in _results(folder):
        with path.open(encoding="utf-8") as stream:
            data = json.load(stream)
        row = {"trial": data["trial"], "epoch": data["epoch"]}
        for split in ("val", "test"):
            row |= {f"{split}_{k}": v for k, v in data[split]["scores"].items()}
            given = data[split]["predictions"]
            for i, clip in enumerate(given["clips"] if predictions else ()):
                answers.append([data["trial"], split, clip, *given["probabilities"][i]])
        trials.append(row)
        epochs += [{"trial": data["trial"]} | epoch for epoch in data["epochs"]]
    pd.DataFrame(trials).to_csv(folder / "trials.csv", index=False)
    pd.DataFrame(epochs).to_csv(folder / "epochs.csv", index=False)
    if predictions:
        pd.DataFrame(answers).to_csv(folder / "predictions.csv", index=False)


PHASES: dict[str, Callable[[Path], Callable[[], None]]] = {
    name.removeprefix("phase_"): value
    for name, value in list(globals().items())
    if name.startswith("phase_")
}


def run_phase(name: str, folder: Path) -> None:
    """Run one phase in this process and print what it cost; imports are made before."""
    body = PHASES[name](folder)
    wall, processor = time.perf_counter(), time.process_time()
    body()
    wall = time.perf_counter() - wall - _SPENT["wall"]
    processor = time.process_time() - processor - _SPENT["processor"]
    print(json.dumps([wall, processor, _bytes(resource.getrusage(resource.RUSAGE_SELF))]))


def _bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(name: str, folder: Path) -> Cost:
    """What a phase costs in a process of its own."""
    command = [sys.executable, __file__, "--phase", name, "--keep", str(folder)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Cost(*json.loads(out.splitlines()[-1]))


def command_cost(*words: str) -> Cost:
    """What a command costs, from its start to its end."""
    wall = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - wall
    if status:
        raise SystemExit(f"foldgrid {' '.join(words)} ended with {status}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, _bytes(usage))


def costs(folder: Path, trials: int) -> dict[str, Cost]:
    """Every phase for one number of trials."""
    path = write_specification(folder, trials)
    run_dir = folder / "run"
    found = {"plan": command_cost("plan", str(path))}
    found["write"] = measured("write", folder)
    found["read"] = measured("read", folder)
    found["pending"] = measured("pending", folder)
    found["tables"] = measured("tables", folder)
    found["predictions.csv"] = measured("all_tables", folder).less(found["tables"])
    # The first picture with a new cache looks for fonts, which belongs to no size.
    measured("plots", folder)
    found["plots"] = measured("plots", folder)
    found["report"] = measured("page", folder)
    found["foldgrid report"] = command_cost("report", str(run_dir))
    found["json: write"] = measured("json_write", folder)
    found["json: read"] = measured("json_read", folder)
    found["pandas: tables"] = measured("pandas_tables", folder)
    found["pandas: predictions.csv"] = measured("pandas_all", folder).less(found["pandas: tables"])
    return found


def print_table(table: dict[int, dict[str, Cost]]) -> None:
    """One row a phase."""
    sizes = list(table)
    print(f"{'':25}" + "".join(f"{f'{n:,} trials':>27}" for n in sizes))
    head = f"{'wall s':>9}{'CPU s':>8}{'MB':>10}"
    print(f"{'':25}{head * len(sizes)}{'growth':>16}  beside")
    for phase in table[sizes[0]]:
        found = [table[n][phase] for n in sizes]
        cells = "".join(f"{c.wall:9.2f}{c.processor:8.2f}{c.memory / 1e6:10.0f}" for c in found)
        growth = [
            found[i].processor / max(found[i - 1].processor, 1e-3) * sizes[i - 1] / sizes[i]
            for i in range(1, len(sizes))
        ]
        told = "".join(f"{g:8.2f}" for g in growth)
        baseline = BASELINES.get(phase)
        ratio = ""
        if baseline:
            beside = table[sizes[-1]][baseline].processor
            ratio = f"{found[-1].processor / max(beside, 1e-3):.2f} x {baseline}"
        print(f"{phase:25}{cells}{told:>16}  {ratio}".rstrip())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trials", nargs="*", type=int, default=[100, 1000, 10000])
    parser.add_argument("--keep", type=Path, help="make the run directories here, and keep them")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        run_phase(options.phase, options.keep)
        return
    with tempfile.TemporaryDirectory() as name:
        table = {}
        for trials in options.trials:
            folder = (options.keep or Path(name)) / str(trials)
            folder.mkdir(parents=True)
            table[trials] = costs(folder, trials)
        print_table(table)


if __name__ == "__main__":
    main()
