"""Check: every clip of a dataset, looked at before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from features import synthetic
from features.audio import BadClip, decode, resample
from features.clips import Clip, Dataset
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
    """

    clip: Clip
    inspection: Inspection
    duplicate_of: str

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
    with ThreadPoolExecutor(_THREADS) as pool:
        inspections = pool.map(lambda clip: _inspected(dataset, clip, rates), dataset.clips)
        for done, (clip, found) in enumerate(zip(dataset.clips, inspections, strict=True), 1):
            twin = first.setdefault(clip.sha256, clip.path)
            checked.append(CheckedClip(clip, found, "" if twin == clip.path else twin))
            progress(done, total)
    return tuple(checked)


def _inspected(dataset: Dataset, clip: Clip, rates: Sequence[int]) -> Inspection:
    path = PurePosixPath(clip.path)
    if dataset.root is None:
        waveform, rate = synthetic.render(clip.path)
        seconds, peak = len(waveform) / rate, float(abs(waveform).max())
        return Inspection(None, path.suffix, "FLOAT", seconds, rate, 1, peak)
    try:
        content = (dataset.root / clip.path).read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror or type(error).__name__}"
        return Inspection(None, path.suffix, problem=problem)
    found, _ = inspect(path, content)
    if found.problem or found.seconds >= SHORTEST_SECONDS:
        return found
    try:
        # Of so short a clip nothing may be left at another rate.
        for rate in rates:
            resample(*decode(content), rate)
    except BadClip as problem:
        return replace(found, problem=str(problem))
    return found
