"""Check: every clip of a dataset, looked at before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from features import synthetic
from features.audio import BadClip, mono, resample
from features.clips import Clip, Dataset
from features.fingerprint import Fingerprint, fingerprint, lowered
from features.inspection import SHORTEST_SECONDS, Inspection, inspect

_THREADS = 4

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CheckedClip:
    """A clip and what was found.

    Attributes:
        clip: which.
        inspection: of its file.
        duplicate_of: path of the first clip with the same bytes; empty where it is the first.
        fingerprint: of its audio; None for a clip that cannot be used.
    """

    clip: Clip
    inspection: Inspection
    duplicate_of: str
    fingerprint: Fingerprint | None

    @property
    def issues(self) -> tuple[str, ...]:
        """Everything to be said about the clip."""
        same = (f"same bytes as {self.duplicate_of}",) if self.duplicate_of else ()
        return (*self.inspection.issues, *same)


def check(dataset: Dataset, rates: Sequence[int], progress: Progress) -> tuple[CheckedClip, ...]:
    """Look at every clip of a dataset, in its order.

    Args:
        dataset: the clips.
        rates: Hz, to which a run would bring them.
        progress: called with the number of clips done and of all.
    """
    total = len(dataset.clips)
    first: dict[str, str] = {}
    checked = []
    # Reading and decoding release the interpreter's lock for most of their time.
    with threadpool_limits(1), ThreadPoolExecutor(_THREADS) as pool:
        inspections = pool.map(lambda clip: _inspected(dataset, clip, rates), dataset.clips)
        for done, (clip, seen) in enumerate(zip(dataset.clips, inspections, strict=True), 1):
            twin = first.setdefault(clip.sha256, clip.path)
            checked.append(CheckedClip(clip, seen[0], "" if twin == clip.path else twin, seen[1]))
            progress(done, total)
    return tuple(checked)


def _inspected(
    dataset: Dataset, clip: Clip, rates: Sequence[int]
) -> tuple[Inspection, Fingerprint | None]:
    path = PurePosixPath(clip.path)
    if dataset.root is None:
        waveform, rate = synthetic.render(clip.path)
        seconds, peak = len(waveform) / rate, float(abs(waveform).max())
        found = Inspection(None, path.suffix, "FLOAT", seconds, rate, 1, peak)
        return found, fingerprint(lowered(waveform, rate))
    try:
        # Read and decoded as a run does it.
        with (dataset.root / clip.path).open("rb", buffering=0) as file:
            found, decoded = inspect(path, file.readall(), file)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or type(error).__name__}"
        return Inspection(None, path.suffix, problem=problem), None
    if decoded is None or found.problem:
        return found, None
    mark = fingerprint(lowered(mono(decoded.samples), decoded.rate))
    if found.seconds >= SHORTEST_SECONDS:
        return found, mark
    try:
        # Of so short a clip nothing may be left at another rate.
        for rate in rates:
            resample(mono(decoded.samples), decoded.rate, rate)
    except BadClip as problem:
        return replace(found, problem=str(problem)), None
    return found, mark
