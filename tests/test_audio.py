"""Decoding, mixing down, resampling and fitting of real files of many kinds."""

import hashlib
import io
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import audio
from features.audio import BadClip, decode, decode_all, fit_length, read_clip, resample, scale
from features.clips import Clip, Dataset, DatasetError
from features.datasets import load_synthetic
from features.recording import Recording
from features.spec import WaveformSpec


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def encoded(samples: NDArray[np.float64], rate: int, kind: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def dataset_of(path: Path, content: bytes) -> Dataset:
    """A dataset whose only clip has this content."""
    path.write_bytes(content)
    clip = Clip(path.name, 0, None, path.name, hashlib.sha256(content).hexdigest())
    return Dataset("folder", path.parent, ("x",), (clip,))


def read(path: Path, content: bytes, rate: int) -> NDArray[np.float32]:
    dataset = dataset_of(path, content)
    return read_clip(dataset, dataset.clips[0], rate)


def problem_of(path: Path, content: bytes) -> str:
    with pytest.raises(BadClip) as error:
        read(path, content, 16_000)
    problem = str(error.value)
    assert "\n" not in problem
    assert " at 0x" not in problem
    assert path.name not in problem
    return problem


def pitch(waveform: NDArray[np.float32], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


@pytest.mark.parametrize(
    ("kind", "subtype", "rate", "channels"),
    [
        ("WAV", "PCM_U8", 11_025, 2),
        ("WAV", "PCM_16", 44_100, 1),
        ("WAV", "PCM_24", 96_000, 1),
        ("WAV", "FLOAT", 8_000, 6),
        ("FLAC", "PCM_16", 22_050, 2),
        ("OGG", "VORBIS", 44_100, 2),
        ("MP3", "MPEG_LAYER_III", 48_000, 2),
    ],
)
def test_every_format_gives_the_same_tone(
    tmp_path: Path, kind: str, subtype: str, rate: int, channels: int
):
    samples = np.repeat(tone(rate)[:, None], channels, axis=1)
    waveform = read(tmp_path / "clip", encoded(samples, rate, kind, subtype), 16_000)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert len(waveform) == pytest.approx(8_000, abs=800 if kind == "MP3" else 1)
    assert pitch(waveform, 16_000) == pytest.approx(440, abs=4)
    middle = waveform[2_000:6_000]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, rel=0.03)


def test_channels_are_averaged(tmp_path: Path):
    left, right = tone(16_000, hertz=300), tone(16_000, hertz=700)
    content = encoded(np.stack([left, right], axis=1), 16_000, "WAV", "FLOAT")
    assert read(tmp_path / "a.wav", content, 16_000) == pytest.approx((left + right) / 2, abs=1e-6)


def test_same_rate_keeps_every_sample(tmp_path: Path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 1000) / 2**15
    content = encoded(samples, 16_000, "WAV", "PCM_16")
    assert np.array_equal(read(tmp_path / "a.wav", content, 16_000), samples.astype(np.float32))


@pytest.mark.parametrize("name", ["clip.mp3", "clip.raw", "clip.txt", "clip", "clip.flac"])
@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("OGG", "VORBIS")])
def test_content_decides_and_not_the_extension(tmp_path: Path, name: str, kind: str, subtype: str):
    waveform = read(tmp_path / name, encoded(tone(16_000), 16_000, kind, subtype), 16_000)
    assert pitch(waveform, 16_000) == pytest.approx(440, abs=4)


def test_longer_than_one_block():
    samples = np.random.default_rng(0).uniform(-1, 1, (1 << 23) + 7)
    waveform, rate = decode(encoded(samples, 8_000, "WAV", "FLOAT"))
    assert rate == 8_000
    assert np.array_equal(waveform, samples.astype(np.float32))


def test_a_truncated_wav_is_a_bad_clip_of_which_something_can_be_saved(tmp_path: Path):
    content = encoded(tone(16_000), 16_000, "WAV", "PCM_16")
    whole = read(tmp_path / "a.wav", content, 16_000)
    half = content[: len(content) // 2]
    held, claimed = len(half) - 44, len(content) - 44
    expected = f"truncated: {held} of {claimed} bytes of samples are there"
    assert problem_of(tmp_path / "b.wav", half) == expected
    part = decode_all(half).samples[:, 0]
    assert 0.4 < len(part) / len(whole) < 0.6
    assert np.array_equal(part, whole[: len(part)])


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_does_not_say_how_long_it_is(tmp_path: Path, claimed: int):
    content = bytearray(encoded(tone(16_000), 16_000, "WAV", "PCM_16"))
    content[40:44] = claimed.to_bytes(4, "little")
    if claimed:
        assert len(read(tmp_path / "a.wav", bytes(content), 16_000)) == 8_000


def test_header_that_claims_more_than_memory_holds():
    content = bytearray(encoded(tone(16_000), 16_000, "FLAC", "PCM_16"))
    # The last 36 bits before the checksum of STREAMINFO: the number of samples.
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    try:
        waveform, _ = decode(bytes(content))
    except BadClip:
        return
    assert len(waveform) <= 8_000


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.wav", b"", "empty file"),
        ("text.wav", b"path,label\na.wav,dog\n" * 50, "not decodable: Format not recognised"),
        ("zeros.ogg", bytes(5_000), "not decodable"),
        ("head.wav", b"RIFF\x24\0\0\0WAVE", "not decodable"),
    ],
)
def test_what_is_no_audio(tmp_path: Path, name: str, content: bytes, problem: str):
    assert problem_of(tmp_path / name, content).startswith(problem)


def test_no_samples(tmp_path: Path):
    content = encoded(np.zeros(0), 16_000, "WAV", "PCM_16")
    assert problem_of(tmp_path / "a.wav", content) == "no samples"
    content = encoded(np.zeros(1), 48_000, "WAV", "PCM_16")
    assert problem_of(tmp_path / "a.wav", content) == "no samples at 16000 Hz"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(tmp_path: Path, value: float):
    samples = tone(16_000)
    samples[-1] = value
    content = encoded(samples, 16_000, "WAV", "FLOAT")
    assert problem_of(tmp_path / "a.wav", content).startswith("NaN or infinite samples: ")


def test_a_file_changed_since_it_was_listed(tmp_path: Path):
    dataset = dataset_of(tmp_path / "a.wav", encoded(tone(16_000), 16_000, "WAV", "PCM_16"))
    (tmp_path / "a.wav").write_bytes(encoded(tone(8_000), 8_000, "WAV", "PCM_16"))
    with pytest.raises(DatasetError, match=r"a\.wav: changed"):
        read_clip(dataset, dataset.clips[0], 16_000)


def test_a_file_that_is_written_to_while_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dataset = dataset_of(tmp_path / "a.wav", encoded(tone(16_000), 16_000, "WAV", "PCM_16"))
    other = encoded(-tone(16_000), 16_000, "WAV", "PCM_16")

    def slow(content: bytes, file: io.FileIO) -> tuple[NDArray[np.float32], int]:
        (tmp_path / "a.wav").write_bytes(other)
        return decode(content, file)

    monkeypatch.setattr(audio, "decode", slow)
    with pytest.raises(DatasetError, match=r"a\.wav: changed"):
        read_clip(dataset, dataset.clips[0], 16_000)


def test_synthetic_clips_are_rendered_and_resampled():
    dataset = load_synthetic()
    full, half = (read_clip(dataset, dataset.clips[0], rate) for rate in (16_000, 8_000))
    assert len(half) == pytest.approx(len(full) / 2, abs=1)


@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from(
        [
            ("WAV", "PCM_16"),
            ("FLAC", "PCM_16"),
            ("OGG", "VORBIS"),
            ("MP3", "MPEG_LAYER_III"),
            ("AIFF", "PCM_24"),
        ]
    ),
    damage=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
def test_damaged_files_are_decoded_or_bad_clips(
    kind: tuple[str, str], damage: list[tuple[int, int]], kept: float
):
    content = bytearray(encoded(tone(8_000, 0.1), 8_000, *kind))
    for position, value in damage:
        content[position % len(content)] = value
    damaged = bytes(content[: int(kept * len(content))])
    outcome = decoded(damaged)
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(damaged)
        assert decoded(damaged, file) == outcome
    if isinstance(outcome, str):
        return
    samples, rate = outcome
    waveform = np.frombuffer(samples, np.float32)
    assert rate > 0
    assert len(waveform)
    assert np.isfinite(waveform).all()


def decoded(content: bytes, file: io.FileIO | None = None) -> tuple[bytes, int] | str:
    """The samples and the rate, or what is wrong."""
    try:
        waveform, rate = decode(content, file)
    except BadClip as problem:
        return str(problem)
    return waveform.tobytes(), rate


def test_a_recording_may_come_from_a_pipe(tmp_path: Path):
    content = encoded(tone(16_000), 16_000, "WAV", "FLOAT")
    (tmp_path / "a.wav").write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    pipe = tmp_path / "pipe"
    writer = threading.Thread(target=pipe.write_bytes, args=[content], daemon=True)
    writer.start()
    piped, stored = (Recording.read(tmp_path / n, WaveformSpec()) for n in ("pipe", "a.wav"))
    writer.join(timeout=10)
    assert np.array_equal(piped.waveform, stored.waveform)


def test_resampling_is_deterministic():
    waveform = np.random.default_rng(0).uniform(-1, 1, 4_410).astype(np.float32)
    first, second = (resample(waveform, 44_100, 16_000) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(first) == 1_600


@given(n=st.integers(1, 50), samples=st.integers(1, 200))
def test_fit_length(n: int, samples: int):
    waveform = np.arange(1, n + 1, dtype=np.float32)
    padded, looped = fit_length(waveform, samples, "pad"), fit_length(waveform, samples, "loop")
    assert padded.shape == looped.shape == (samples,)
    assert padded.dtype == looped.dtype == np.float32
    assert padded.tolist() == [i + 1 if i < n else 0 for i in range(samples)]
    assert looped.tolist() == [i % n + 1 for i in range(samples)]


def test_a_clip_is_scaled_to_its_own_level():
    quiet = np.array([0.0, 0.01, -0.02, 0.01], np.float32)
    assert scale(quiet, None) is quiet
    assert np.abs(scale(quiet, "peak")).max() == 1
    assert np.mean(scale(quiet, "rms").astype(np.float64) ** 2) == pytest.approx(1, abs=1e-6)
    assert scale(quiet, "rms").dtype == np.float32
    assert np.array_equal(scale(1e-30 * quiet, "peak"), scale(quiet, "peak"))
    silent = np.zeros(4, np.float32)
    assert np.array_equal(scale(silent, "rms"), silent)
