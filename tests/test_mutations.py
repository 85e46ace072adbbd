"""Whatever comes in, the program ends with exit code 0, 1 or 2 and a message that can be read."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.audio import BadClip, decode
from features.folder import load_folder
from orchestrator.errors import FoldgridError
from orchestrator.sweep import load_sweep
from orchestrator.yaml_source import dump, load

BENCHMARK = Path(__file__).parent / "benchmarks" / "mutations.py"

# Fixtures of one function serve all its examples: each example writes its own file anew.
PROPERTY = settings(
    deadline=None,
    max_examples=100,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
def test_a_hundred_mutations_of_each_kind() -> None:
    counts = ["--specifications", "100", "--audio", "100", "--manifests", "100", "--seed", "7"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *counts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "specification: 100 cases" in done.stdout
    assert "audio: 100 cases" in done.stdout
    assert "manifest: 100 cases" in done.stdout
    assert "\n0 violations\n" in done.stdout


def _ends_well(result: Any) -> None:
    assert result.code in (0, 1, 2)
    lines = result.err.split("\n")
    assert len(lines) <= 7
    assert all(line.isprintable() and len(line) < 1100 for line in lines)
    assert result.code != 2 or result.err


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["grid", "cnn1d", "log_mel", "sgd", "val_loss", "1e-3", "../x", "${HOME}"]),
)
WORDS = [
    *("name", "seed", "data", "features", "folds", "model", "train", "search", "resources"),
    *("kind", "grid", "choice", "uniform", "randint", "params", "optimizer", "lr", "epochs"),
    *("test", "validate", "k", "method", "metric", "samples", "gpu", "schedule", "milestones"),
]
KEYS = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
VALUES = st.recursive(
    SCALARS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=3),
    max_leaves=8,
)
SECTIONS = ["name", "seed", "repeats", "data", "features", "folds", "model", "train", "search"]


@PROPERTY
@given(changes=st.dictionaries(st.sampled_from(SECTIONS) | KEYS, VALUES, max_size=3))
def test_any_mapping_is_planned_or_refused(foldgrid: Any, write_spec: Any, changes: Any) -> None:
    path = write_spec()
    path.write_text(dump(load(path.read_text(), "tiny").data | changes), encoding="utf-8")
    _ends_well(foldgrid("plan", path))


FEATURES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["log_mel", "mfcc", "waveform"])},
    optional={
        "seconds": st.floats(2.0, 5.0),
        "sample_rate": st.sampled_from([8000, 16_000, {"grid": [8000, 16_000]}]),
        "normalize": st.sampled_from([None, "peak", {"grid": ["peak", "rms"]}]),
        "fit": st.sampled_from(["loop", {"grid": ["pad", "loop"]}]),
    },
)
TRAIN = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 10**6),
        "batch_size": st.sampled_from([1, 64, {"grid": [4, 8]}, {"choice": [4, 8]}]),
        "label_smoothing": st.floats(0, 0.99),
        "optimizer": st.fixed_dictionaries(
            {"name": st.sampled_from(["sgd", "adam", "adamw"])},
            optional={"lr": st.floats(1e-300, 1e300), "weight_decay": st.floats(0, 1e300)},
        ),
        "schedule": st.sampled_from([None, "cosine", {"name": "step", "milestones": [3, 5]}]),
        "select": st.sampled_from(["last", "best", {"grid": ["best", "last"]}]),
    },
)


@PROPERTY
@given(
    features=FEATURES,
    train=TRAIN,
    search=st.sampled_from([{}, {"method": "random", "samples": 3}]),
    seed=st.integers(0, 2**31 - 1),
)
def test_an_accepted_specification_survives_its_stored_form(
    write_spec: Any, tmp_path: Path, features: Any, train: Any, search: Any, seed: int
) -> None:
    path = write_spec(features=features, train=train, search=search, seed=seed)
    try:
        sweep = load_sweep(path)
    except FoldgridError:
        assert "choice" in str(train)
        assert not search
        return
    stored = tmp_path / "spec.yaml"
    stored.write_text(dump(sweep.document), encoding="utf-8")
    again = load_sweep(stored)
    assert again.settings == sweep.settings
    assert again.configurations == sweep.configurations
    assert again.document == sweep.document


CELLS = st.one_of(
    st.sampled_from(["low/1-0.wav", "noise/1-0.wav", "low", "1", "..", "../x", "/x", "low/x.wav"]),
    st.sampled_from(["", "\0", "=1", "-1", "x" * 5000, "low/" * 100, "9" * 5000]),
    st.text(max_size=10),
)


@PROPERTY
@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=4), max_size=5),
    coding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    cut=st.integers(0, 60),
)
def test_any_manifest_is_planned_or_refused(
    foldgrid: Any, clips: Path, tmp_path: Path, rows: list[list[str]], coding: str, cut: int
) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["path", "label", "fold", "source"], *rows])
    content = stream.getvalue().encode(coding, "replace")
    (tmp_path / "manifest.csv").write_bytes(content[: len(content) - cut])
    data = {"dataset": "manifest", "manifest": str(tmp_path / "manifest.csv"), "root": str(clips)}
    spec = tmp_path / "spec.yaml"
    rest = {"data": data, "features": {"kind": "log_mel"}, "model": {"name": "cnn1d"}}
    spec.write_text(dump(rest), encoding="utf-8")
    _ends_well(foldgrid("plan", spec))


def _encoded(kind: str, encoding: str) -> bytes:
    stream = io.BytesIO()
    samples = 0.3 * np.sin(np.arange(1600) / 5)
    soundfile.write(stream, samples, 8000, format=kind, subtype=encoding)
    return stream.getvalue()


KINDS = {
    kind: _encoded(*kind.split())
    for kind in ("WAV PCM_16", "WAV FLOAT", "FLAC PCM_16", "OGG VORBIS", "MP3 MPEG_LAYER_III")
}


@settings(PROPERTY, max_examples=300)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    numbers=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 0x8000])), max_size=4
    ),
    kept=st.integers(0, 4000),
    joined=st.binary(max_size=20),
)
def test_any_bytes_are_read_or_a_bad_clip_in_silence(
    capfd: pytest.CaptureFixture[str],
    kind: str,
    numbers: list[tuple[int, int]],
    kept: int,
    joined: bytes,
) -> None:
    content = bytearray(KINDS[kind])
    for place, number in numbers:
        content[place : place + 2] = number.to_bytes(2, "little")
    try:
        samples, rate = decode(bytes(content[:kept]) + joined)
        assert rate > 0
        assert len(samples)
        assert np.isfinite(samples).all()
    except BadClip as bad:
        problem = str(bad)
        if not problem.isprintable():
            raise
    # Neither libsndfile nor what decodes MP3 for it says anything by itself.
    assert capfd.readouterr() == ("", "")


def _wav(channels: int, rate: int, samples: int) -> bytes:
    """A WAV file of 8-bit samples, with a channel count and a rate of one's choice."""
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(samples), 8000, format="WAV", subtype="PCM_U8")
    content = bytearray(stream.getvalue())
    content[22:24] = channels.to_bytes(2, "little")
    content[24:28] = rate.to_bytes(4, "little")
    content[32:34] = channels.to_bytes(2, "little")
    return bytes(content)


@pytest.mark.parametrize("content", [_wav(1, 1, 40_000), _wav(1024, 8000, 5000)])
def test_a_small_file_takes_little_memory(content: bytes, tmp_path: Path) -> None:
    """In a process that may take 1 GB more than it has: one sample a second, 1024 channels."""
    (tmp_path / "clip").write_bytes(content)
    code = (
        "import resource, sys; from pathlib import Path; from features.audio import *\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "most = pages * resource.getpagesize() + 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "try: resample(*decode(Path(sys.argv[1]).read_bytes()), 16000)\n"
        "except BadClip as problem: print(problem)\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is counted on Linux only")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "clip")],
        cwd=BENCHMARK.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["resources.gpu=5e-324"], "5e-324; allowed auto"),
        (["seed=0x" + "f" * 5000], "a whole number below 2^1023"),
        (['name="\\UFFFFFFFF"'], "text that is not YAML"),
        (["seed=1\nname: x"], "found several values"),
        ([".".join("a" * 3000) + "=1"], "found 3000 keys"),
        (["folds.validate." + "9" * 5000 + "=1"], "folds.validate."),
        (["data.root=~nobody-has-this-name/x"], "a path of UTF-8 text"),
        (["data.root=" + "x" * 5000], "cannot be reached"),
        (['data.manifest="\\0"'], "a path of UTF-8 text"),
        (["model.name=" + "x" * 5000], "model.name"),
        (["data={dataset: folder, root: /, source_pattern: '(a{99999999999})'}"], "expression"),
    ],
)
def test_found_by_mutation(foldgrid: Any, write_spec: Any, options: list[str], words: str) -> None:
    sets = [part for option in options for part in ("--set", option)]
    result = foldgrid("plan", write_spec(), *sets)
    assert result.code == 2
    assert words in result.err
    _ends_well(result)


def test_a_pattern_that_never_ends_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("features.folder._PATTERN_SECONDS", 0.2)
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / ("a" * 60)).write_bytes(b"x")
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"takes more than 0\.2 s"):
        load_folder(tmp_path, "(a+)+c")
    assert time.monotonic() - begun < 5


def test_an_endless_file_is_no_specification(foldgrid: Any) -> None:
    result = foldgrid("plan", "/dev/zero")
    assert (result.code, len(result.err.splitlines())) == (2, 1)


def test_json_of_an_odd_plan_reads(foldgrid: Any, write_spec: Any) -> None:
    result = foldgrid("plan", write_spec(), "--set", "train.optimizer.lr=1e300", "--json")
    assert json.loads(result.out)["configurations"][0]["parameters"]["train.optimizer.lr"] == 1e300
