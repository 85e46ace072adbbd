"""Thousands of wrong inputs, and how the program ends with each.

    python tests/benchmarks/mutations.py [--specifications 2000] [--audio 2000] [--manifests 500]
                                         [--seed 0] [--workers 2] [--only KIND:NUMBER]

Mutated specifications go through `foldgrid plan`, each twentieth through `run --executor serial`;
mutated audio files through the reader one by one, and in folders of 25 through `data check`,
`features` and `data repair`; mutated manifests through `plan` and `data check`. Each case is made
from (seed, kind, number) alone: `--only specification:17` repeats one and shows what it says.

Prints how many cases ended how, and every violation: a traceback, an exit code other than 0, 1
and 2, more than six lines or anything unprintable on standard error, a case that took too long or
ended its process, too much memory, a file outside the run directory and the cache. Exit code 1
where there is one.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import hostile_audio
import hostile_manifests
import hostile_specifications
import numpy as np
import soundfile

LIMITS = {"specification": 30, "run": 120, "audio": 20, "folder": 120, "manifest": 30}
"""Seconds for a case of each kind, on a machine that does other things too."""

CHUNK = {"specification": 50, "run": 10, "audio": 200, "folder": 10, "manifest": 50}
"""Cases that one process goes through."""

FOLDER = 25
"""Audio files that make a folder."""

MEMORY = 3 * 2**30
"""Bytes of address space that a case may take beyond what its process has before."""

RESIDENT = 3 * 2**29
"""Bytes of memory that a case may really fill beyond that."""

CLASSES = ("high", "low")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    out: str
    err: str
    violations: list[str]

    @property
    def outcome(self) -> str:
        return f"exit {self.code}"


def call(*arguments: str) -> Ended:
    """The command line in this process, what it and its libraries write caught below Python."""
    from orchestrator import cli

    sys.argv = ["foldgrid", *arguments]
    code: object = None
    problem = ""
    with _caught() as texts:
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            problem = traceback.format_exc()
    out, err = (path.read_text(encoding="utf-8", errors="backslashreplace") for path in texts)
    if "SHOW" in os.environ:
        shown = f"foldgrid {' '.join(arguments)}\n{out}{err}{problem}"
        print(shown.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
    number = code if isinstance(code, int) else None
    return Ended(number, out, err, _violations(number, err, problem))


def _violations(code: int | None, err: str, problem: str) -> list[str]:
    found = []
    if problem:
        found.append(f"traceback: {problem.strip().splitlines()[-1][:200]} ({_where(problem)})")
    elif code not in (0, 1, 2):
        found.append(f"exit code {code}")
    lines = err.split("\n")[:-1]
    if len(lines) > 6:
        found.append(f"{len(lines)} lines on stderr: {lines[0][:100]!r}")
    for sign in ("Traceback", "Warning:", "Exception ignored", "cffi callback"):
        if sign in err:
            found.append(f"{sign} on stderr: {lines[-1][:200]!r}")
    if any(not line.isprintable() for line in lines):
        found.append("unprintable characters on stderr")
    if any(len(line) > 3000 for line in lines):
        found.append("a line of more than 3000 characters on stderr")
    if code in (1, 2) and not err and not problem:
        found.append(f"nothing on stderr with exit code {code}") if code == 2 else None
    return found


def _where(problem: str) -> str:
    lines = [line.strip() for line in problem.splitlines() if line.strip().startswith("File ")]
    return lines[-1].split("/")[-1] if lines else ""


@contextmanager
def _caught() -> Iterator[tuple[Path, Path]]:
    sys.stdout.flush()
    sys.stderr.flush()
    folder = Path(os.environ["CASE"])
    paths = (folder / "stdout", folder / "stderr")
    saved = [os.dup(1), os.dup(2)]
    for number, path in zip((1, 2), paths, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    try:
        yield paths
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)


# The cases: each gives its outcomes, one or more, and its violations.

Verdict = tuple[list[str], list[str]]


def _specification(seed: int, number: int, case: Path, run: bool) -> Verdict:
    made = hostile_specifications.specification(seed, number, run)
    path = case / "spec.yaml"
    path.write_bytes(made.content)
    (case / "own_model.py").write_text(hostile_specifications.OWN_MODEL_CODE)
    # No command line holds NUL, or text that is no file name.
    options = [o for o in made.options if "\0" not in o and "\ud800" not in o]
    sets = [part for option in options for part in ("--set", option)]
    ended = call("plan", str(path), *sets)
    outcomes, violations = [f"plan: {ended.outcome}"], list(ended.violations)
    if ended.code == 0:
        violations += _round_trip(path, options)
        if run and _is_small(path, sets):
            ran = call("run", str(path), *sets, "--executor", "serial", "--quiet")
            outcomes.append(f"run: {ran.outcome}")
            violations += ran.violations + _tables(Path("results"))
    return outcomes, violations


def _is_small(path: Path, sets: list[str]) -> bool:
    ended = call("plan", str(path), *sets, "--json")
    plan = json.loads(ended.out) if ended.code == 0 else {}
    if ended.code or plan["feature_bytes"] > 5e7 or len(plan["trials"]) > 8:
        return False
    return all(c["parameters"]["train.epochs"] <= 2 for c in plan["configurations"])


def _round_trip(path: Path, options: list[str]) -> list[str]:
    """An accepted specification is the same again when its stored form is read."""
    from orchestrator.sweep import load_sweep
    from orchestrator.yaml_source import dump

    stored = path.with_name("stored.yaml")
    try:
        sweep = load_sweep(path, options)
        stored.write_text(dump(sweep.document), encoding="utf-8")
        again = load_sweep(stored)
    except Exception:
        problem = traceback.format_exc()
        return [f"stored form: {problem.strip().splitlines()[-1][:200]} ({_where(problem)})"]
    same = [c.id for c in sweep.configurations] == [c.id for c in again.configurations]
    return [] if same and sweep.settings == again.settings else ["stored form reads differently"]


def _tables(results: Path) -> list[str]:
    """Every table of a run reads as CSV, each row as long as its header."""
    found = []
    for path in results.glob("*/tables/*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
        if not rows or any(len(row) != len(rows[0]) for row in rows):
            found.append(f"{path.name} has rows of several lengths")
    return found


def _plan(seed: int, number: int, case: Path) -> Verdict:
    return _specification(seed, number, case, run=False)


def _run(seed: int, number: int, case: Path) -> Verdict:
    return _specification(seed, number, case, run=True)


def _audio(seed: int, number: int, case: Path) -> Verdict:
    from features.audio import BadClip, fit_length, read_clip
    from features.clips import Clip, Dataset
    from features.inspection import inspect

    content = hostile_audio.audio_file(seed, number).content
    path = case / "clip.wav"
    path.write_bytes(content)
    clip = Clip(path.name, 0, None, path.name, hashlib.sha256(content).hexdigest())
    dataset = Dataset("folder", case, ("x",), (clip,))
    outcome, problem = "read", ""
    with _caught() as texts:
        try:
            looked, _ = inspect(PurePosixPath(path.name), content)
            try:
                samples = fit_length(read_clip(dataset, clip, 16_000), 8_000, "pad")
                if samples.shape != (8_000,) or not np.isfinite(samples).all():
                    outcome = "read, wrongly"
            except BadClip as bad:
                outcome = f"bad clip: {re.split(':| up to | at ', str(bad))[0]}"
            if looked.problem and outcome == "read":
                outcome = "read, against the inspection"
        except BaseException:
            problem = traceback.format_exc()
    err = texts[1].read_text(errors="backslashreplace")
    violations = [v for v in _violations(0, err, problem) if "lines on stderr" not in v]
    if err and not violations:
        violations = [f"written to stderr by a library: {err.splitlines()[-1][:200]!r}"]
    if outcome.startswith("read, ") or "memory" in outcome:
        violations.append(outcome)
    return [outcome if not problem else "traceback"], violations


def _folder(seed: int, number: int, case: Path) -> Verdict:
    root = case / "clips"
    for i in range(FOLDER):
        made = hostile_audio.audio_file(seed, number * FOLDER + i)
        folder = root / CLASSES[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        suffix = random.Random(i).choice([".wav", ".flac", ".ogg", ".mp3", ".raw", ".txt", ""])
        (folder / f"{i}{suffix}").write_bytes(made.content)
    spec = case / "spec.yaml"
    lines = [
        f"data: {{dataset: folder, root: '{root}', on_bad_clip: skip, allow_leakage: true}}",
        "features: {kind: waveform, sample_rate: 8000, seconds: 1.0}",
        "folds: {k: 2}",
        "model: {name: cnn1d}",
    ]
    spec.write_text("\n".join(lines), encoding="utf-8")
    table = str(case / "check.csv")
    commands = {
        "data check": ("data", "check", str(spec), "--out", table, "--quiet"),
        "features, skip": ("features", str(spec), "--quiet"),
        "features, refuse": ("features", str(spec), "--quiet", "--set", "data.on_bad_clip=refuse"),
        "data repair": ("data", "repair", str(root), str(case / "repaired"), "--quiet"),
    }
    outcomes, violations = [], []
    for name, arguments in commands.items():
        ended = call(*arguments)
        outcomes.append(f"{name}: {ended.outcome}")
        violations += [f"{name}: {violation}" for violation in ended.violations]
    return outcomes, violations


def _manifest(seed: int, number: int, case: Path) -> Verdict:
    data = Path(os.environ["DATA"])
    paths = sorted(p.relative_to(data).as_posix() for p in data.glob("*/*.wav"))
    rows = [["path", "label", "fold", "source"]]
    rows += [[p, p.partition("/")[0], str(i % 4), f"s{i}"] for i, p in enumerate(paths)]
    path = case / "manifest.csv"
    path.write_bytes(hostile_manifests.manifest(seed, number, rows))
    spec = case / "spec.yaml"
    lines = [
        f"data: {{dataset: manifest, manifest: '{path}', root: '{data}', on_bad_clip: skip}}",
        "features: {kind: waveform, sample_rate: 8000, seconds: 1.0}",
        "model: {name: cnn1d}",
    ]
    spec.write_text("\n".join(lines), encoding="utf-8")
    table = str(case / "check.csv")
    outcomes, violations = [], []
    for name, arguments in {
        "plan": ("plan", str(spec)),
        "data check": ("data", "check", str(spec), "--out", table, "--quiet"),
    }.items():
        ended = call(*arguments)
        outcomes.append(f"{name}: {ended.outcome}")
        violations += [f"{name}: {violation}" for violation in ended.violations]
    return outcomes, violations


CASES: dict[str, Callable[[int, int, Path], Verdict]] = {
    "specification": _plan,
    "run": _run,
    "audio": _audio,
    "folder": _folder,
    "manifest": _manifest,
}


# A worker: goes through numbered cases and says each one's beginning and end on its stdout.


def work(kind: str, seed: int, numbers: range, root: Path) -> None:
    """Run cases in this process, whose folders are all below `root`."""
    report = os.fdopen(os.dup(1), "w")
    guarded = [Path(os.environ["HOME"]), Path(os.environ["TMPDIR"]), Path.cwd()]
    case = Path(os.environ["CASE"])
    _warm_up(kind)
    data = _contents(root / "data")
    for number in numbers:
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        print(json.dumps({"begun": number}), file=report, flush=True)
        Path("/proc/self/clear_refs").write_text("5")
        before = _peak()
        outcomes, violations = CASES[kind](seed, number, case)
        for folder in guarded:
            violations += [f"left behind: {folder.name}/{name}" for name in _clean(folder)]
        if _contents(root / "data") != data:
            violations.append("the data were changed")
        filled = _peak() - before
        if filled > RESIDENT:
            violations.append(f"{filled / 2**20:.0f} MB of memory")
        ended = {"ended": number, "outcomes": outcomes, "violations": violations}
        print(json.dumps(ended), file=report, flush=True)


def _peak() -> int:
    """The most memory that this process has filled since that was reset, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _warm_up(kind: str) -> None:
    """Import what the cases need, then bound what they may take."""
    import orchestrator.experiment
    import orchestrator.runner  # noqa: F401

    if kind in ("specification", "run"):
        import torch

        torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _clean(folder: Path) -> list[str]:
    """What lies in a folder that should be empty but for results; it is empty afterwards."""
    found = []
    for entry in list(folder.iterdir()):
        if entry.name != "results":
            found.append(entry.name)
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    return found


def _contents(folder: Path) -> list[tuple[str, int, int]]:
    stats = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), found.st_size, found.st_mtime_ns) for path, found in stats]


# The driver: workers one after another, several at a time; a silent one is killed.


@dataclass
class Tally:
    """What all cases came to."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    cases: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, kind: str, number: int, outcomes: list[str], violations: list[str]) -> None:
        self.cases[kind] += 1
        self.outcomes.setdefault(kind, Counter()).update(outcomes)
        self.violations += [f"{kind}:{number}: {violation}" for violation in violations]


def go_through(kind: str, seed: int, numbers: range, root: Path, tally: Tally) -> None:
    """All numbers of a chunk, in as many processes as die on the way, and one more."""
    while numbers:
        current, done, how = _one_worker(kind, seed, numbers, root, tally)
        if how:
            tally.add(kind, current, [how], [how])
            done = current
        numbers = range(done + 1, numbers.stop)


def _one_worker(
    kind: str, seed: int, numbers: range, root: Path, tally: Tally
) -> tuple[int, int, str]:
    """The number it was at, the last one done, and how it ended before its time, if it did."""
    home = Path(tempfile.mkdtemp(dir=root))
    process = _start(kind, seed, numbers, root, home)
    assert process.stdout is not None
    current, done, how = numbers.start, numbers.start - 1, ""
    patience = 60 + LIMITS[kind]
    while True:
        ready, _, _ = select.select([process.stdout], [], [], patience)
        if not ready:
            how = "hang"
            os.killpg(process.pid, signal.SIGKILL)
            break
        line = process.stdout.readline()
        if not line:
            break
        said = json.loads(line)
        if "begun" in said:
            current, patience = said["begun"], LIMITS[kind]
        else:
            done = said["ended"]
            tally.add(kind, done, said["outcomes"], said["violations"])
    process.wait()
    if not how and done != numbers.stop - 1:
        how = f"process ended with {process.returncode}"
    shutil.rmtree(home, ignore_errors=True)
    return current, done, how


def _start(kind: str, seed: int, numbers: range, root: Path, home: Path) -> subprocess.Popen[bytes]:
    folders = {name: home / name for name in ("home", "temporary", "here", "case")}
    for folder in folders.values():
        folder.mkdir()
    shown = {"SHOW": "1"} if len(numbers) == 1 else {}
    unwanted = ("XDG_", "RAY_", "MPL", "TORCH", "FOLDGRID", "ESC10", "DATA")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    environment = (
        kept
        | shown
        | {
            "HOME": str(folders["home"]),
            "TMPDIR": str(folders["temporary"]),
            "CASE": str(folders["case"]),
            "FOLDGRID_CACHE": str(root / "cache"),
            "DATA": str(root / "data" / "clips"),
            "ESC10_DIR": str(root / "data" / "esc10"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
    )
    words = ["--work", kind, "--seed", str(seed), "--numbers", f"{numbers.start}:{numbers.stop}"]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), *words, "--root", str(root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=folders["here"],
        env=environment,
        start_new_session=True,
    )


def make_data(root: Path) -> None:
    """A folder of two classes, and ESC-10's layout with one clip a class and fold."""
    rng = np.random.default_rng(0)

    def write(path: Path, seconds: float, form: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, int(8000 * seconds)), 8000, format=form)

    for label in CLASSES:
        for i in range(8):
            write(root / "clips" / label / f"{i}.wav", 0.4, "WAV")
    for number in range(1, 11):
        for fold in range(1, 6):
            name = f"{fold}-{1000 + 10 * number + fold}-A.ogg"
            write(root / "esc10" / f"{number:03d} - Class" / name, 0.2, "OGG")
    (root / "clips" / "link").symlink_to(root / "esc10" / "001 - Class")
    (root / "clips" / ".hidden").write_text("x")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--specifications", type=int, default=2000)
    parser.add_argument("--audio", type=int, default=2000)
    parser.add_argument("--manifests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one case, and what it says")
    parser.add_argument("--work", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--numbers", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        start, stop = map(int, options.numbers.split(":"))
        work(options.work, options.seed, range(start, stop), options.root)
        return 0
    counts = {
        "specification": options.specifications,
        "run": options.specifications // 20,
        "audio": options.audio,
        "folder": options.audio // FOLDER,
        "manifest": options.manifests,
    }
    chunks = [
        (kind, range(start, min(start + CHUNK[kind], count)))
        for kind, count in counts.items()
        for start in range(0, count, CHUNK[kind])
    ]
    if options.only:
        kind, _, number = options.only.partition(":")
        chunks = [(kind, range(int(number), int(number) + 1))]
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="mutations-") as name:
        root = Path(name)
        make_data(root / "data")
        with ThreadPoolExecutor(options.workers) as pool:
            jobs = [pool.submit(go_through, k, options.seed, r, root, tally) for k, r in chunks]
            for job in jobs:
                job.result()
    show(tally)
    return 1 if tally.violations else 0


def show(tally: Tally) -> None:
    """The table of outcomes, and the violations."""
    for kind, outcomes in sorted(tally.outcomes.items()):
        print(f"{kind}: {tally.cases[kind]} cases")
        for outcome, count in sorted(outcomes.items()):
            print(f"{count:7}  {outcome}")
    print(f"{len(tally.violations)} violations")
    for violation in sorted(tally.violations):
        print(f"  {violation}")


if __name__ == "__main__":
    sys.exit(main())
