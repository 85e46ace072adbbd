"""The features of many clips, extracted in parallel straight into a file on disk.

A worker gets a slice of the dataset, writes its rows into the array file at their place and gives
back nothing but the clips that it could not use, and fingerprints of the audio in the others.

Workers are threads: decoding, resampling and torch let go of the interpreter's lock, so threads
are as fast as processes, which would each spend a second or two on importing torch. They are
processes where the lock would be in the way (librosa), and for so many clips that their start
does not count: a decoder that crashes then takes one of them along and not the whole sweep.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from features.allocation import give_back_freed_memory, keep_freed_memory
from features.clips import Clip, Dataset
from features.spec import FeatureSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from features.arrays import FeatureArray
    from features.fingerprint import Fingerprint, Lowered

_PROCESSES_PAY = 4096
"""Clips, half a minute of work for one core."""

_PROCESSES_PAY_LIBROSA = 256
"""Clips; librosa takes ten seconds for the first one in each process."""

_LARGEST_CHUNK = 16
"""Clips a task: few enough for a smooth progress bar and a quick end after an interrupt."""

_DECODED_AHEAD = 64
"""Clips of a worker's first task: others decode while one imports torch."""

_MOST_HELD = 1 << 24
"""Samples after which a task decodes no further clip, but makes the features of those it has.

One after the other these take two thirds of the time that each takes between two clips' decoding,
which leaves the processor's caches full of something else.
"""

_PARENTS_SIGNALS = {signal.SIGINT, signal.SIGHUP}
"""What a terminal sends to all its processes. SIGTERM stays: it is how a broken pool is ended."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RowFile:
    """The array file under construction.

    Attributes:
        path: of the file, which has its full size from the start.
        offset: where the first row begins, bytes.
        row_bytes: length of a row, bytes.
    """

    path: Path
    offset: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What the extraction found out about the clips, by their index.

    Attributes:
        bad: what is wrong with each clip that cannot be used.
        fingerprints: of each clip that could be decoded.
    """

    bad: dict[int, str]
    fingerprints: dict[int, Fingerprint]


def extract_all(
    dataset: Dataset, spec: FeatureSpec, rows: RowFile, workers: int, progress: Progress
) -> Findings:
    """Write the features of every clip, row `i` being that of `dataset.clips[i]`.

    Rows of clips that cannot be used are NaN, or 0 in uint8. The result does not depend on
    `workers`.

    Args:
        dataset: the clips.
        spec: kind and parameters.
        rows: where the rows go.
        workers: threads or processes.
        progress: called in this thread with the number of clips done and of all.

    Raises:
        DatasetError: a file's content has changed since it was listed.
        OSError: a file cannot be read, or the array not be written.
        RuntimeError: a worker process died.
    """
    librosa = getattr(spec, "backend", None) == "librosa"
    pays = _PROCESSES_PAY_LIBROSA if librosa else _PROCESSES_PAY
    if workers > 1 and len(dataset.clips) >= pays:
        return _in_processes(dataset, spec, rows, workers, progress)
    return _in_threads(dataset, spec, rows, workers, progress)


def _in_threads(
    dataset: Dataset, spec: FeatureSpec, rows: RowFile, workers: int, progress: Progress
) -> Findings:
    with ExitStack() as limits:
        keep_freed_memory()
        limits.callback(give_back_freed_memory)
        pool = ThreadPoolExecutor(workers)
        ready = pool.submit(_prepare, spec, limits)

        def task(part: Dataset, first: int) -> Findings:
            return _extract_rows(part, spec, rows, first, ready)

        try:
            tasks = {
                pool.submit(task, _part(dataset, start, stop), start): stop - start
                for start, stop in _chunks(len(dataset.clips), workers, spec)
            }
            return _gathered(tasks, progress)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_processes(
    dataset: Dataset, spec: FeatureSpec, rows: RowFile, workers: int, progress: Progress
) -> Findings:
    # Not fork: a process with the threads of torch or Ray in it cannot safely be forked.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    try:
        with _quiet_start():
            tasks = {
                pool.submit(_extract_rows, _part(dataset, start, stop), spec, rows, start): (
                    stop - start
                )
                for start, stop in _chunks(len(dataset.clips), workers, spec)
            }
        return _gathered(tasks, progress)
    except BrokenProcessPool:
        raise RuntimeError(
            "a worker process died while it extracted features (out of memory, or killed?); "
            "fewer workers need less memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _gathered(tasks: dict[Future[Findings], int], progress: Progress) -> Findings:
    """What the tasks, of so many clips each, found out, in the order of the clips."""
    bad: dict[int, str] = {}
    fingerprints: dict[int, Fingerprint] = {}
    done, total = 0, sum(tasks.values())
    for task in as_completed(tasks):
        bad |= task.result().bad
        fingerprints |= task.result().fingerprints
        done += tasks[task]
        progress(done, total)
    return Findings(dict(sorted(bad.items())), dict(sorted(fingerprints.items())))


def _prepare(spec: FeatureSpec, limits: ExitStack) -> None:
    """Import and warm up what computes the features, which may take seconds."""
    import numpy as np

    from features.extract import extract

    limits.enter_context(one_thread(spec))
    extract(np.zeros(spec.samples, np.float32), spec)


@dataclass(frozen=True, slots=True)
class _Sound:
    """What is heard in a clip.

    Attributes:
        waveform: `float32 [spec.samples]`.
        whole: the clip from its beginning to its end, lowered.
    """

    waveform: NDArray[np.float32]
    whole: Lowered


def _extract_rows(
    part: Dataset,
    spec: FeatureSpec,
    rows: RowFile,
    first: int,
    ready: Future[None] | None = None,
) -> Findings:
    """Write the rows from index `first` on, one for each clip of the part.

    What computes the features is waited for when the first clips are decoded.
    """
    found = Findings({}, {})
    index = first
    # Written, not mapped into memory: a full disk is then an error and no fatal signal.
    with rows.path.open("r+b") as file:
        file.seek(rows.offset + first * rows.row_bytes)
        for group in _groups(part, spec):
            if ready is not None:
                ready.result()
            _write_rows(dict(enumerate(group, index)), spec, file, found)
            index += len(group)
    return found


def _write_rows(
    sounds: dict[int, _Sound | str], spec: FeatureSpec, file: BinaryIO, found: Findings
) -> None:
    """Write the rows of clips, by their index, where the file is, and add what is found."""
    import numpy as np

    from features.fingerprint import fingerprint

    dtype = np.dtype(spec.stored_dtype).newbyteorder("<")
    blank = np.nan if dtype.kind == "f" else 0
    for index, sound in sounds.items():
        array = _features(sound, spec)
        if isinstance(array, str):
            found.bad[index] = array
            array = np.full(spec.stored_shape, blank, dtype)
        # Windows overlap; one by one they are written from where they are.
        parts = [array] if array.flags.c_contiguous else array
        file.writelines(np.ascontiguousarray(part, dtype).data for part in parts)
    for index, sound in sounds.items():
        if not isinstance(sound, str):
            found.fingerprints[index] = fingerprint(sound.whole)


def _features(sound: _Sound | str, spec: FeatureSpec) -> FeatureArray | str:
    """The row of a clip, or why it cannot be used."""
    from features.audio import BadClip
    from features.extract import extract

    if isinstance(sound, str):
        return sound
    try:
        return extract(sound.waveform, spec)
    except BadClip as problem:
        return str(problem)


def _groups(part: Dataset, spec: FeatureSpec) -> Iterator[list[_Sound | str]]:
    """The sounds of clips in order, as many at a time as may be held.

    A list is empty when the next one is asked for.
    """
    group: list[_Sound | str] = []
    held = 0
    for clip in part.clips:
        group.append(_sound(part, clip, spec))
        held += _samples(group[-1])
        if held > _MOST_HELD:
            yield group
            group.clear()
            held = 0
    yield group


def _samples(sound: _Sound | str) -> int:
    return 0 if isinstance(sound, str) else len(sound.waveform) + len(sound.whole.samples)


def _sound(dataset: Dataset, clip: Clip, spec: FeatureSpec) -> _Sound | str:
    """A clip's sound, or why it cannot be used.

    Not the exception that says so: it would hold on to what has been decoded.
    """
    from features.audio import BadClip, fit_length, read_waveform, resample, scale
    from features.fingerprint import lowered

    try:
        decoded, rate = read_waveform(dataset, clip)
        waveform = scale(resample(decoded, rate, spec.sample_rate), spec.normalize)
        whole = lowered(decoded, rate)
    except BadClip as problem:
        return str(problem)
    fitted = fit_length(waveform, spec.samples, spec.fit)
    # A part of it would hold all of it.
    return _Sound(fitted.copy() if len(waveform) > spec.samples else fitted, whole)


def _part(dataset: Dataset, start: int, stop: int) -> Dataset:
    return replace(dataset, clips=dataset.clips[start:stop])


def _chunks(total: int, workers: int, spec: FeatureSpec) -> Iterator[tuple[int, int]]:
    """Start and stop of each task's clips.

    Those of the first few may be more, those of the last few are less and less: no worker ends
    much later than the others.
    """
    most = max(1, _MOST_HELD // spec.samples)
    ahead = 0 if spec.kind == "waveform" else workers - 1
    start = 0
    while start < total:
        size = _DECODED_AHEAD if ahead > 0 else _LARGEST_CHUNK
        stop = start + max(1, min(size, most, (total - start) // (4 * workers)))
        yield start, stop
        start, ahead = stop, ahead - 1


def _start_worker() -> None:
    """Runs first in each worker, before numpy is imported."""
    # An interrupt is the parent's affair: it lets running tasks end and cancels the others.
    for number in _PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    # What goes wrong in a task reaches the parent; a pool that ends is no news for the terminal.
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as long as we live
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this a worker would wait for tasks for ever when its parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Start worker processes that neither import `__main__` nor get the terminal's signals.

    A spawned process imports the script that its parent runs, which may be slow or, without a
    `__name__` guard, start everything again; the workers' code is all in this package.
    """
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def one_thread(spec: FeatureSpec) -> Iterator[None]:
    """Let this process compute as a worker does: sums may depend on the number of threads."""
    import numpy  # noqa: F401 - only libraries already loaded are limited
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with ExitStack() as stack:
        if getattr(spec, "backend", None) == "torchaudio" or spec.kind == "mel_image":
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        stack.enter_context(threadpool_limits(1))
        yield
