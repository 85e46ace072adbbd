"""Pictures of spectrograms: what is where, how bright, and how they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from features.cache import features_of
from features.datasets import load_folder
from features.extract import extract
from features.images import as_bytes, mel_image
from features.spec import LogMelSpec, MelImageSpec

SPEC = MelImageSpec(seconds=1.0, size=64)
SAME = MelImageSpec(seconds=1.0, n_mels=32, size=32)
"""32 bands in 32 frames: nothing is resized."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tone(hertz: float, peak: float = 0.5) -> NDArray[np.float32]:
    time = np.arange(16_000) / 16_000
    return (peak * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def noise(scale: float = 0.1) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, scale, 16_000).astype(np.float32)


class TestPicture:
    def test_low_frequencies_are_at_the_bottom(self):
        rows = [int(mel_image(tone(f), SPEC)[:, 32].argmax()) for f in (100, 500, 2000, 7500)]
        assert rows == sorted(set(rows), reverse=True)
        assert rows[0] >= 60
        assert rows[-1] <= 3

    def test_time_runs_to_the_right(self):
        click = np.zeros(16_000, np.float32)
        click[4_000] = 1
        assert int(mel_image(click, SPEC).sum(axis=0).argmax()) == pytest.approx(16, abs=1)

    def test_brightness_is_decibels_below_the_maximum(self):
        waveform = tone(440) + noise(0.001)
        decibels = extract(waveform, LogMelSpec(seconds=1.0, n_mels=32, top_db=None))
        for top_db in (80.0, 40.0):
            spec = SAME.model_copy(update={"top_db": top_db})
            expected = np.clip(1 + (decibels - decibels.max()) / top_db, 0, 1)
            assert mel_image(waveform, spec) == pytest.approx(expected[::-1], abs=1e-5)

    @pytest.mark.parametrize("size", [32, 100, 224])
    @pytest.mark.parametrize("backend", ["torchaudio", "librosa"])
    def test_reaches_from_black_to_white(self, size: int, backend: str):
        spec = SPEC.model_copy(update={"size": size, "backend": backend})
        waveform = noise()
        waveform[8_000:] = 0
        image = mel_image(waveform, spec)
        assert image.shape == (size, size)
        assert image.dtype == np.float32
        assert image.min() == 0
        assert 0.9 < image.max() <= 1

    def test_loudness_does_not_matter(self):
        loud, soft = (mel_image(factor * (tone(440) + noise()), SPEC) for factor in (1, 1e-3))
        assert loud == pytest.approx(soft, abs=1e-5)

    @pytest.mark.parametrize("backend", ["torchaudio", "librosa"])
    def test_silence_is_black(self, backend: str):
        spec = SPEC.model_copy(update={"backend": backend})
        for waveform in (np.zeros(16_000, np.float32), noise(1e-7)):
            assert not mel_image(waveform, spec).any()

    def test_shrinking_keeps_what_lies_between_the_pixels(self):
        # Four of 1001 frames are loud; without antialiasing one of 31 would be looked at.
        click = np.zeros(16_000, np.float32)
        spec = MelImageSpec(seconds=1.0, hop_length=16, n_fft=64, n_mels=8, size=32)
        for place in (5_000, 5_100, 5_200, 5_300):
            click[:] = 0
            click[place] = 1
            assert mel_image(click, spec).max() > 0.05


class TestStored:
    def test_as_one_channel_of_bytes(self):
        waveform = tone(440) + noise()
        stored = extract(waveform, SPEC)
        assert stored.shape == (1, 64, 64)
        assert stored.dtype == np.uint8
        assert stored[0] / 255 == pytest.approx(mel_image(waveform, SPEC), abs=0.5 / 255 + 1e-6)

    def test_bytes_are_rounded_not_cut_off(self):
        image = np.array([[0, 0.1 / 255, 0.9 / 255, 254.4 / 255, 1]], np.float32)
        assert as_bytes(image).tolist() == [[[0, 0, 1, 254, 255]]]

    def test_urbansound8k_is_small(self):
        assert 8_732 * MelImageSpec().stored_bytes == 8_732 * 224 * 224 < 2e9

    def test_rows_of_bad_clips_are_black_and_named(self, tmp_path: Path):
        for name in ("a/good.wav", "a/bad.wav", "b/good.wav"):
            (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "clips" / name, tone(440), 16_000)
        (tmp_path / "clips" / "a" / "bad.wav").write_text("not audio")
        dataset = load_folder(tmp_path / "clips")
        for cached in (False, True):
            made = features_of(dataset, SPEC, cache=tmp_path / "cache", workers=1)
            assert made.cached is cached
            assert made.array.dtype == np.uint8
            assert made.array.shape == (3, 1, 64, 64)
            assert [b.clip.path for b in made.bad] == ["a/bad.wav"]
            assert made.array.any(axis=(1, 2, 3)).tolist() == [False, True, True]
