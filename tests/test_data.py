"""`foldgrid data check` and `repair` on a folder with everything that goes wrong in practice."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from features.audio import decode_all
from features.formats import Format, sniff
from features.repair import Repair, pcm
from orchestrator.yaml_source import dump

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 440 * time)
    return wave if channels == 1 else np.stack([wave, 0.5 * wave], axis=1)


def encoded(samples: np.ndarray, rate: int, kind: str, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three good clips each, and one file of every kind of trouble."""
    root = tmp_path_factory.mktemp("broken")
    files: dict[str, bytes] = {}
    rng = np.random.default_rng(0)
    for label in ("birds", "cars"):
        for i in range(3):
            noisy = tone() + rng.normal(0, 0.01, round(0.5 * RATE))
            files[f"{label}/good{i}.wav"] = encoded(noisy, RATE, "WAV", "PCM_16")
    noise = rng.normal(0, 0.1, RATE)
    half = encoded(noise, RATE, "WAV", "PCM_16")
    nan = tone().astype(np.float32)
    nan[100:103] = np.nan
    files |= {
        "birds/a wav.mp3": encoded(tone(0.6), RATE, "WAV", "PCM_16"),
        "birds/an mp3.wav": encoded(tone(0.7), RATE, "MP3"),
        "birds/an_ogg": encoded(tone(0.8), RATE, "OGG", "VORBIS"),
        "birds/truncated.wav": half[: len(half) // 2],
        "birds/empty.wav": b"",
        "birds/text.wav": b"This is not a sound.\n",
        "cars/stereo8.wav": encoded(tone(0.5, 11_025, 2), 11_025, "WAV", "PCM_U8"),
        "cars/fine24.wav": encoded(tone(0.5, 96_000), 96_000, "WAV", "PCM_24"),
        "cars/nan.wav": encoded(nan, RATE, "WAV", "FLOAT"),
        "cars/Türen \"knallen\" 'laut'.wav": encoded(tone(0.55), RATE, "WAV", "PCM_16"),
        "cars/movie.wav": b"\x00\x00\x00\x18ftypM4A " + b"\x00" * 200,
        "cars/silent.wav": encoded(np.zeros(RATE // 2), RATE, "WAV", "PCM_16"),
        "cars/clipped.wav": encoded(np.clip(5 * tone(0.65), -1, 1), RATE, "WAV", "PCM_16"),
        "cars/short.wav": encoded(tone(0.005), RATE, "WAV", "PCM_16"),
        "cars/twin.aiff": encoded(tone(0.9), RATE, "AIFF", "PCM_16"),
        "cars/twin.flac": encoded(tone(0.95), RATE, "FLAC", "PCM_16"),
        "cars/again.wav": files["cars/good0.wav"],
        "README.txt": b"notes\n",
        "cars/.hidden": b"x",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    return root


def spec_of(path: Path, root: Path, **data: Any) -> Path:
    spec = {
        "data": {"dataset": "folder", "root": str(root), **data},
        "features": {
            "kind": "log_mel",
            "sample_rate": RATE,
            "seconds": 0.5,
            "n_mels": 20,
            "hop_length": 256,
        },
        "folds": {"k": 3},
        "model": {"name": "cnn1d"},
        "train": {"epochs": 1, "batch_size": 4},
    }
    path.write_text(dump(spec), encoding="utf-8")
    return path


def rows_of(path: Path, key: str) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return {row[key]: row for row in csv.DictReader(stream)}


PROBLEMS = {
    "birds/truncated.wav": "truncated: 15978 of 32000 bytes of samples are there",
    "birds/empty.wav": "empty file",
    "birds/text.wav": "not decodable: Format not recognised (text)",
    "cars/nan.wav": "NaN or infinite samples: 3 of 8000",
    "cars/movie.wav": "(MP4 content); wrong extension .wav, MP4 content",
}
REMARKS = {
    "birds/a wav.mp3": "wrong extension .mp3, WAV content",
    "birds/an mp3.wav": "wrong extension .wav, MP3 content",
    "birds/an_ogg": "no extension, OGG content",
    "cars/silent.wav": "silent",
    "cars/clipped.wav": "clipped: ",
    "cars/short.wav": "short: 5 ms",
    "cars/good0.wav": "same bytes as cars/again.wav",
}


def test_check_names_each_clip_for_what_it_is(foldgrid: Any, broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.csv"
    result = foldgrid("data", "check", spec_of(tmp_path / "s.yaml", broken), "--out", out)
    assert result.code == 1
    rows = rows_of(out, "clip")
    assert len(rows) == 23
    for clip, problem in PROBLEMS.items():
        assert problem in rows[clip]["issues"]
        assert rows[clip]["usable"] == "false"
        assert f"bad   {clip}: " in result.out
    for clip, remark in REMARKS.items():
        assert remark in rows[clip]["issues"]
        assert rows[clip]["usable"] == "true"
        assert f"note  {clip}: " in result.out
    odd = {clip for clip, row in rows.items() if row["issues"]}
    assert odd == {*PROBLEMS, *REMARKS}
    stereo, fine = rows["cars/stereo8.wav"], rows["cars/fine24.wav"]
    assert (stereo["sample_rate"], stereo["channels"], stereo["encoding"]) == (
        "11025",
        "2",
        "PCM_U8",
    )
    assert (fine["sample_rate"], fine["channels"], fine["encoding"]) == ("96000", "1", "PCM_24")
    assert float(fine["seconds"]) == 0.5
    assert "not usable as it is: 5 bad clips" in result.out
    assert "Türen" in "".join(rows)


def test_run_refuses_what_check_calls_bad(foldgrid: Any, broken: Path, tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "s.yaml", broken, allow_leakage=True)
    result = foldgrid("run", spec, "--out", tmp_path / "out", "--executor", "serial", "--quiet")
    assert result.code == 2
    assert not list((tmp_path / "out").rglob("*.json"))
    named = [clip for clip in PROBLEMS if f"bad clip {clip} " in result.err]
    assert len(named) == 5
    spec = spec_of(tmp_path / "s.yaml", broken, on_bad_clip="skip", allow_leakage=True)
    result = foldgrid("run", spec, "--out", tmp_path / "out", "--executor", "serial", "--quiet")
    assert result.code == 0, result.err
    skipped = rows_of(tmp_path / "out" / "tables" / "skipped_clips.csv", "clip")
    assert set(skipped) == set(PROBLEMS)


@pytest.fixture(scope="module")
def repaired(broken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("parent") / "clean"
    Repair(broken, target).run(lambda done, of: None)
    return target


def test_repair_saves_all_that_can_be_saved(broken: Path, repaired: Path) -> None:
    rows = rows_of(repaired / "repair.csv", "source")
    assert len(rows) == 25
    left_out = {name for name, row in rows.items() if row["action"] == "left out"}
    assert left_out == {"birds/empty.wav", "birds/text.wav", "cars/movie.wav", "cars/.hidden"}
    in_part = {name for name, row in rows.items() if row["action"] == "saved in part"}
    assert in_part == {"birds/truncated.wav", "cars/nan.wav"}
    for name, row in rows.items():
        if row["target"]:
            assert Path(row["target"]).parent == Path(name).parent
        if row["target"] and name != "README.txt":
            assert row["target"].endswith(".wav")
            info = soundfile.info(repaired / row["target"])
            assert (info.format, info.subtype) == ("WAV", "PCM_16")
            assert str(info.samplerate) == row["sample_rate"]
    written = {
        path.relative_to(repaired).as_posix() for path in repaired.rglob("*") if path.is_file()
    }
    assert written == {row["target"] for row in rows.values() if row["target"]} | {"repair.csv"}


def test_what_repair_writes_sounds_as_before(broken: Path, repaired: Path) -> None:
    def both(source: str, target: str) -> tuple[np.ndarray, np.ndarray]:
        before, _ = soundfile.read(broken / source, always_2d=True)
        after, _ = soundfile.read(repaired / target, always_2d=True)
        return before, after

    assert (repaired / "birds/good1.wav").read_bytes() == (broken / "birds/good1.wav").read_bytes()
    for source, target in (
        ("birds/a wav.mp3", "birds/a wav.wav"),
        ("cars/twin.flac", "cars/twin.flac.wav"),
        ("cars/twin.aiff", "cars/twin.wav"),
    ):
        before, after = both(source, target)
        assert np.array_equal(before, after)
    before, after = both("cars/stereo8.wav", "cars/stereo8.wav")
    assert np.abs(before - after).max() < 1 / 32768
    before, after = both("cars/nan.wav", "cars/nan.wav")
    assert (after[100:103] == 0).all()
    assert np.abs(np.nan_to_num(before) - after).max() < 1 / 32768


def test_the_repaired_folder_runs(foldgrid: Any, repaired: Path, tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "s.yaml", repaired, allow_leakage=True)
    checked = foldgrid("data", "check", spec, "--out", tmp_path / "found.csv")
    assert "bad " not in checked.out
    result = foldgrid("run", spec, "--out", tmp_path / "out", "--executor", "serial", "--quiet")
    assert result.code == 0, result.err


def test_the_command_repairs_at_a_rate_and_says_what_was_lost(
    foldgrid: Any, broken: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
    result = foldgrid("data", "repair", broken, tmp_path / "clean", "--rate", "8000")
    assert result.code == 1
    assert "left out  birds/text.wav: not decodable" in result.out
    for path in (tmp_path / "clean").rglob("*.wav"):
        assert soundfile.info(path).samplerate == 8000
    assert {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()} == before
    good = tmp_path / "good"
    result = foldgrid("data", "repair", tmp_path / "clean" / "birds", good)
    assert result.code == 0, result.out


def test_a_second_repair_writes_nothing_again(broken: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean"
    first = Repair(broken, target).run(lambda done, of: None)
    stamps = {path: path.stat().st_mtime_ns for path in target.rglob("*.wav")}
    journal = (target / "repair.csv").read_bytes()
    assert Repair(broken, target).run(lambda done, of: None) == first
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.wav")} == stamps
    assert (target / "repair.csv").read_bytes() == journal
    again = Repair(broken, target, 8000).run(lambda done, of: None)
    assert {row.sample_rate for row in again if row.sample_rate} == {8000}


def decoded_names(target: Path) -> dict[str, float]:
    """Seconds of every file of a repaired folder, by name."""
    return {
        path.relative_to(target).as_posix(): soundfile.info(path).duration
        for path in sorted(target.rglob("*.wav"))
        if path.is_file()
    }


def test_no_two_files_get_one_name(tmp_path: Path) -> None:
    source = tmp_path / "source" / "k"
    source.mkdir(parents=True)
    clips = {
        **{"a.wav": ("WAV", 0.1), "a.WAV": ("WAV", 0.2), "a.mp3": ("MP3", 0.3)},
        **{"b": ("OGG", 0.4), "b.wav": ("WAV", 0.5), "b.2.wav": ("WAV", 0.6)},
        **{"c.mp3": ("FLAC", 0.7), "c.wav": ("WAV", 0.8), "c.mp3.wav": ("WAV", 0.9)},
        **{"d.mp3": ("WAV", 1.0), "音" * 83 + ".wav": ("WAV", 1.1), "y" * 255: ("WAV", 1.2)},
    }
    for name, (kind, seconds) in clips.items():
        (source / name).write_bytes(encoded(tone(seconds), RATE, kind))
    (source / "d.wav").mkdir()
    (source / "d.wav" / "e.wav").write_bytes(encoded(tone(1.3), RATE, "WAV"))
    target = tmp_path / "clean"
    rows = Repair(tmp_path / "source", target).run(lambda done, of: None)
    assert rows is not None
    assert all(row.target for row in rows), rows
    found = decoded_names(target)
    assert len(found) == len(rows) == 13
    assert {f"k/{n}" for n in ("a.wav", "b.wav", "b.2.wav", "c.wav", "c.mp3.wav")} <= set(found)
    expected = sorted([*(seconds for _, seconds in clips.values()), 1.3])
    assert sorted(found.values()) == pytest.approx(expected, abs=0.08)


def test_odd_files_are_rows_and_do_not_stop_a_repair(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "k").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    wave = encoded(tone(0.1), RATE, "WAV", "PCM_16")
    (source / "k" / "a.wav").write_bytes(wave)
    (tmp_path / "elsewhere" / "b.wav").write_bytes(wave)
    os.mkfifo(source / "k" / "pipe")
    (source / "k" / "gone.wav").symlink_to(tmp_path / "nothing")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "k" / "circle").symlink_to(source)
    rows = Repair(source, tmp_path / "clean").run(lambda done, of: None)
    assert rows is not None
    assert {row.source: row.action for row in rows} == {
        "k/a.wav": "copied",
        "k/circle": "left out",
        "k/gone.wav": "left out",
        "k/pipe": "left out",
        "linked/b.wav": "copied",
    }


def test_a_continued_repair_is_what_a_fresh_one_would_be(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "clean"
    (source / "k").mkdir(parents=True)
    (source / "k" / "d.mp3").write_bytes(encoded(tone(0.3), RATE, "MP3"))
    (source / "k" / "e.wav").write_bytes(encoded(tone(0.4), RATE, "WAV", "PCM_16"))
    Repair(source, target).run(lambda done, of: None)
    (source / "k" / "d.wav").write_bytes(encoded(tone(0.5), RATE, "WAV", "PCM_16"))
    (source / "k" / "e.wav").unlink()
    (target / "k" / "d.wav").write_bytes(b"RIFF")
    Repair(source, target).run(lambda done, of: None)
    found = decoded_names(target)
    assert set(found) == {"k/d.wav", "k/d.mp3.wav"}
    assert found["k/d.wav"] == 0.5
    assert Repair(source, tmp_path / "fresh").run(lambda done, of: None) is not None
    assert decoded_names(tmp_path / "fresh") == found


def test_a_repaired_manifest_names_the_repaired_files(foldgrid: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "clean"
    source.mkdir()
    lines = ["path,label"]
    for label in ("a", "b"):
        for i in range(3):
            kind = "MP3" if i == 1 else "AU"
            name = f"{label}{i}.{kind.lower()}"
            seconds = 0.5 + i / 10 + 0.05 * (label == "b")
            (source / name).write_bytes(encoded(tone(seconds), RATE, kind))
            lines.append(f"{name},{label}")
    (source / "lost.wav").write_bytes(b"")
    (source / "manifest.csv").write_text("\n".join([*lines, "lost.wav,a"]) + "\n")
    for _ in range(2):
        rows = Repair(source, target).run(lambda done, of: None)
        assert rows is not None
        actions = {row.source: row.action for row in rows}
        assert actions["manifest.csv"] == "brought in line"
        assert actions["a0.au"] == "converted"
    text = (target / "manifest.csv").read_text(encoding="utf-8")
    assert "a0.au.wav,a\na1.wav,a" in text
    assert "lost" not in text
    manifest = {"dataset": "manifest", "manifest": str(target / "manifest.csv")}
    spec = spec_of(tmp_path / "s.yaml", target, **manifest)
    assert foldgrid("data", "check", spec, "--out", tmp_path / "found.csv").code == 0


def test_a_link_in_the_target_leads_nowhere(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "clean"
    (source / "x").mkdir(parents=True)
    content = encoded(tone(0.5), RATE, "WAV", "FLOAT")
    (source / "x" / "a.wav").write_bytes(content)
    Repair(source, target).run(lambda done, of: None)
    (target / "x" / "a.wav").unlink()
    (target / "x").rmdir()
    (target / "x").symlink_to(source / "x")
    rows = Repair(source, target).run(lambda done, of: None)
    assert rows is not None
    assert rows[0].action == "left out"
    assert (source / "x" / "a.wav").read_bytes() == content


def test_a_stopped_repair_says_so_and_goes_on(broken: Path, tmp_path: Path) -> None:
    done: list[int] = []
    work = Repair(broken, tmp_path / "clean")
    assert work.run(lambda number, of: done.append(number), lambda: len(done) >= 5) is None
    assert len(done) == 5
    (tmp_path / "clean" / "repair.csv").open("ab").write(b"k/\xc3")
    rows = Repair(broken, tmp_path / "clean").run(lambda number, of: None)
    assert rows is not None
    assert len(rows) == 25


@pytest.mark.parametrize("kind", ["AIFF", "FLAC", "MP3", "OGG", "RF64"])
def test_truncation_is_found_and_what_is_there_is_saved(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = encoded(rng.normal(0, 0.1, 4 * RATE), RATE, kind)
    assert not decode_all(whole).problem
    cut = decode_all(whole[: len(whole) * 6 // 10])
    assert cut.problem.startswith("truncated: ")
    assert RATE < len(cut.samples) < 3.5 * RATE


def test_check_and_run_agree_on_what_they_let_pass(
    foldgrid: Any, broken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.csv"
    spec = spec_of(tmp_path / "s.yaml", broken, on_bad_clip="skip", allow_leakage=True)
    result = foldgrid("data", "check", spec, "--out", out)
    assert result.code == 0
    assert "usable as it is; 5 bad clips left out (data.on_bad_clip: skip)" in result.out
    root = tmp_path / "short"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for i in range(3):
            content = encoded(tone(0.5 + i / 10), RATE, "WAV", "PCM_16")
            (root / label / f"{i}.wav").write_bytes(content + label.encode())
    (root / "a" / "one.wav").write_bytes(encoded(tone(1 / 96_000, 96_000), 96_000, "WAV"))
    result = foldgrid("data", "check", spec_of(tmp_path / "s.yaml", root), "--out", out)
    assert result.code == 1
    assert "bad   a/one.wav: no samples at 16000 Hz" in result.out


def test_a_killed_repair_goes_on(broken: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean"
    script = (
        "import sys, time; from pathlib import Path; from features.repair import Repair;"
        "Repair(Path(sys.argv[1]), Path(sys.argv[2])).run(lambda done, of: time.sleep(0.3))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, broken, target])
    deadline = time.monotonic() + 30
    while len(list(target.rglob("*.wav"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # As if the last line had been cut off in the middle.
    with (target / "repair.csv").open("a", encoding="utf-8") as stream:
        stream.write('birds/good9.wav,,conv"')
    stamps = {path: path.stat().st_mtime_ns for path in target.rglob("*.wav")}
    assert len(stamps) >= 4
    rows = Repair(broken, target).run(lambda done, of: None)
    kept = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns == stamp]
    assert len(kept) >= len(stamps) - 1
    assert len(rows) == 25
    assert len(rows_of(target / "repair.csv", "source")) == 25


@pytest.mark.parametrize("where", ["inside", "around", "same", "full", "file", "nowhere"])
def test_a_target_that_cannot_be_is_refused(
    foldgrid: Any, where: str, broken: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "x.wav").write_bytes(encoded(tone(), RATE, "WAV", "PCM_16"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    targets = {"inside": source / "clean", "around": tmp_path, "same": source}
    result = foldgrid(
        "data",
        "repair",
        tmp_path / "missing" if where == "nowhere" else source,
        targets.get(where, tmp_path / where),
    )
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in source.rglob("*")) == ["a", "x.wav"]


def test_tables_beside_no_audio_come_along(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "audio").mkdir(parents=True)
    (source / "meta").mkdir()
    (source / "audio" / "1.wav").write_bytes(encoded(tone(), RATE, "WAV", "PCM_16"))
    (source / "audio" / "notes.txt").write_text("not a clip")
    (source / "meta" / "table.csv").write_text("a,b\n")
    rows = Repair(source, tmp_path / "clean").run(lambda done, of: None)
    assert [row.action for row in rows] == ["copied", "left out", "copied"]
    assert (tmp_path / "clean" / "meta" / "table.csv").read_text() == "a,b\n"


def test_check_tells_of_leaks_and_missing_folds(
    foldgrid: Any, write_spec: Any, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.csv"
    assert foldgrid("data", "check", write_spec(), "--out", out).code == 0
    manifest = tmp_path / "manifest.csv"
    lines = (clips / "manifest.csv").read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].rsplit(",", 1)[0] + ",noise-4"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = {"dataset": "manifest", "manifest": str(manifest), "root": str(clips)}
    result = foldgrid("data", "check", write_spec(data=data), "--out", out)
    assert result.code == 1
    assert "leak  source noise-4 in two folds: " in result.out
    data = {"dataset": "folder", "root": str(clips)}
    result = foldgrid("data", "check", write_spec(data=data), "--out", out)
    assert result.code == 1
    assert "not usable as it is: no folds" in result.out


def test_samples_of_16_bits_come_back_the_same() -> None:
    levels = np.arange(-32768, 32768, dtype=np.int16)
    samples, _ = soundfile.read(
        io.BytesIO(encoded(levels, RATE, "WAV", "PCM_16")), dtype="float32", always_2d=True
    )
    assert np.array_equal(pcm(samples, RATE, RATE)[:, 0], levels)
    loud = np.array([[2.0], [-3.0], [np.nan], [np.inf]], np.float32)
    assert pcm(loud, RATE, RATE)[:, 0].tolist() == [32767, -32768, 0, 0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", Format.WAV),
        (b"fLaC\x00", Format.FLAC),
        (b"OggS\x00", Format.OGG),
        (b"ID3\x04", Format.MP3),
        (b"\xff\xfb\x90\x64", Format.MP3),
        (b"\xff\xff\xff\xff", None),
        (b"\xff\xd8\xff\xe0", None),
        (b"\x00\x00\x00 ftypisom", Format.MP4),
        (b"FORM\x00\x00\x00\x00AIFC", Format.AIFF),
        (b"RIFF\x00\x00\x00\x00AVI ", None),
        (b"", None),
    ],
)
def test_formats_by_their_first_bytes(content: bytes, expected: Format | None) -> None:
    assert sniff(content) is expected
