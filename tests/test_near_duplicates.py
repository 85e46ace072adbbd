"""Near-identical audio in two folds: found in every disguise, and only where there is any."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import synthetic
from features.cache import features_of
from features.clips import Clip, Dataset
from features.datasets import load_synthetic
from features.fingerprint import LOWEST_RATE, Fingerprint, fingerprint, lowered
from features.near_duplicates import NearDuplicate, near_duplicates
from features.spec import LogMelSpec, WaveformSpec

Waveform = NDArray[np.float32]

RATE = 22_050


def recording(seed: int, seconds: float = 4.0, rate: int = RATE) -> Waveform:
    """Something like a sound outdoors: noise whose colour and level change, and some tones."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate)
    spectra = np.fft.rfft(rng.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / rate)
    spectra /= np.maximum(frequency, 50) ** rng.uniform(0.3, 1.0)
    noise = np.fft.irfft(spectra, count)
    knots = rng.uniform(0.05, 1.0, max(2, round(6 * seconds)))
    level = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(knots)), knots)
    made = noise / np.abs(noise).max() * level
    for _ in range(round(3 * seconds)):
        start, length = rng.uniform(0, seconds - 0.3), rng.uniform(0.05, 0.3)
        time = np.arange(round(length * rate)) / rate
        tone = np.sin(2 * np.pi * rng.uniform(300, 2500) * time) * np.hanning(len(time))
        made[round(start * rate) :][: len(time)] += 0.3 * tone
    return (0.5 * made / np.abs(made).max()).astype(np.float32)


def decoded(waveform: Waveform, rate: int, kind: str, subtype: str) -> tuple[Waveform, int]:
    """What is left after encoding."""
    stream = io.BytesIO()
    soundfile.write(stream, waveform, rate, format=kind, subtype=subtype)
    stream.seek(0)
    samples, found = soundfile.read(stream, dtype="float32")
    return samples, found


def marks(*sounds: tuple[Waveform, int]) -> dict[int, Fingerprint]:
    return {i: fingerprint(lowered(*sound)) for i, sound in enumerate(sounds)}


def compared(prints: dict[int, Fingerprint]) -> tuple[NearDuplicate, ...]:
    clips = [Clip(f"{i}.wav", 0, None, str(i), f"{i:064x}") for i in range(len(prints))]
    return near_duplicates(clips, prints)


def similarity(first: tuple[Waveform, int], second: tuple[Waveform, int]) -> float:
    """Of two sounds; 0 where they are not near-identical."""
    found = compared(marks(first, second))
    return found[0].similarity if found else 0.0


def shifted(waveform: Waveform, seconds: float, rate: int = RATE) -> Waveform:
    """Later by so much, silence before it, or earlier, the beginning cut off."""
    count = round(seconds * rate)
    return np.pad(waveform, (count, 0)) if count > 0 else waveform[-count:]


def louder(waveform: Waveform, gain: float) -> Waveform:
    return (np.round(waveform * gain * 32767) / 32767).astype(np.float32)


DISGUISES: dict[str, Callable[[Waveform], tuple[Waveform, int]]] = {
    "OGG": lambda w: decoded(w, RATE, "OGG", "VORBIS"),
    "MP3": lambda w: decoded(w, RATE, "MP3", "MPEG_LAYER_III"),
    "FLAC": lambda w: decoded(w, RATE, "FLAC", "PCM_16"),
    "8-bit": lambda w: decoded(w, RATE, "WAV", "PCM_U8"),
    "8 kHz": lambda w: (soxr.resample(w, RATE, 8000), 8000),
    "48 kHz": lambda w: (soxr.resample(w, RATE, 48_000), 48_000),
    "softer": lambda w: (louder(w, 0.1), RATE),
    "louder": lambda w: (louder(w, 1.9), RATE),
    "upside down": lambda w: (-w, RATE),
    "later": lambda w: (shifted(w, 1.234), RATE),
    "earlier": lambda w: (shifted(w, -1.007), RATE),
    "a part": lambda w: (w[round(1.005 * RATE) : round(3.0 * RATE)], RATE),
    "all of it": lambda w: decoded(
        soxr.resample(shifted(louder(w, 0.3), 0.777), RATE, 16_000), 16_000, "OGG", "VORBIS"
    ),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_copies_are_found(disguise: str) -> None:
    for seed in range(6):
        original = recording(seed)
        assert similarity((original, RATE), DISGUISES[disguise](original)) > 0.8


def test_a_part_within_another_recording_is_found() -> None:
    host, guest = recording(1), recording(2)
    mixed = host.copy()
    mixed[RATE : 3 * RATE] = guest[round(1.3 * RATE) :][: 2 * RATE]
    found = compared(marks((host, RATE), (guest, RATE), (mixed, RATE)))
    assert [(pair.first, pair.second) for pair in found] == [(0, 2), (1, 2)]


@settings(max_examples=25, deadline=None)
@given(
    seconds=st.floats(-2.0, 2.0),
    gain=st.floats(0.1, 1.9),
    seed=st.integers(0, 50),
    swap=st.booleans(),
)
def test_shift_and_gain_do_not_matter(seconds: float, gain: float, seed: int, swap: bool) -> None:
    original = recording(seed)
    pair = [(original, RATE), (louder(shifted(original, seconds), gain), RATE)]
    assert similarity(*(reversed(pair) if swap else pair)) > 0.8


def test_other_recordings_are_not_near_identical() -> None:
    assert compared(marks(*((recording(seed), RATE) for seed in range(120)))) == ()


def test_the_synthetic_sounds_are_not_near_identical() -> None:
    clips = synthetic.clips()
    prints = {i: fingerprint(lowered(*synthetic.render(clip.path))) for i, clip in enumerate(clips)}
    assert near_duplicates(clips, prints) == ()


TIME = np.arange(4 * RATE) / RATE
EMPTY = {
    "silence": np.zeros(4 * RATE),
    "a constant": np.full(4 * RATE, 0.5),
    "noise of the last bit": np.random.default_rng(0).integers(-1, 2, 4 * RATE) / 32768,
    "a click": np.where(np.arange(4 * RATE) == 2 * RATE, 0.9, 0.0),
    "one sample": np.ones(1),
    "a short burst": np.random.default_rng(1).normal(0, 0.1, 500),
}


@pytest.mark.parametrize("content", EMPTY)
def test_clips_without_content_are_not_near_identical(content: str) -> None:
    waveform = EMPTY[content].astype(np.float32)
    shorter = waveform[: max(1, len(waveform) - 1000)]
    assert compared(marks((waveform, RATE), (shorter, RATE), (0.5 * waveform, 8000))) == ()


def test_tones_of_other_phase_are_not_near_identical() -> None:
    tones = [0.5 * np.sin(2 * np.pi * 440 * TIME + phase) for phase in (0.0, 1.0, 2.5)]
    assert compared(marks(*((tone.astype(np.float32), RATE) for tone in tones))) == ()


def test_a_rate_below_the_bands_has_no_words() -> None:
    assert len(fingerprint(lowered(recording(0), LOWEST_RATE - 1)).words) == 0
    assert compared(marks((recording(0), LOWEST_RATE - 1), (recording(0), 100))) == ()


def test_one_print_and_none() -> None:
    assert compared({}) == ()
    assert compared(marks((recording(0), RATE))) == ()


def test_byte_identical_clips_count_once() -> None:
    original = recording(0)
    prints = marks((original, RATE), (original, RATE), (louder(original, 0.5), RATE))
    clips = [Clip(f"{i}", 0, None, f"{i}", sha) for i, sha in enumerate(["a", "a", "b"])]
    assert [(p.first, p.second) for p in near_duplicates(clips, prints)] == [(0, 2)]


def test_a_sound_in_very_many_clips_is_found_in_each() -> None:
    original = recording(0, 1.5)
    gains = np.linspace(0.2, 1.9, 150)
    found = compared(marks(*((louder(original, gain), RATE) for gain in gains)))
    assert {i for pair in found for i in (pair.first, pair.second)} == set(range(150))


FOLDS = (1, 2, 3)
LABELS = ("frog", "gull")


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, three folds of two recordings; `copies` are in other folds than theirs."""
    root = tmp_path_factory.mktemp("pond")
    rows = []
    for number, (label, fold, take) in enumerate(
        (label, fold, take) for label in LABELS for fold in FOLDS for take in range(2)
    ):
        path = f"{label}-{fold}-{take}.wav"
        soundfile.write(root / path, recording(number, 2.0), RATE)
        rows.append([path, label, fold])
    original, _ = soundfile.read(root / "frog-1-0.wav", dtype="float32")
    copies = [("copy.ogg", 2), ("soft.flac", 3), ("late.wav", 1)]
    soundfile.write(root / "copy.ogg", original, RATE)
    soundfile.write(root / "soft.flac", louder(original, 0.2), RATE)
    soundfile.write(root / "late.wav", shifted(original, -0.5), RATE)
    write_manifest(root / "clean.csv", rows)
    write_manifest(root / "copies.csv", [*rows, *([path, "frog", fold] for path, fold in copies)])
    return root


def write_manifest(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["path", "label", "fold"], *rows])


@pytest.fixture
def pond_spec(write_spec: Callable[..., Path], pond: Path) -> Callable[..., Path]:
    """A short sweep on a manifest of the pond."""

    def write(manifest: str = "copies", **data: Any) -> Path:
        section = {"dataset": "manifest", "manifest": str(pond / f"{manifest}.csv"), **data}
        train = {"epochs": 1, "batch_size": 8}
        return write_spec(data=section, train=train, model={"name": "cnn1d"})

    return write


PAIRS = [
    ("copy.ogg", "2", "frog-1-0.wav", "1"),
    ("copy.ogg", "2", "late.wav", "1"),
    ("copy.ogg", "2", "soft.flac", "3"),
    ("frog-1-0.wav", "1", "soft.flac", "3"),
    ("late.wav", "1", "soft.flac", "3"),
]
"""Not `frog-1-0.wav` and `late.wav`, both in fold 1."""


def run(foldgrid: Any, spec: Path, out: Path, *more: str) -> Any:
    return foldgrid("run", spec, "--out", out, "--executor", "serial", "--quiet", *more)


def test_run_warns_and_names_each_pair_in_a_table(
    foldgrid: Any, pond_spec: Callable[..., Path], tmp_path: Path
) -> None:
    spec, out = pond_spec(), tmp_path / "out"
    result = run(foldgrid, spec, out)
    assert result.code == 0, result.err
    lines = [line for line in result.err.splitlines() if "near-identical" in line]
    assert len(lines) == 5
    first = "near-identical clips in two folds: copy.ogg (fold 2) and frog-1-0.wav (fold 1)"
    assert lines[0].startswith(f"warning: {first}, similarity 0.")
    assert first in (out / "log.txt").read_text("utf-8")
    table = out / "tables" / "near_duplicates.csv"
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["clip", "fold", "other_clip", "other_fold", "similarity"]
    assert [tuple(row[:4]) for row in rows[1:]] == PAIRS
    assert all(0.8 < float(row[4]) <= 1 for row in rows[1:])
    assert "tables/near_duplicates.csv" in (out / "report.html").read_text("utf-8")
    written = table.read_bytes()
    table.unlink()
    continued = run(foldgrid, spec, out)
    assert continued.code == 0
    assert [line for line in continued.err.splitlines() if "near-identical" in line] == lines
    assert table.read_bytes() == written


def test_refuse_ends_before_any_trial(
    foldgrid: Any, pond_spec: Callable[..., Path], tmp_path: Path
) -> None:
    spec = pond_spec(near_duplicates="refuse")
    for result in (run(foldgrid, spec, tmp_path / "out"), foldgrid("features", spec)):
        assert result.code == 2
        line = next(i for i, text in enumerate(spec.read_text().splitlines(), 1) if "near_" in text)
        faults = [text for text in result.err.splitlines() if "data.near_duplicates" in text]
        assert len(faults) == 5
        start = f"{spec}:{line}: data.near_duplicates: found near-identical clips in two folds: "
        assert all(fault.startswith(start) for fault in faults)
        assert faults[0].endswith("(or data.near_duplicates: warn)")
    assert not list((tmp_path / "out").rglob("*.json"))


def test_refuse_takes_clean_data(foldgrid: Any, pond_spec: Callable[..., Path]) -> None:
    result = foldgrid("features", pond_spec("clean", near_duplicates="refuse"), "--quiet")
    assert (result.code, result.err) == (0, "")


def test_leaks_that_are_allowed_are_not_refused(
    foldgrid: Any, pond_spec: Callable[..., Path], tmp_path: Path
) -> None:
    spec = pond_spec(near_duplicates="refuse", allow_leakage=True)
    result = run(foldgrid, spec, tmp_path / "out")
    assert result.code == 0
    assert "near-identical" in result.err
    table = (tmp_path / "out" / "tables" / "near_duplicates.csv").read_text("utf-8")
    assert all(line.endswith(("leakage_allowed", ",true")) for line in table.splitlines())


def test_more_than_five_pairs_are_counted(
    foldgrid: Any, pond_spec: Callable[..., Path], pond: Path
) -> None:
    with (pond / "copies.csv").open(encoding="utf-8", newline="") as stream:
        _, *rows = csv.reader(stream)
    original, _ = soundfile.read(pond / "frog-1-0.wav", dtype="float32")
    soundfile.write(pond / "more.wav", louder(original, 0.7), RATE)
    write_manifest(pond / "more.csv", [*rows, ["more.wav", "frog", "2"]])
    result = foldgrid("features", pond_spec("more"), "--quiet")
    assert result.code == 0
    assert result.err.count("near-identical clips in two folds: ") == 5
    assert "and 3 pairs more of near-identical clips in two folds" in result.err


def test_plan_decodes_nothing_and_says_nothing(
    foldgrid: Any, pond_spec: Callable[..., Path]
) -> None:
    result = foldgrid("plan", pond_spec(near_duplicates="refuse"))
    assert (result.code, result.err) == (0, "")


def test_data_check_names_the_pairs(
    foldgrid: Any, pond_spec: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "found.csv"
    warned = foldgrid("data", "check", pond_spec(), "--out", out)
    assert warned.code == 0
    near = [line for line in warned.out.splitlines() if line.startswith("near  ")]
    assert len(near) == len(PAIRS)
    assert "copy.ogg (fold 2) and frog-1-0.wav (fold 1)" in near[0]
    assert "usable as it is; 5 near-identical pairs in two folds" in warned.out
    refused = foldgrid("data", "check", pond_spec(near_duplicates="refuse"), "--out", out)
    assert refused.code == 1
    assert "not usable as it is: 5 near-identical pairs in two folds" in refused.out


def test_bad_clips_leak_nothing(foldgrid: Any, pond_spec: Callable[..., Path], pond: Path) -> None:
    with (pond / "clean.csv").open(encoding="utf-8", newline="") as stream:
        _, *rows = csv.reader(stream)
    content = (pond / "frog-1-0.wav").read_bytes()
    (pond / "cut.wav").write_bytes(content[: len(content) * 4 // 5])
    write_manifest(pond / "cut.csv", [*rows, ["cut.wav", "frog", "2"]])
    spec = pond_spec("cut", near_duplicates="refuse", on_bad_clip="skip")
    result = foldgrid("features", spec, "--quiet")
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize("workers", [1, 3])
def test_every_kind_and_number_of_workers_finds_the_same(workers: int, tmp_path: Path) -> None:
    clips = load_synthetic().clips[:24]
    for clip in clips:
        path = tmp_path / "clips" / clip.path
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path.with_suffix(".wav"), *synthetic.render(clip.path))
    copy, rate = synthetic.render(clips[3].path)
    soundfile.write(tmp_path / "clips" / "copy.ogg", copy, rate)
    names = [f"{clip.path}.wav" for clip in clips] + ["copy.ogg"]
    hashes = [sha(tmp_path / "clips" / name) for name in names]
    made = tuple(Clip(n, 0, None, n, h) for n, h in zip(names, hashes, strict=True))
    dataset = Dataset("folder", tmp_path / "clips", ("sound",), made)
    found = [
        features_of(dataset, spec, cache=tmp_path / "cache", workers=workers).near_duplicates
        for spec in (WaveformSpec(seconds=0.5), LogMelSpec(seconds=1.0, sample_rate=8000))
        for _ in ("made", "cached")
    ]
    assert [(pair.first, pair.second) for pair in found[0]] == [(3, 24)]
    assert found.count(found[0]) == 4


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
