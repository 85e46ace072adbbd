"""The feature cache: one result for any number of workers, found again, never half believed."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from features import cache as cache_module
from features import claims, workers
from features.cache import (
    FORMAT_VERSION,
    Extraction,
    cache_root,
    cache_size,
    clear_cache,
    features_of,
)
from features.clips import Clip, Dataset, DatasetError
from features.datasets import load_esc10, load_folder, load_synthetic
from features.extract import extract
from features.spec import (
    ClipStatisticsSpec,
    FeatureSpec,
    LogMelSpec,
    MelImageSpec,
    MfccSpec,
    WaveformSpec,
    Windows,
)

SMALL = WaveformSpec(sample_rate=8000, seconds=0.5)
SHORT = WaveformSpec(sample_rate=8000, seconds=0.01)
MANY = replace(load_synthetic(), clips=load_synthetic().clips[:96])
"""Enough clips for several threads."""


def sine(hertz: float) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(8000) / 16_000)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two classes of two clips on disk."""
    for label, name in enumerate(["cat", "dog"]):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for take in range(2):
            path = tmp_path / "clips" / name / f"{take}.wav"
            soundfile.write(path, sine(200 + 100 * label + 10 * take), 16_000)
    return load_folder(tmp_path / "clips")


@pytest.fixture
def crowd(tmp_path: Path) -> Dataset:
    """So many short clips that workers are processes."""
    soundfile.write(tmp_path / "click.wav", sine(200)[:80], 8_000)
    content = hashlib.sha256((tmp_path / "click.wav").read_bytes()).hexdigest()
    clips = tuple(Clip("click.wav", 0, None, str(i), content) for i in range(5000))
    return Dataset("folder", tmp_path, ("click", "clack"), clips)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def get(dataset: Dataset, cache: Path, spec: FeatureSpec = SMALL, workers: int = 1) -> Extraction:
    return features_of(dataset, spec, cache=cache, workers=workers)


def entry_of(cache: Path) -> Path:
    (entry,) = cache.iterdir()
    return entry


class TestExtraction:
    def test_row_i_belongs_to_clip_i(self, dataset: Dataset, cache: Path):
        spec = WaveformSpec(seconds=0.5)
        made = get(dataset, cache, spec)
        assert made.array.shape == (4, 1, 8000)
        assert made.array.dtype == np.float32
        for row, hertz in zip(made.array, [200, 210, 300, 310], strict=True):
            assert row[0] == pytest.approx(sine(hertz), abs=1e-4)
        assert made.bad == ()
        assert not made.cached

    def test_is_read_only_and_survives_clearing(self, dataset: Dataset, cache: Path):
        made = get(dataset, cache)
        copy = made.array.copy()
        with pytest.raises(ValueError, match="read-only"):
            made.array[0] = 0
        clear_cache(cache)
        assert np.array_equal(made.array, copy)

    def test_bad_clips_are_nan_rows_and_named(self, dataset: Dataset, cache: Path):
        assert dataset.root is not None
        (dataset.root / "cat" / "1.wav").write_text("not audio")
        (dataset.root / "dog" / "0.wav").write_bytes(b"")
        dataset = load_folder(dataset.root)
        for made in (get(dataset, cache), get(dataset, cache)):
            assert [(b.clip.path, b.problem) for b in made.bad] == [
                ("cat/1.wav", "not decodable: Format not recognised"),
                ("dog/0.wav", "empty file"),
            ]
            finite = np.isfinite(made.array).all(axis=(1, 2))
            assert finite.tolist() == [True, False, False, True]
            assert np.isnan(made.array[1:3]).all()
        assert made.cached

    def test_progress_counts_to_the_number_of_clips(self, dataset: Dataset, cache: Path):
        seen: list[tuple[int, int]] = []
        features_of(
            dataset, SMALL, cache=cache, workers=1, progress=lambda *step: seen.append(step)
        )
        assert seen[-1] == (4, 4)
        assert seen == sorted(seen)

    def test_no_clips(self, cache: Path):
        with pytest.raises(ValueError, match="without clips"):
            get(replace(MANY, clips=()), cache)

    def test_a_file_changed_since_it_was_listed(self, dataset: Dataset, cache: Path):
        assert dataset.root is not None
        soundfile.write(dataset.root / "cat" / "0.wav", sine(999), 16_000)
        with pytest.raises(DatasetError, match="changed"):
            get(dataset, cache)
        assert list(cache.iterdir()) == []

    def test_a_file_gone_since_it_was_listed(self, dataset: Dataset, cache: Path):
        assert dataset.root is not None
        (dataset.root / "cat" / "0.wav").unlink()
        with pytest.raises(FileNotFoundError):
            get(dataset, cache)
        assert list(cache.iterdir()) == []

    def test_torch_threads_are_given_back(self, dataset: Dataset, cache: Path):
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            get(dataset, cache, LogMelSpec(seconds=0.5))
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)


class TestKey:
    def test_second_time_is_cached_and_equal(self, dataset: Dataset, cache: Path):
        first, second = get(dataset, cache), get(dataset, cache)
        assert (first.cached, second.cached) == (False, True)
        assert first.key == second.key
        assert np.array_equal(first.array, second.array)

    def test_follows_content_and_parameters_and_nothing_else(self, dataset: Dataset, cache: Path):
        key = get(dataset, cache).key
        elsewhere = tuple(replace(c, label=0, fold=3, source="x") for c in dataset.clips)
        assert get(replace(dataset, clips=elsewhere), cache).cached
        assert get(dataset, cache, WaveformSpec(sample_rate=8000, seconds=0.4)).key != key
        assert (
            get(dataset, cache, WaveformSpec(sample_rate=8000, seconds=0.5, fit="loop")).key != key
        )
        assert get(replace(dataset, clips=dataset.clips[::-1]), cache).key != key
        assert get(replace(dataset, clips=dataset.clips[:3]), cache).key != key

    def test_equal_content_in_a_renamed_folder_is_found(self, dataset: Dataset, cache: Path):
        get(dataset, cache)
        assert dataset.root is not None
        moved = dataset.root.rename(dataset.root.parent / "moved")
        assert get(load_folder(moved), cache).cached

    def test_kinds_and_backends_have_keys_of_their_own(self, dataset: Dataset, cache: Path):
        specs = [
            kind(seconds=0.5, backend=backend)
            for kind in (LogMelSpec, MfccSpec, MelImageSpec, ClipStatisticsSpec)
            for backend in ("torchaudio", "librosa")
        ]
        assert len({get(dataset, cache, spec).key for spec in specs}) == 8


class TestEntry:
    def test_manifest_says_what_was_done(self, dataset: Dataset, cache: Path):
        made = get(dataset, cache)
        entry = entry_of(cache)
        assert entry.name == made.key
        assert sorted(f.name for f in entry.iterdir()) == ["features.npy", "manifest.json"]
        manifest = json.loads((entry / "manifest.json").read_text())
        assert manifest["spec"] == SMALL.model_dump()
        assert manifest["shape"] == [4, 1, 4000]
        assert manifest["dtype"] == "float32"
        assert manifest["bad"] == []
        stored = np.load(entry / "features.npy", allow_pickle=False)
        assert np.array_equal(stored, made.array)

    @pytest.mark.parametrize(
        "damage",
        [
            *("flip a bit", "truncate", "no array", "no manifest", "half a manifest", "list"),
            *("later", "other bad clips"),
        ],
    )
    def test_damaged_entries_are_named_and_made_again(
        self,
        dataset: Dataset,
        cache: Path,
        caplog: pytest.LogCaptureFixture,
        damage: str,
    ):
        expected = get(dataset, cache).array.copy()
        entry = entry_of(cache)
        array, manifest = entry / "features.npy", entry / "manifest.json"
        content, text = bytearray(array.read_bytes()), manifest.read_text()
        before = (bytes(content), text)
        if damage == "flip a bit":
            content[-9] ^= 1
            array.write_bytes(content)
        elif damage == "truncate":
            array.write_bytes(content[:-100])
        elif damage == "no array":
            array.unlink()
        elif damage == "no manifest":
            manifest.unlink()
        elif damage == "half a manifest":
            manifest.write_text(text[: len(text) // 2])
        elif damage == "list":
            manifest.write_text("[]")
        elif damage == "other bad clips":
            manifest.write_text(text.replace('"bad": []', '"bad": [[0, "silent"]]'))
        else:
            now = f'"format_version": {FORMAT_VERSION}'
            manifest.write_text(text.replace(now, f'"format_version": {FORMAT_VERSION + 1}'))
        assert damage.startswith("no ") or (array.read_bytes(), manifest.read_text()) != before
        again = get(dataset, cache)
        assert not again.cached
        assert np.array_equal(again.array, expected)
        (warning,) = caplog.messages
        assert str(entry) in warning
        assert get(dataset, cache).cached

    def test_no_byte_of_a_large_array_changes_unseen(self, tmp_path: Path):
        path, size = tmp_path / "large", (1 << 23) + 300_001
        content = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        content.tofile(path)
        found = {cache_module._checksum(path, workers) for workers in (1, 2)}
        assert len(found) == 1
        for place in (0, 300_000, (1 << 23) - 1, 1 << 23, size - 1):
            content[place] ^= 1
            content.tofile(path)
            found.add(cache_module._checksum(path, 2))
            content[place] ^= 1
        assert len(found) == 6

    def test_pickles_are_not_loaded(
        self, dataset: Dataset, cache: Path, caplog: pytest.LogCaptureFixture
    ):
        get(dataset, cache)
        entry = entry_of(cache)
        np.save(entry / "features.npy", np.array([print], dtype=object), allow_pickle=True)
        manifest = json.loads((entry / "manifest.json").read_text())
        del manifest["checksum"]
        # Somebody made it so that every checksum holds.
        manifest["array_checksum"] = cache_module._checksum(entry / "features.npy", 1)
        manifest["checksum"] = cache_module._digest(manifest)
        (entry / "manifest.json").write_text(json.dumps(manifest))
        assert not get(dataset, cache).cached
        (warning,) = caplog.messages
        assert "Python objects" in warning

    def test_size_and_clear_leave_what_others_wrote(self, dataset: Dataset, cache: Path):
        assert cache_size(cache) == clear_cache(cache) == (0, 0)
        get(dataset, cache)
        get(dataset, cache, WaveformSpec(sample_rate=8000, seconds=0.25))
        (cache / "notes.txt").write_text("mine")
        (cache / ("f" * 64)).mkdir()
        (cache / ("f" * 64) / "mine").write_text("x")
        entries, size = cache_size(cache)
        assert entries == 2
        assert 4 * (4000 + 2000) * 4 < size < 4 * (4000 + 2000) * 4 + 3000
        assert clear_cache(cache) == (entries, size)
        assert cache_size(cache) == (0, 0)
        assert sorted(f.name for f in cache.iterdir()) == ["f" * 64, "notes.txt"]
        assert not get(dataset, cache).cached

    def test_left_overs_of_dead_writers_are_swept_and_others_are_not(
        self, dataset: Dataset, cache: Path
    ):
        left, claimed = cache / f"unfinished-{'0' * 32}", cache / f"unfinished-{'1' * 32}"
        for folder in (left, claimed):
            folder.mkdir(parents=True)
            (folder / "features.npy").write_bytes(bytes(100))
        with claims.claimed(claimed):
            get(dataset, cache)
            assert not left.exists()
            assert claimed.exists()
            clear_cache(cache)
            assert list(cache.iterdir()) == [claimed]
        clear_cache(cache)
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("obstacle", ["file", "below a file"])
    def test_a_cache_that_cannot_be_written(self, dataset: Dataset, tmp_path: Path, obstacle: str):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"file") as error:
            get(dataset, tmp_path / "file" / ("x" if obstacle == "below a file" else ""))
        assert error.value.errno in (errno.EEXIST, errno.ENOTDIR)


class TestWorkers:
    @pytest.mark.parametrize(
        "spec",
        [SMALL, WaveformSpec(windows=Windows(seconds=1.0, hop=0.5), fit="loop")],
        ids=["small", "windows"],
    )
    def test_any_number_of_workers_gives_the_same_bytes(self, tmp_path: Path, spec: FeatureSpec):
        one, two, three = (get(MANY, tmp_path / str(n), spec, workers=n) for n in (1, 2, 3))
        assert one.array.tobytes() == two.array.tobytes() == three.array.tobytes()
        files = [(tmp_path / str(n) / one.key / "features.npy").read_bytes() for n in (1, 2, 3)]
        assert files[0] == files[1] == files[2]

    @pytest.mark.slow
    @pytest.mark.parametrize("spec", [MfccSpec(seconds=0.5), MelImageSpec(seconds=0.5)])
    def test_spectrograms_in_threads(self, tmp_path: Path, spec: FeatureSpec):
        one, three = (get(MANY, tmp_path / str(n), spec, workers=n) for n in (1, 3))
        assert one.array.tobytes() == three.array.tobytes()

    def test_processes_give_the_same_bytes(self, crowd: Dataset, cache: Path):
        one, two = (get(crowd, cache / str(n), SHORT, workers=n) for n in (1, 2))
        assert one.array.tobytes() == two.array.tobytes()

    def test_bad_clips_come_back_in_order(self, tmp_path: Path, cache: Path):
        for index in range(80):
            path = tmp_path / "clips" / f"class{index % 2}" / f"{index:02d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            if index % 10 == 3:
                path.write_text(f"text {index}")
            else:
                soundfile.write(path, sine(200 + index), 16_000)
        dataset = load_folder(tmp_path / "clips")
        made = get(dataset, cache, workers=2)
        expected = [c for c in dataset.clips if c.path.endswith("3.wav")]
        assert [b.clip for b in made.bad] == expected
        rows = [i for i in range(80) if np.isnan(made.array[i]).all()]
        assert [dataset.clips[i] for i in rows] == expected

    @pytest.mark.parametrize("held", [0, 7_000, 16_000, 25_000])
    def test_however_many_clips_are_held_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
    ):
        """One, two or three: 80 samples for the features and 10,000 of the whole clip each."""
        for index in range(40):
            path = tmp_path / "clips" / f"class{index // 20}" / f"{index:02d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            if index in (0, 3, 4, 5, 17, 39):
                path.write_text(f"text {index}")
            else:
                soundfile.write(path, np.tile(sine(200 + 9 * index), 5), 24_000)
        dataset = load_folder(tmp_path / "clips")

        def found(name: str) -> tuple[bytes, dict[int, str], dict[int, list[int]]]:
            row_bytes = SHORT.stored_bytes
            (tmp_path / name).write_bytes(bytes(40 * row_bytes))
            rows = workers.RowFile(tmp_path / name, 0, row_bytes)
            findings = workers.extract_all(dataset, SHORT, rows, 1, lambda done, total: None)
            marks = {i: mark.words.tolist() for i, mark in findings.fingerprints.items()}
            return (tmp_path / name).read_bytes(), findings.bad, marks

        together = found("together")
        monkeypatch.setattr(workers, "_MOST_HELD", held)
        assert found("apart") == together
        assert list(together[1]) == [0, 3, 4, 5, 17, 39]
        assert list(together[2]) == [i for i in range(40) if i not in together[1]]
        assert len(set(map(tuple, together[2].values()))) > 1

    def test_rows_are_those_of_extract(self, tmp_path: Path):
        from features.audio import fit_length, read_clip

        made = get(MANY, tmp_path, workers=2)
        for i in (0, 40, 95):
            waveform = read_clip(MANY, MANY.clips[i], SMALL.sample_rate)
            assert np.array_equal(
                made.array[i], extract(fit_length(waveform, SMALL.samples, "pad"), SMALL)
            )

    @pytest.mark.parametrize("many", ["threads", "processes"])
    def test_progress_comes_in_one_thread(self, many: str, crowd: Dataset, cache: Path):
        dataset = MANY if many == "threads" else crowd
        seen: list[tuple[int, int]] = []
        threads: set[int] = set()

        def progress(done: int, total: int) -> None:
            seen.append((done, total))
            threads.add(threading.get_ident())

        features_of(dataset, SHORT, cache=cache, workers=2, progress=progress)
        assert seen[-1] == (len(dataset.clips), len(dataset.clips))
        assert seen == sorted(seen)
        assert threads == {threading.get_ident()}

    def test_a_worker_that_dies(self, crowd: Dataset, cache: Path):
        def kill(done: int, total: int) -> None:
            # Called again for what was done before, when none may be left.
            for child in multiprocessing.active_children()[:1]:
                child.kill()

        with pytest.raises(RuntimeError, match="worker process died"):
            features_of(crowd, SHORT, cache=cache, workers=2, progress=kill)
        assert list(cache.iterdir()) == []

    def test_a_worker_that_meets_a_changed_file(self, tmp_path: Path, dataset: Dataset):
        missing = tuple(Clip(f"cat/{i}.wav", 0, None, "x", str(i)) for i in range(10, 90))
        with pytest.raises(FileNotFoundError):
            get(replace(dataset, clips=missing), tmp_path / "cache", workers=2)
        assert list((tmp_path / "cache").iterdir()) == []

    @pytest.mark.parametrize("many", ["threads", "processes"])
    def test_an_interrupt_ends_the_workers(self, many: str, crowd: Dataset, cache: Path):
        dataset = MANY if many == "threads" else crowd

        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        started, threads = time.monotonic(), set(threading.enumerate())
        with pytest.raises(KeyboardInterrupt):
            features_of(dataset, SHORT, cache=cache, workers=2, progress=interrupt)
        assert time.monotonic() - started < 10
        assert multiprocessing.active_children() == []
        assert set(threading.enumerate()) <= threads
        assert list(cache.iterdir()) == []

    def test_main_is_itself_again(self, crowd: Dataset, cache: Path):
        main = sys.modules["__main__"]
        get(crowd, cache, SHORT, workers=2)
        assert sys.modules["__main__"] is main
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def test_two_writers_of_one_key(self, tmp_path: Path):
        with ThreadPoolExecutor(2) as threads:
            both = list(threads.map(lambda n: get(MANY, tmp_path, workers=n), (1, 1)))
        assert both[0].array.tobytes() == both[1].array.tobytes()
        assert [f.name for f in tmp_path.iterdir()] == [both[0].key]
        assert get(MANY, tmp_path).cached


SCRIPT = """
import sys, time
from pathlib import Path
print("main", flush=True)
import hashlib
import numpy, soundfile
from features.cache import features_of
from features.clips import Clip, Dataset
from features.spec import WaveformSpec

root = Path(sys.argv[1]).parent
soundfile.write(root / "click.wav", numpy.zeros(80), 8_000)
content = hashlib.sha256((root / "click.wav").read_bytes()).hexdigest()
clips = tuple(Clip("click.wav", 0, None, str(i), content) for i in range(5000))
dataset = Dataset("folder", root, ("click", "clack"), clips)

def progress(done, total):
    print("progress", flush=True)
    if sys.argv[2] == "hang":
        time.sleep(60)

made = features_of(
    dataset,
    WaveformSpec(sample_rate=8000, seconds=0.01),
    cache=Path(sys.argv[1]),
    workers=2,
    progress=progress,
)
print("torch", "torch" in sys.modules, "librosa" in sys.modules)
print("made", made.array.shape)
"""


class TestParents:
    """The process that starts the workers may be of any kind, and may end in any way."""

    @pytest.fixture
    def script(self, tmp_path: Path) -> Path:
        path = tmp_path / "script.py"
        path.write_text(SCRIPT)
        return path

    def start(self, script: Path, mode: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(script), str(script.parent / "cache"), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for_progress(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        assert any(line == "progress\n" for line in process.stdout)

    def test_script_without_a_guard_runs_once(self, script: Path):
        out, error = self.start(script, "short").communicate(timeout=60)
        assert error == ""
        assert out.count("main") == 1
        assert "torch False False" in out
        assert "made (5000, 1, 80)" in out

    def test_command_line_snippet(self, script: Path):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(script.parent / "cache"), "short"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""
        assert done.stdout.count("main") == 1

    def test_interrupt_of_the_terminal(self, script: Path):
        process = self.start(script, "hang")
        self.wait_for_progress(process)
        os.killpg(process.pid, signal.SIGINT)
        # The pipes close only when every worker has ended too.
        _, error = process.communicate(timeout=60)
        assert process.returncode != 0
        assert error.count("Traceback") == 1
        assert error.strip().endswith("KeyboardInterrupt")
        assert list((script.parent / "cache").iterdir()) == []

    def test_workers_end_with_a_killed_parent(self, script: Path):
        process = self.start(script, "hang")
        self.wait_for_progress(process)
        process.kill()
        process.communicate(timeout=60)


class TestCacheRoot:
    def test_own_variable_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
        monkeypatch.setenv("FOLDGRID_CACHE", str(tmp_path))
        assert cache_root() == tmp_path
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FOLDGRID_CACHE", "here")
        assert cache_root() == tmp_path / "here"

    def test_then_xdg_then_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("FOLDGRID_CACHE", "")
        monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
        assert cache_root() == Path("/xdg/foldgrid")
        for value in ("", "relative"):
            monkeypatch.setenv("XDG_CACHE_HOME", value)
            assert cache_root() == tmp_path / ".cache" / "foldgrid"


@pytest.mark.esc10
@pytest.mark.skipif("ESC10_DIR" not in os.environ, reason="ESC10_DIR is not set")
def test_the_real_clips(tmp_path: Path):
    dataset = load_esc10(Path(os.environ["ESC10_DIR"]))
    spec = WaveformSpec(sample_rate=8000, windows=Windows(seconds=1.0, hop=0.5))
    made = get(dataset, tmp_path, spec, workers=2)
    assert made.array.shape == (400, 9, 8000)
    assert made.bad == ()
    assert np.isfinite(made.array).all()
    assert get(dataset, tmp_path, spec).cached
