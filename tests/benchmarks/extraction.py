"""Clips a second of feature extraction, beside what decoding, resampling and mel alone allow.

    python tests/benchmarks/extraction.py [--kinds waveform log_mel mfcc mel_image] [--rounds 5]

The clips are ESC-10 where ESC10_DIR says, else as many synthetic sounds, written as WAV, FLAC and
OGG. Every line is measured once in each round, one after the other, each in new processes; printed
are medians. Clips are brought to 16 kHz and 5 s; log_mel has 80 bands, windows of 1024 samples.

    librosa loop   `librosa.load` and `librosa.feature` on one clip after the other
    limit          `soundfile.read`, `soxr.resample` and torchaudio's transform, nothing else: one
                   process a core, each taking the next clip, all cores busy
    foldgrid, N    `features_of` with N workers: files hashed, checked, decoded, features checked,
                   written into the cache and hashed again
    foldgrid, x5   the same with every clip five times, without warming up

Columns:
    start s    until the first clip is done: interpreter, imports, what is compiled or looked up
    clips/s    without start-up (the line x5: with it)
    of limit   clips/s over that of the limit in the same round
    whole s    from the start of the process to its last clip, start-up included
    cached s   `features_of` again, from loading the data set to the array: found in the cache

Below: the command `foldgrid features` as a whole, with an empty cache and then a full one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.clips import Dataset
    from features.spec import FeatureSpec

RATE, SECONDS = 16_000, 5.0
COPIES = 5
LIBROSA_CLIPS = 100
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}


@dataclass(frozen=True)
class Measured:
    """One line of one round.

    Attributes:
        start: seconds until the first clip.
        rate: clips a second without start-up.
        whole: seconds of everything, for all clips.
        cached: seconds of a cached start; 0 where there is none.
    """

    start: float
    rate: float
    whole: float
    cached: float = 0.0


def dataset_of(root: Path) -> Dataset:
    """ESC-10, or the folder that `write_clips` made."""
    from features.datasets import load_esc10, load_folder

    return load_folder(root) if (root / "made").exists() else load_esc10(root)


def spec_of(kind: str) -> FeatureSpec:
    """The parameters of a kind that the other lines use too."""
    from features.spec import FEATURE_KINDS

    return FEATURE_KINDS[kind](sample_rate=RATE, seconds=SECONDS)


def paths_of(root: Path) -> list[Path]:
    """The files of every clip, without the use of foldgrid's loaders."""
    return sorted(p for p in root.rglob("*") if p.suffix in (".ogg", ".wav", ".flac"))


def write_clips(root: Path) -> None:
    """400 synthetic clips as WAV, FLAC and OGG at 44.1 kHz."""
    import numpy as np
    import soundfile

    from features.audio import fit_length, resample
    from features.datasets import load_synthetic
    from features.synthetic import render

    dataset = load_synthetic()
    for index, clip in enumerate(dataset.clips[:400]):
        waveform = resample(*render(clip.path), 44_100)
        suffix = ("wav", "flac", "ogg")[index % 3]
        path = root / dataset.classes[clip.label] / f"{index:03d}.{suffix}"
        path.parent.mkdir(exist_ok=True, parents=True)
        samples = fit_length(waveform, int(44_100 * SECONDS), "loop")
        soundfile.write(path, np.clip(samples, -1, 1), 44_100)
    (root / "made").mkdir()


def bare(kind: str) -> Callable[[Path], Any]:
    """Decode, resample and transform one clip with the libraries alone."""
    import numpy as np
    import soundfile
    import soxr

    transform = bare_transform(kind)

    def clip(path: Path) -> Any:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
        waveform = soxr.resample(waveform, rate, RATE) if rate != RATE else waveform
        missing = max(0, int(RATE * SECONDS) - len(waveform))
        return transform(np.pad(waveform[: int(RATE * SECONDS)], (0, missing)))

    return clip


def bare_transform(kind: str) -> Callable[[Any], Any]:
    """torchaudio's and torchvision's own way from a waveform to the features, in float32."""
    if kind == "waveform":
        return lambda waveform: waveform
    import torch
    from torchaudio.transforms import MFCC, AmplitudeToDB, MelSpectrogram

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    scale = {"norm": "slaney", "mel_scale": "slaney", "pad_mode": "constant"}
    sizes = {"n_fft": 1024, "hop_length": 512, "n_mels": 80}
    decibels = AmplitudeToDB("power", 80.0)
    if kind == "mfcc":
        mfcc = MFCC(RATE, 40, melkwargs=sizes | scale)
        return lambda waveform: mfcc(torch.from_numpy(waveform)).numpy()
    mel = MelSpectrogram(RATE, **sizes, **scale)
    if kind == "log_mel":
        return lambda waveform: decibels(mel(torch.from_numpy(waveform))).numpy()
    from torchvision.transforms.v2.functional import resize

    def picture(waveform: Any) -> Any:
        shown = decibels(mel(torch.from_numpy(waveform)))[None]
        return resize(shown, [224, 224], antialias=True).numpy()

    return picture


def limit(kind: str, root: Path, workers: int, launched: float) -> Measured:
    """Bare extraction in one process a core, which start working together."""
    paths = paths_of(root)
    context = multiprocessing.get_context("spawn")
    # A worker that fails comes to no barrier.
    barrier, following = context.Barrier(workers + 1, timeout=300), context.Value("i", 0)
    crew = [
        context.Process(target=limit_worker, args=(kind, paths, barrier, following))
        for _ in range(workers)
    ]
    for process in crew:
        process.start()
    barrier.wait()
    begun = time.time()
    barrier.wait()
    ended = time.time()
    for process in crew:
        process.join()
    return Measured(begun - launched, len(paths) / (ended - begun), ended - launched)


def limit_worker(
    kind: str, paths: list[Path], barrier: Barrier, following: Synchronized[int]
) -> None:
    """Take one clip after the other as long as there are any."""
    clip = bare(kind)
    clip(paths[0])
    barrier.wait()
    for index in _indices(following, len(paths)):
        clip(paths[index])
    barrier.wait()


def _indices(following: Synchronized[int], count: int) -> Iterator[int]:
    while True:
        with following.get_lock():
            index = following.value
            following.value += 1
        if index >= count:
            return
        yield index


def librosa_loop(kind: str, root: Path, launched: float) -> Measured:
    """What a user would write; so slow that a part of the clips has to do."""
    import librosa
    import numpy as np

    sizes = {"n_fft": 1024, "hop_length": 512, "n_mels": 80}

    def clip(path: Path) -> Any:
        waveform, _ = librosa.load(path, sr=RATE)
        waveform = librosa.util.fix_length(waveform, size=int(RATE * SECONDS))
        if kind == "waveform":
            return waveform
        mel = librosa.feature.melspectrogram(y=waveform, sr=RATE, **sizes)
        if kind == "mfcc":
            return librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=40)
        if kind == "log_mel":
            return librosa.power_to_db(mel)
        import torch
        from torchvision.transforms.v2.functional import resize

        shown = torch.from_numpy(librosa.power_to_db(mel, ref=np.max))[None]
        return resize(shown, [224, 224], antialias=True).numpy()

    paths = paths_of(root)
    some = paths[:: max(1, len(paths) // LIBROSA_CLIPS)]
    clip(some[0])
    begun = time.time()
    for path in some:
        clip(path)
    rate = len(some) / (time.time() - begun)
    start = begun - launched
    return Measured(start, rate, start + len(paths) / rate)


def foldgrid(kind: str, root: Path, workers: int, launched: float) -> Measured:
    """Cold, again cold with everything loaded, and cached."""
    from features.cache import features_of

    spec = spec_of(kind)
    with tempfile.TemporaryDirectory() as name:

        def extracted(cache: str) -> tuple[float, int]:
            begun = time.time()
            dataset = dataset_of(root)
            made = features_of(dataset, spec, cache=Path(name, cache), workers=workers)
            return time.time() - begun, len(made.array)

        extracted("first")
        whole = time.time() - launched
        # What is still to be written to the disk would be on the account of the second one.
        shutil.rmtree(Path(name, "first"))
        seconds, clips = extracted("second")
        cached, _ = extracted("second")
    return Measured(whole - seconds, clips / seconds, whole, cached)


def foldgrid_large(kind: str, root: Path, workers: int, launched: float) -> Measured:
    """Cold, every clip several times."""
    from features.cache import features_of

    dataset = dataset_of(root)
    dataset = replace(dataset, clips=dataset.clips * COPIES)
    begun = time.time()
    with tempfile.TemporaryDirectory() as name:
        features_of(dataset, spec_of(kind), cache=Path(name), workers=workers)
        ended = time.time()
    return Measured(begun - launched, len(dataset.clips) / (ended - begun), ended - launched)


def measured(line: str, kind: str, root: Path) -> Measured:
    """Measure one line in a process of its own."""
    command = [sys.executable, __file__, "--line", line, "--kinds", kind, "--root", str(root)]
    own = {} if line == "librosa loop" else ONE_THREAD
    launched = {"LAUNCHED": repr(time.time())}
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, env=os.environ | own | launched
    ).stdout
    return Measured(**json.loads(output))


def work(line: str, kind: str, root: Path) -> Measured:
    """Do what a line of the table measures, in this process."""
    launched = float(os.environ["LAUNCHED"])
    if line == "limit":
        return limit(kind, root, cores(), launched)
    if line == "librosa loop":
        return librosa_loop(kind, root, launched)
    _, _, which = line.partition(", ")
    if which.startswith("x"):
        return foldgrid_large(kind, root, cores(), launched)
    return foldgrid(kind, root, int(which), launched)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commands(kind: str, root: Path) -> tuple[float, float]:
    """Seconds of the command with an empty cache and a full one."""
    with tempfile.TemporaryDirectory() as name:
        spec = Path(name, "spec.yaml")
        kind_of_data = "folder" if (root / "made").exists() else "esc10"
        features = {"kind": kind, "sample_rate": RATE, "seconds": SECONDS}
        data = {"dataset": kind_of_data, "root": str(root), "allow_leakage": True}
        folds = {"k": 5} if kind_of_data == "folder" else {"test": 1}
        model = {"name": "googlenet" if kind == "mel_image" else "cnn1d"}
        document = {"data": data, "features": features, "folds": folds, "model": model}
        spec.write_text(json.dumps(document), encoding="utf-8")
        command = [sys.executable, "-m", "orchestrator", "features", str(spec), "--quiet"]
        own = os.environ | {"FOLDGRID_CACHE": str(Path(name, "cache"))}
        times = []
        for _ in range(2):
            begun = time.time()
            subprocess.run(command, check=True, env=own, stdout=subprocess.DEVNULL)
            times.append(time.time() - begun)
    return times[0], times[1]


def report(kind: str, root: Path, rounds: int) -> None:
    """Measure and print one kind."""
    workers = cores()
    own = [f"foldgrid, {n}" for n in dict.fromkeys((1, workers))]
    lines = ["limit", *own, f"foldgrid, x{COPIES}", "librosa loop"]
    found: dict[str, list[Measured]] = {line: [] for line in lines}
    whole: list[tuple[float, float]] = []
    for _ in range(rounds):
        for line in lines:
            found[line].append(measured(line, kind, root))
        whole.append(commands(kind, root))
    print(f"\n{kind}: {len(paths_of(root))} clips, {workers} cores, medians of {rounds} rounds")
    print(f"{'':16}{'start s':>9}{'clips/s':>9}{'of limit':>10}{'whole s':>9}{'cached s':>10}")
    for line in lines:
        shown(line, found[line], found["limit"])
    cold, cached = (statistics.median(times) for times in zip(*whole, strict=True))
    print(f"foldgrid features: {cold:.2f} s with an empty cache, {cached:.2f} s with a full one")


def shown(line: str, own: list[Measured], limits: list[Measured]) -> None:
    """Print one line of the table."""
    share = statistics.median(a.rate / b.rate for a, b in zip(own, limits, strict=True))
    start, rate, whole, cached = (
        statistics.median(asdict(m)[field] for m in own)
        for field in ("start", "rate", "whole", "cached")
    )
    last = f"{cached:10.3f}" if cached else ""
    print(f"{line:16}{start:9.2f}{rate:9.1f}{share:10.3f}{whole:9.2f}{last}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["waveform", "log_mel"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--line", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.line:
        print(json.dumps(asdict(work(asked.line, asked.kinds[0], asked.root))))
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(os.environ.get("ESC10_DIR") or name)
        if "ESC10_DIR" not in os.environ:
            write_clips(root)
        for kind in asked.kinds:
            report(kind, root, asked.rounds)


if __name__ == "__main__":
    main()
