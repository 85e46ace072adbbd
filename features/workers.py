"""The features of many clips, extracted in parallel straight into a file on disk.

A worker process gets a slice of the dataset, writes its rows into the array file at their place
and sends back nothing but the clips that it could not use.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path

from features.clips import Dataset
from features.spec import FeatureSpec

# A worker imports numpy, soundfile and soxr for waveforms (0.3 s), torch and torchaudio for the
# rest (2 s and more); for fewer clips than these, one process is done sooner.
_POOL_PAYS = {"waveform": 64, "log_mel": 256, "mfcc": 256, "mel_image": 256}

_LARGEST_CHUNK = 16
"""Clips a task: few enough for a smooth progress bar and a quick end after an interrupt."""

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


def extract_all(
    dataset: Dataset, spec: FeatureSpec, rows: RowFile, workers: int, progress: Progress
) -> dict[int, str]:
    """Write the features of every clip, row `i` being that of `dataset.clips[i]`.

    Rows of clips that cannot be used are NaN, or 0 in uint8. The result does not depend on
    `workers`.

    Args:
        dataset: the clips.
        spec: kind and parameters.
        rows: where the rows go.
        workers: processes; with 1, or with few clips, this process does the work itself.
        progress: called with the number of clips done and of all.

    Returns:
        What is wrong with each clip that cannot be used, by index.

    Raises:
        DatasetError: a file's content has changed since it was listed.
        OSError: a file cannot be read, or the array not be written.
        RuntimeError: a worker process died.
    """
    if workers > 1 and len(dataset.clips) >= _POOL_PAYS[spec.kind]:
        return _in_pool(dataset, spec, rows, workers, progress)
    return _in_this_process(dataset, spec, rows, progress)


def _in_this_process(
    dataset: Dataset, spec: FeatureSpec, rows: RowFile, progress: Progress
) -> dict[int, str]:
    bad: dict[int, str] = {}
    total = len(dataset.clips)
    with _one_thread(spec):
        for start, stop in _chunks(total, 1):
            bad |= _extract_rows(_part(dataset, start, stop), spec, rows, start)
            progress(stop, total)
    return bad


def _in_pool(
    dataset: Dataset, spec: FeatureSpec, rows: RowFile, workers: int, progress: Progress
) -> dict[int, str]:
    bad: dict[int, str] = {}
    done, total = 0, len(dataset.clips)
    # Not fork: a process with the threads of torch or Ray in it cannot safely be forked.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    try:
        sizes: dict[Future[dict[int, str]], int] = {}
        with _quiet_start():
            for start, stop in _chunks(total, workers):
                part = _part(dataset, start, stop)
                sizes[pool.submit(_extract_rows, part, spec, rows, start)] = stop - start
        for future in as_completed(sizes):
            bad |= future.result()
            done += sizes[future]
            progress(done, total)
    except BrokenProcessPool:
        raise RuntimeError(
            "a worker process died while it extracted features (out of memory, or killed?); "
            "fewer workers need less memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return dict(sorted(bad.items()))


def _extract_rows(part: Dataset, spec: FeatureSpec, rows: RowFile, first: int) -> dict[int, str]:
    """Write the rows from index `first` on, one for each clip of the part."""
    import numpy as np

    from features.audio import BadClip, fit_length, read_clip, scale
    from features.extract import extract

    bad: dict[int, str] = {}
    dtype = np.dtype(spec.stored_dtype).newbyteorder("<")
    blank = np.nan if dtype.kind == "f" else 0
    # Written, not mapped into memory: a full disk is then an error and no fatal signal.
    with rows.path.open("r+b") as file:
        file.seek(rows.offset + first * rows.row_bytes)
        for index, clip in enumerate(part.clips, first):
            try:
                waveform = scale(read_clip(part, clip, spec.sample_rate), spec.normalize)
                array = extract(fit_length(waveform, spec.samples, spec.fit), spec)
            except BadClip as problem:
                bad[index] = str(problem)
                array = np.full(spec.stored_shape, blank, dtype)
            file.write(np.ascontiguousarray(array, dtype).data)
    return bad


def _part(dataset: Dataset, start: int, stop: int) -> Dataset:
    return replace(dataset, clips=dataset.clips[start:stop])


def _chunks(total: int, workers: int) -> Iterator[tuple[int, int]]:
    size = max(1, min(_LARGEST_CHUNK, total // (4 * workers)))
    return ((start, min(start + size, total)) for start in range(0, total, size))


def _start_worker() -> None:
    """Runs first in each worker, before numpy is imported."""
    # An interrupt is the parent's affair: it lets running tasks end and cancels the others.
    for number in _PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    # What goes wrong in a task reaches the parent; a pool that ends is no news for the terminal.
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as long as we live
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
def _one_thread(spec: FeatureSpec) -> Iterator[None]:
    """Let this process compute as a worker does: sums may depend on the number of threads."""
    backend = getattr(spec, "backend", None)
    with ExitStack() as stack:
        if backend == "torchaudio" or spec.kind == "mel_image":
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        if backend == "librosa":
            import numpy  # noqa: F401 - only libraries already loaded are limited
            from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

            stack.enter_context(threadpool_limits(1))
        yield
