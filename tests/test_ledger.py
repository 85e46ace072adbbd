"""The ledger: what is written reads back, what is damaged is not believed, one driver at a time."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.spec import WaveformSpec
from models.spec import Cnn1dSpec
from orchestrator.errors import RunDirectoryError
from orchestrator.hyperparameters import SgdSpec, TrainSpec
from orchestrator.ledger import Ledger
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
from orchestrator.specification import FORMAT_VERSION
from orchestrator.trials import ClipRow, Configuration, Plan, Trial

CONFIGURATIONS = [
    Configuration(
        WaveformSpec(seconds=1.0), Cnn1dSpec(), TrainSpec(optimizer=SgdSpec(weight_decay=decay))
    )
    for decay in (0.0, 0.01)
]
PLAN = Plan(
    name="sweep",
    metric="val_accuracy",
    mode="max",
    classes=("dog", "rain"),
    clips=(ClipRow("a.wav", 0), ClipRow("b.wav", 1), ClipRow("c.wav", 1, "no audio")),
    trials=tuple(Trial(c, 1, fold, 0) for fold in (2, 3) for c in CONFIGURATIONS),
    merged=1,
)
FIRST = PLAN.trials[0]
TIMING = Timing("2026-01-02T03:04:05+00:00", 1.5, 1.25, 1, "host", "cpu")

finite = st.floats(allow_nan=False, allow_infinity=False)
scores = st.builds(Scores, *[finite] * 5, st.none() | finite, *[finite] * 3)
predictions = st.builds(
    Predictions,
    clips=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    labels=st.lists(st.integers(0, 1), max_size=3).map(tuple),
    predicted=st.lists(st.integers(0, 1), max_size=3).map(tuple),
    probabilities=st.lists(st.tuples(finite, finite), max_size=3).map(tuple),
)
split_results = st.builds(SplitResult, scores, predictions)


def record(trial: Trial = FIRST, loss: float = 0.5) -> TrialRecord:
    result = SplitResult(
        Scores(0.5, loss, 0.5, 0.5, 0.5, None, 0.5, 0.5, 0.5),
        Predictions((0, 1), (0, 1), (1, 1), ((0.1, 0.9), (0.2, 0.8))),
    )
    rows = (EpochRow(0, 0.1, loss, 0.5, loss, 0.5),)
    return TrialRecord(trial.id, 0, rows, result, None, ParameterCount(10, 8), TIMING)


def failure(trial: Trial = FIRST) -> TrialFailure:
    return TrialFailure(trial.id, "ValueError: no", "Traceback\n  …\nValueError: no\n", TIMING)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "results" / "sweep")


def result_file(ledger: Ledger, trial: Trial = FIRST) -> Path:
    return ledger.run_dir / "trials" / trial.id / "result.json"


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


class TestReadingBack:
    def test_a_plan(self, ledger: Ledger) -> None:
        assert ledger.read_plan() is None
        ledger.write_plan(PLAN)
        again = ledger.read_plan()
        assert again == PLAN
        assert [t.id for t in again.trials] == [t.id for t in PLAN.trials]

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        val=split_results,
        test=st.none() | split_results,
        losses=st.lists(finite, min_size=1, max_size=3),
        text=st.text(),
    )
    def test_any_record_exactly(
        self,
        ledger: Ledger,
        val: SplitResult,
        test: SplitResult | None,
        losses: list[float],
        text: str,
    ) -> None:
        rows = tuple(EpochRow(i, 1e-5, x, 0.1, -x, 0.3) for i, x in enumerate(losses))
        timing = replace(TIMING, host=text)
        written = TrialRecord(
            FIRST.id, len(rows) - 1, rows, val, test, ParameterCount(3, 2), timing
        )
        ledger.record(written)
        assert ledger.finished(PLAN) == {FIRST.id: written}

    def test_a_failure_and_its_traceback(self, ledger: Ledger) -> None:
        ledger.fail(failure())
        assert ledger.failures(PLAN) == {FIRST.id: failure()}
        folder = result_file(ledger).parent
        assert visible(folder) == ["failure.json", "traceback.txt"]
        assert (folder / "traceback.txt").read_text(encoding="utf-8") == failure().traceback

    def test_the_latest_failure_counts(self, ledger: Ledger) -> None:
        ledger.fail(failure())
        later = replace(failure(), error="KeyError: 'x'", traceback="other")
        ledger.fail(later)
        assert ledger.failures(PLAN) == {FIRST.id: later}

    def test_a_traceback_that_utf8_cannot_hold(self, ledger: Ledger) -> None:
        ledger.fail(replace(failure(), traceback="bad \udcff name"))
        assert ledger.failures(PLAN)[FIRST.id].traceback == "bad \\udcff name"

    def test_records_come_in_plan_order(self, ledger: Ledger) -> None:
        for trial in reversed(PLAN.trials):
            ledger.record(record(trial))
        expected = [t.id for t in PLAN.trials]
        assert [r.trial for r in ledger.records(PLAN)] == expected
        assert list(ledger.finished(PLAN)) == expected

    def test_trials_outside_the_plan_do_not_count(self, ledger: Ledger) -> None:
        ledger.record(record(Trial(CONFIGURATIONS[0], 1, 9, 0)))
        assert ledger.finished(PLAN) == {}
        assert ledger.pending(PLAN) == list(PLAN.trials)


class TestPending:
    def test_plan_order_without_the_finished(self, ledger: Ledger) -> None:
        ledger.record(record(PLAN.trials[1]))
        ledger.fail(failure(PLAN.trials[2]))
        left = [PLAN.trials[0], PLAN.trials[2], PLAN.trials[3]]
        assert ledger.pending(PLAN) == left
        assert ledger.pending(PLAN, keep_failed=True) == [PLAN.trials[0], PLAN.trials[3]]

    def test_a_record_ends_a_failure(self, ledger: Ledger) -> None:
        ledger.fail(failure())
        ledger.record(record())
        assert visible(result_file(ledger).parent) == ["result.json"]
        assert ledger.failures(PLAN) == {}

    def test_a_record_counts_for_more_than_a_failure(self, ledger: Ledger) -> None:
        ledger.record(record())
        ledger.fail(failure())
        assert FIRST not in ledger.pending(PLAN)
        assert ledger.failures(PLAN) == {}

    def test_files_of_a_killed_writer_are_harmless(self, ledger: Ledger) -> None:
        folder = result_file(ledger).parent
        folder.mkdir(parents=True)
        (folder / ".123-abcdef01.tmp").write_text('{"format_version": 1, "che')
        assert ledger.pending(PLAN) == list(PLAN.trials)
        ledger.record(record())
        assert ledger.finished(PLAN) == {FIRST.id: record()}


def _other_loss(text: str) -> str:
    data = json.loads(text)
    data["val"]["scores"]["loss"] = 0.4
    return json.dumps(data)


def _without_field(text: str) -> str:
    data = json.loads(text)
    del data["epochs"]
    return json.dumps(data)


class TestDamage:
    """Named in a warning, and the trial runs again."""

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: "",
            lambda text: "\x00" * len(text),
            lambda text: "[]",
            lambda text: "{}",
            lambda text: "[" * 100_000,
            lambda text: text.replace("0.5", "NaN"),
            _other_loss,
            _without_field,
        ],
        ids=[
            "empty",
            "zeros",
            "a list",
            "no fields",
            "nested",
            "NaN",
            "a changed number",
            "a missing field",
        ],
    )
    def test_damaged(self, ledger: Ledger, caplog: pytest.LogCaptureFixture, damage: Any) -> None:
        ledger.record(record())
        path = result_file(ledger)
        path.write_text(damage(path.read_text()))
        with caplog.at_level(logging.WARNING):
            assert ledger.finished(PLAN) == {}
        assert str(path) in caplog.text
        assert FIRST in ledger.pending(PLAN)
        ledger.record(record())
        assert ledger.finished(PLAN) == {FIRST.id: record()}

    def test_not_utf8(self, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
        ledger.record(record())
        result_file(ledger).write_bytes(b"\xff\xfe\x00garbage")
        assert ledger.finished(PLAN) == {}
        assert str(result_file(ledger)) in caplog.text

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_cut_off_anywhere(self, ledger: Ledger, data: st.DataObject) -> None:
        ledger.record(record())
        path = result_file(ledger)
        content = path.read_bytes().rstrip()
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        assert ledger.finished(PLAN) == {}

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_digit_changed_anywhere(self, ledger: Ledger, data: st.DataObject) -> None:
        ledger.record(record())
        path = result_file(ledger)
        content = path.read_text()
        start = content.index("checksum")  # after the version, which has tests of its own
        digits = [i for i, c in enumerate(content) if c in "12345678" and i > start]
        at = data.draw(st.sampled_from(digits))
        path.write_text(content[:at] + chr(ord(content[at]) + 1) + content[at + 1 :])
        assert ledger.finished(PLAN) == {}

    def test_of_another_trial(self, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
        ledger.record(record())
        other = result_file(ledger, PLAN.trials[1])
        other.parent.mkdir()
        other.write_bytes(result_file(ledger).read_bytes())
        assert list(ledger.finished(PLAN)) == [FIRST.id]
        assert str(other) in caplog.text
        assert FIRST.id in caplog.text

    def test_a_damaged_failure_is_none(self, ledger: Ledger) -> None:
        ledger.fail(failure())
        (result_file(ledger).parent / "failure.json").write_text("{")
        assert ledger.failures(PLAN) == {}
        assert FIRST in ledger.pending(PLAN, keep_failed=True)

    def test_a_damaged_plan_is_refused(self, ledger: Ledger) -> None:
        ledger.write_plan(PLAN)
        path = ledger.run_dir / "plan.json"
        path.write_text(path.read_text()[:-20])
        with pytest.raises(RunDirectoryError, match=r"plan\.json: damaged"):
            Ledger.open(ledger.run_dir).read_plan()


class TestVersion:
    @pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1.1", True, None])
    def test_another_version_of_a_record_is_refused(self, ledger: Ledger, version: object) -> None:
        ledger.record(record())
        path = result_file(ledger)
        # What a later version looks like inside is unknown: no field but the version counts.
        path.write_text(json.dumps({"format_version": version, "content": []}))
        with pytest.raises(RunDirectoryError) as caught:
            ledger.finished(PLAN)
        (line,) = caught.value.lines()
        assert str(path) in line
        assert f"found {json.dumps(version)}" in line

    def test_a_later_run_directory_is_refused_at_once(self, ledger: Ledger) -> None:
        plan = ledger.run_dir / "plan.json"
        plan.write_text(json.dumps({"format_version": FORMAT_VERSION + 1}))
        before = visible(ledger.run_dir)
        with pytest.raises(RunDirectoryError, match="format_version"):
            Ledger.open(ledger.run_dir)
        assert visible(ledger.run_dir) == before


class TestWriting:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_number_that_json_lacks(self, ledger: Ledger, value: float) -> None:
        with pytest.raises(ValueError, match="JSON compliant"):
            ledger.record(record(loss=value))
        assert ledger.pending(PLAN) == list(PLAN.trials)
        assert list(result_file(ledger).parent.iterdir()) == []

    def test_no_temporary_file_is_left(self, ledger: Ledger) -> None:
        ledger.write_plan(PLAN)
        ledger.record(record())
        assert visible(ledger.run_dir) == ["plan.json", "trials"]
        assert visible(result_file(ledger).parent) == ["result.json"]

    def test_a_full_disk_is_one_line_and_leaves_nothing(self, ledger: Ledger) -> None:
        script = (
            "import resource, sys; from pathlib import Path\n"
            "from orchestrator import atomic\n"
            "from orchestrator.errors import RunDirectoryError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "path = Path(sys.argv[1])\n"
            "atomic.write_text(path, 'old')\n"
            "try: atomic.write_text(path, 'x' * 5000)\n"
            "except RunDirectoryError as error: print(*error.lines(), sep='\\n')\n"
        )
        path = ledger.run_dir / "plan.json"
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == [f"{path}: cannot write: File too large"]
        assert path.read_text() == "old"
        assert visible(ledger.run_dir) == ["plan.json", "trials"]

    def test_a_folder_that_is_gone(self, ledger: Ledger) -> None:
        (ledger.run_dir / "trials").rmdir()
        (ledger.run_dir / "trials").write_text("a file")
        with pytest.raises(RunDirectoryError, match="cannot write"):
            ledger.record(record())

    def test_others_may_read_what_the_umask_lets_them(self, ledger: Ledger) -> None:
        ledger.record(record())
        umask = os.umask(0)
        os.umask(umask)
        assert result_file(ledger).stat().st_mode & 0o777 == 0o666 & ~umask


class TestOpening:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "results").write_text("")
        for run_dir in (tmp_path / "results", tmp_path / "results" / "sweep"):
            with pytest.raises(RunDirectoryError) as caught:
                Ledger.open(run_dir)
            (line,) = caught.value.lines()
            assert line.startswith(f"{run_dir}: ")

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
    def test_not_writable(self, tmp_path: Path) -> None:
        run_dir = tmp_path / "sweep"
        (run_dir / "trials").mkdir(parents=True)
        run_dir.chmod(0o555)
        with pytest.raises(RunDirectoryError, match="Permission denied"):
            Ledger.open(run_dir)

    def test_twice(self, ledger: Ledger) -> None:
        ledger.record(record())
        assert Ledger.open(ledger.run_dir).finished(PLAN) == {FIRST.id: record()}


HOLD = (
    "import sys, time; from pathlib import Path; from orchestrator.ledger import Ledger\n"
    "with Ledger.open(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
)


class TestLock:
    def test_one_driver_at_a_time(self, ledger: Ledger) -> None:
        other = Ledger.open(ledger.run_dir)
        with ledger.locked(), pytest.raises(RunDirectoryError) as caught, other.locked():
            pass
        assert caught.value.lines() == [f"{ledger.run_dir}: another run is using it"]
        with other.locked():
            pass

    def test_let_go_after_an_error(self, ledger: Ledger) -> None:
        with pytest.raises(KeyError), ledger.locked():
            raise KeyError
        with ledger.locked():
            pass

    def test_a_killed_driver_leaves_no_lock(self, ledger: Ledger) -> None:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(ledger.run_dir)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RunDirectoryError, match="another run"), ledger.locked():
                pass
            holder.send_signal(signal.SIGKILL)
            holder.wait(10)
            with ledger.locked():
                pass
        finally:
            holder.kill()
            holder.communicate()
