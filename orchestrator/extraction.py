"""Extraction: the features of an experiment, from the cache or made with a progress bar."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from features.cache import Extraction, cache_root, features_of
from features.clips import Clip
from features.spec import FeatureSpec
from orchestrator import atomic
from orchestrator.errors import FoldgridError, InterruptionError, LostError
from orchestrator.experiment import Experiment
from orchestrator.progress import counted
from orchestrator.provenance import usable_cores
from orchestrator.sweep import Sweep

_log = logging.getLogger(__name__)

_INTERRUPTED = "interrupted while features were extracted; the same command begins with them again"


def extract(
    experiment: Experiment, spec: FeatureSpec, console: Console, stop: Callable[[], bool]
) -> Extraction:
    """The features of every clip, from the cache or extracted with a progress bar.

    Args:
        experiment: whose clips.
        spec: kind and parameters.
        console: where progress is shown.
        stop: asked after every few clips; once it says so, nothing is kept.

    Raises:
        FoldgridError: there can be no cache.
        InterruptionError: it was stopped.
        LostError: the cache was lost on the way, or a worker process died.
    """
    clips = len(experiment.dataset.clips)
    begun = time.monotonic()
    cache = usable_cache()
    try:
        with counted(console, f"extracting {spec.kind}", clips) as show:

            def progress(done: int, total: int) -> None:
                show(done, total)
                if stop() and done < total:
                    raise InterruptionError(_INTERRUPTED)

            extraction = features_of(
                experiment.dataset,
                spec,
                cache=cache,
                workers=usable_cores(),
                progress=progress,
            )
    except (OSError, RuntimeError) as error:
        if stop():
            # A signal to the whole process group ends the workers, too, or their pipes.
            raise InterruptionError(_INTERRUPTED) from None
        raise _lost(error, cache) from error
    how = "read from the cache" if extraction.cached else "extracted"
    _log.info("%s: %d clips %s, %.2f s", spec.kind, clips, how, time.monotonic() - begun)
    return extraction


def _lost(error: OSError | RuntimeError, cache: Path) -> LostError:
    if not isinstance(error, OSError):
        return LostError(f"feature cache {cache}: {error}")
    place = error.filename or f"feature cache {cache}"
    return LostError(f"{place}: {error.strerror or error}")


def usable_cache() -> Path:
    """The folder of the feature cache, made where there is none.

    Raises:
        FoldgridError: it cannot be made or written to.
    """
    cache = cache_root()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        atomic.remove_abandoned(cache)
        atomic.probe(cache)
    except OSError as error:
        allowed = "a folder to write to (set FOLDGRID_CACHE to another)"
        reason = error.strerror or type(error).__name__
        raise FoldgridError(f"feature cache {cache}: found {reason}; allowed {allowed}") from error
    return cache


def bad_clip_lines(sweep: Sweep, bad: Sequence[tuple[Clip, str]]) -> list[str]:
    """One fault for each clip that cannot be used."""
    place = sweep.source.place(("data",))
    allowed = "readable audio (or data.on_bad_clip: skip)"
    return [f"{place}: data: found bad clip {c.path} ({p}); allowed {allowed}" for c, p in bad]
