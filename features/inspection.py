"""Inspection: what is in an audio file, and everything about it that one should know."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from features.audio import BadClip, Decoded, decode_all
from features.formats import Format, promised, sniff

SHORTEST_SECONDS = 0.01
"""A shorter clip holds less than one period of a tone of 100 Hz."""

SILENCE = 1e-4
"""A clip whose largest sample is below, -80 dB of full scale, is called silent."""

_FULL_SCALE = 32767 / 32768
_CLIPPED_RUN = 3
"""So many neighbouring samples at full scale are no coincidence."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """One file, looked at.

    Attributes:
        format: by its content; None where that is of no known format.
        extension: with its dot, as written; empty without one.
        encoding: of a sample, as libsndfile names it; empty where nothing could be decoded.
        seconds: length; 0 where nothing could be decoded.
        rate: Hz; likewise.
        channels: likewise.
        peak: the largest sample's magnitude, 1 being full scale; NaN and infinity left out.
        problem: why `run` refuses the clip; empty for a good one.
        remarks: what else is odd; none of it stops a run.
    """

    format: Format | None
    extension: str
    encoding: str = ""
    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    peak: float = 0.0
    problem: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def issues(self) -> tuple[str, ...]:
        """The problem, if there is one, and the remarks."""
        return (self.problem, *self.remarks) if self.problem else self.remarks


def inspect(
    path: PurePath, content: bytes, file: io.FileIO | None = None
) -> tuple[Inspection, Decoded | None]:
    """Look at a file's content under the name that it has; what could be decoded comes along.

    The file itself is decoded where it is open: see `features.audio.decode`.

    1. `problem` is what `features.audio.decode` says: the reader of `run` decides.
    2. An extension that promises another format, or none of audio, is a remark: the reader goes
       by the content.
    3. Shorter than 10 ms, silent (peak below -80 dB) and clipped (three neighbouring samples at
       full scale) are remarks.
    """
    found, extension = sniff(content), path.suffix
    remarks = tuple(filter(None, [_extension_remark(path, found)]))
    try:
        decoded = decode_all(content, file)
    except BadClip as problem:
        what = f"{found} content" if found else "text" if _is_text(content) else ""
        named = f"{problem} ({what})" if what else str(problem)
        return Inspection(found, extension, problem=named, remarks=remarks), None
    finite = decoded.samples[np.isfinite(decoded.samples)]
    peak = float(np.abs(finite).max(initial=0.0))
    inspection = Inspection(
        format=found,
        extension=extension,
        encoding=decoded.encoding,
        seconds=len(decoded.samples) / decoded.rate,
        rate=decoded.rate,
        channels=decoded.samples.shape[1],
        peak=peak,
        problem=decoded.problem,
        remarks=(*remarks, *_sound_remarks(decoded, peak)),
    )
    return inspection, decoded


def _extension_remark(path: PurePath, found: Format | None) -> str:
    expected = promised(path)
    if found is None or expected is found:
        return ""
    if not path.suffix:
        return f"no extension, {found} content"
    return f"wrong extension {path.suffix}, {found} content"


def _is_text(content: bytes) -> bool:
    """Whether a file begins with printable text."""
    try:
        # The last character may be cut in two.
        head = content[:1024].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < 1020:
            return False
        head = content[: error.start].decode("utf-8")
    return bool(head) and all(c.isprintable() or c.isspace() for c in head)


def _sound_remarks(decoded: Decoded, peak: float) -> list[str]:
    remarks = []
    seconds = len(decoded.samples) / decoded.rate
    if seconds < SHORTEST_SECONDS:
        remarks.append(f"short: {1000 * seconds:.3g} ms")
    if peak < SILENCE:
        remarks.append("silent")
    elif clipped := _clipped(decoded.samples):
        remarks.append(f"clipped: {clipped} samples at full scale")
    return remarks


def _clipped(samples: NDArray[np.float32]) -> int:
    """Samples at full scale, if so many of them are neighbours that the sound was cut off."""
    full = np.abs(samples) >= _FULL_SCALE
    if len(full) < _CLIPPED_RUN:
        return 0
    runs = full[:-2] & full[1:-1] & full[2:]
    return int(full.sum()) if runs.any() else 0
