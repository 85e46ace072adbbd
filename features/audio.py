"""From a file to a waveform: decode, mix down to mono, resample, fit to one length."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from features import synthetic
from features.clips import Clip, Dataset, DatasetError
from features.formats import Format, lacks_end, missing_bytes, sniff
from features.native_stderr import muted

_BLOCK = 1 << 23
"""Frames decoded at a time. Between blocks we seek, which an MP3 file's decoder takes for a new
beginning: as few of them as memory allows."""

_MOST_IN_BLOCK = 1 << 24
"""Samples of all channels in a block: a header may claim a thousand channels."""

_MOST_SAMPLES = 1 << 29
"""Of all channels together: 3 hours of one channel at 48 kHz. A few bytes may stand for any number
of samples, silence in FLAC for example."""

_MOST_RESAMPLED = 1 << 28
"""After resampling: 4.6 hours at 16 kHz. A file may say that it has one sample a second."""

_LOUDEST = 1e12
"""Of a sample's magnitude: the power of a louder one goes beyond float32."""

_SMALL_BLOCK = 1 << 12
"""Where decoding breaks off, the frames of the block at hand are lost."""


class BadClip(ValueError):  # noqa: N818 - the clip is bad, the program did not err
    """A clip that cannot be used; the message is one line and says why, without the path."""


def read_clip(dataset: Dataset, clip: Clip, sample_rate: int) -> NDArray[np.float32]:
    """Decode a clip and bring it to a rate, Hz: `float32 [samples]`; see `read_waveform`.

    Raises:
        BadClip: what `decode` raises, or a rate that cannot be converted.
        DatasetError: the file's content is not that of `clip.sha256` any more.
        OSError: the file cannot be read.
    """
    return resample(*read_waveform(dataset, clip), sample_rate)


def read_waveform(dataset: Dataset, clip: Clip) -> tuple[NDArray[np.float32], int]:
    """Decode a clip, whatever its extension says: WAV, FLAC, OGG, MP3 and what libsndfile knows.

    Args:
        dataset: where the clip is from.
        clip: one of its clips.

    Returns:
        `float32 [samples]`, mono (the mean of the channels), -1..1 except for files that hold
        floating-point numbers beyond; and its rate, Hz.

    Raises:
        BadClip: what `decode` raises.
        DatasetError: the file's content is not that of `clip.sha256` any more.
        OSError: the file cannot be read.
    """
    if dataset.root is None:
        return synthetic.render(clip.path)
    path = dataset.root / clip.path
    with path.open("rb", buffering=0) as file, _unchanged(file, path):
        content = file.readall()
        if hashlib.sha256(content).hexdigest() != clip.sha256:
            raise _changed(path)
        return decode(content, file)


@contextmanager
def _unchanged(file: io.FileIO, path: Path) -> Iterator[None]:
    """Raise DatasetError if somebody writes to the file until the end of the context."""
    before = os.fstat(file.fileno()).st_mtime_ns
    try:
        yield
    finally:
        if os.fstat(file.fileno()).st_mtime_ns != before:
            raise _changed(path)


def _changed(path: Path) -> DatasetError:
    return DatasetError(f"{path}: changed while it was in use")


@dataclass(frozen=True)
class Decoded:
    """What is in an audio file.

    Attributes:
        samples: `float32 [frames, channels]`, at least one of each.
        rate: Hz.
        encoding: of a sample, as libsndfile names it: `PCM_16`, `FLOAT`, `VORBIS`.
        problem: why the file is a bad clip although something could be decoded; else empty.
    """

    samples: NDArray[np.float32]
    rate: int
    encoding: str
    problem: str


def decode(content: bytes, file: io.FileIO | None = None) -> tuple[NDArray[np.float32], int]:
    """The waveform in a file's content, `float32 [samples]` mono, and its rate, Hz.

    Args:
        content: of a whole file.
        file: the same file, open for reading, its position anywhere; of no use where it cannot
            be sought in. libsndfile reads it by itself: for bytes it asks Python, a kilobyte at a
            time, and in threads each call waits for the interpreter.

    Raises:
        BadClip: not decodable, no samples, cut off in the middle, NaN or infinite samples.
    """
    decoded = decode_all(content, file)
    if decoded.problem:
        raise BadClip(decoded.problem)
    return mono(decoded.samples), decoded.rate


def mono(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the channels, `float32 [frames]` of `[frames, channels]`."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)


def decode_all(content: bytes, file: io.FileIO | None = None) -> Decoded:
    """Everything that can be decoded of a file's content, of a broken one too; see `decode`.

    Raises:
        BadClip: not decodable at all, or no samples.
    """
    if not content:
        raise BadClip("empty file")
    try:
        with _quiet(content), _sound(content, file) as sound:
            rate, encoding, claimed = int(sound.samplerate), str(sound.subtype), int(sound.frames)
            blocks, broken = _read(sound, _BLOCK)
        if broken:
            with _quiet(content), _sound(content, file) as sound:
                blocks, broken = _read(sound, _SMALL_BLOCK)
    except soundfile.LibsndfileError as error:
        raise BadClip(f"not decodable: {_reason(error)}") from None
    if not blocks:
        raise BadClip(f"not decodable: {broken}" if broken else "no samples")
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    if broken:
        broken = f"truncated: only {len(samples)} frames can be decoded ({broken})"
    problems = [
        broken or _truncation(content, len(samples), claimed),
        _out_of_range(samples),
    ]
    return Decoded(samples, rate, encoding, "; ".join(filter(None, problems)))


def _quiet(content: bytes) -> AbstractContextManager[None]:
    """No word on standard error from whatever decodes this; in OGG and FLAC there is none."""
    return nullcontext() if sniff(content) in (Format.OGG, Format.FLAC) else muted()


def _sound(content: bytes, file: io.FileIO | None) -> _Sound:
    # Neither has a name: soundfile would believe the extension `.raw` of one.
    if file is None or not file.seekable():
        return _Sound(_Content(content))
    file.seek(0)
    return _Sound(file.fileno(), closefd=False)


class _Sound(soundfile.SoundFile):  # type: ignore[misc]
    """An audio file that is read from its beginning to its end.

    After each read of a file that it can seek in, soundfile seeks to where it is: in OGG that
    costs a tenth of the decoding. Whoever reads on after a block seeks himself.
    """

    def seekable(self) -> bool:
        """No, as far as soundfile is to know."""
        return False


class _Content(io.BytesIO):
    """A file's bytes for libsndfile, whose header may send it to before their beginning."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Stay where there is no such place: an error here would only be printed."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _read(sound: _Sound, size: int) -> tuple[list[NDArray[np.float32]], str]:
    """Blocks as far as they can be decoded, and why no further, or nothing."""
    blocks: list[NDArray[np.float32]] = []
    total = 0
    try:
        for block in _blocks(sound, max(1, min(size, _MOST_IN_BLOCK // sound.channels))):
            blocks.append(block)
            total += block.size
            if total > _MOST_SAMPLES:
                raise BadClip(f"too long: more than {_MOST_SAMPLES} samples")
    except soundfile.LibsndfileError as error:
        return blocks, _reason(error)
    return blocks, ""


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).rstrip(".").removeprefix("Error : ")


def _truncation(content: bytes, read: int, claimed: int) -> str:
    """What is missing of a file that was cut off, or nothing."""
    # The length of an MP3 file is exact, but for its padding, or estimated from its size.
    if sniff(content) is Format.MP3 and read < 0.9 * claimed < 1 << 40:
        return f"truncated: {read} of about {claimed} frames are there"
    missing = missing_bytes(content)
    if missing:
        return f"truncated: {missing[0]} of {missing[1]} bytes of samples are there"
    return "truncated: the last page of the stream is missing" if lacks_end(content) else ""


def _out_of_range(samples: NDArray[np.float32]) -> str:
    # One fast pass; a sum of squares that is NaN or infinite is not small either.
    every = samples.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = float(np.dot(every, every))
    if squares <= _LOUDEST**2:
        return ""
    # NaN is the largest and the smallest of all to numpy.
    peak = max(float(samples.max()), -float(samples.min()))
    if peak <= _LOUDEST:
        return ""
    wrong = int(samples.size - np.isfinite(samples).sum())
    if wrong:
        return f"NaN or infinite samples: {wrong} of {samples.size}"
    return f"samples up to {peak:.3g}, beyond {_LOUDEST:g}"


def resample(waveform: NDArray[np.float32], rate: int, target: int) -> NDArray[np.float32]:
    """The waveform `float32 [samples]` at another rate, both in Hz (soxr, high quality).

    Raises:
        BadClip: the rate is beyond what can be converted, too many samples come out, or none.
    """
    if rate == target:
        return waveform
    refuse_too_long(len(waveform), rate, target)
    try:
        resampled = np.asarray(soxr.resample(waveform, rate, target), np.float32)
    except (ValueError, RuntimeError):
        raise BadClip(f"cannot be resampled from {rate} Hz to {target} Hz") from None
    if not len(resampled):
        raise BadClip(f"no samples at {target} Hz")
    return resampled


def refuse_too_long(samples: int, rate: int, target: int) -> None:
    """Raise BadClip where too many samples come out at another rate, both in Hz."""
    if samples * target > _MOST_RESAMPLED * rate:
        hours = samples / rate / 3600
        raise BadClip(f"too long: {hours:.1f} hours at {rate} Hz are too much at {target} Hz")


def scale(
    waveform: NDArray[np.float32], normalize: Literal["peak", "rms"] | None
) -> NDArray[np.float32]:
    """A waveform `float32 [n]` at a level of its own, or as it is; a silent one as it is.

    Args:
        waveform: `n` at least 1.
        normalize: `peak`: the largest magnitude becomes 1; `rms`: the root mean square does.
    """
    if normalize is None:
        return waveform
    exact = waveform.astype(np.float64)
    level = np.abs(exact).max() if normalize == "peak" else np.sqrt(np.mean(exact**2))
    return (exact / level).astype(np.float32) if level > 0 else waveform


def fit_length(
    waveform: NDArray[np.float32], samples: int, fit: Literal["pad", "loop"]
) -> NDArray[np.float32]:
    """Bring a waveform to a length; a longer one keeps its start.

    Args:
        waveform: `float32 [n]`, `n` at least 1.
        samples: the length wanted.
        fit: fill a shorter one at its end with silence (`pad`) or with itself (`loop`).

    Returns:
        `float32 [samples]`.
    """
    if len(waveform) >= samples:
        return waveform[:samples]
    if fit == "loop":
        return np.resize(waveform, samples)
    return np.pad(waveform, (0, samples - len(waveform)))


def _blocks(file: _Sound, size: int) -> Iterator[NDArray[np.float32]]:
    """What can be decoded, `float32 [frames, channels]` at a time.

    In blocks, as the length that a broken header claims may exceed any memory; and by `read`, as
    soundfile's own `blocks` believes that length and fills up with whatever it had before.
    """
    position = 0
    while position < file.frames:
        block = file.read(min(size, file.frames - position), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block
        position += len(block)
        if position < file.frames:
            # In a damaged file it may lead elsewhere.
            position = file.seek(position)
