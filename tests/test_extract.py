"""The arrays made from waveforms: shapes, known answers, agreement of the two backends."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.audio import BadClip, fit_length, read_clip
from features.datasets import load_esc10, load_synthetic
from features.extract import extract
from features.spec import FEATURE_KINDS, FeatureSpec, LogMelSpec, WaveformSpec, Windows

SECOND = LogMelSpec(seconds=1.0)


def tone(hertz: float, spec: FeatureSpec = SECOND, peak: float = 0.5) -> NDArray[np.float32]:
    time = np.arange(spec.samples) / spec.sample_rate
    return (peak * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def synthetic_clips(spec: FeatureSpec) -> list[NDArray[np.float32]]:
    dataset = load_synthetic()
    waveforms = (read_clip(dataset, clip, spec.sample_rate) for clip in dataset.clips[::41])
    return [fit_length(waveform, spec.samples, spec.fit) for waveform in waveforms]


def assert_agree(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    """Equal up to rounding, which shows most in bands where little is left of large sums."""
    difference = np.abs(ours - reference)
    assert difference.mean() < 3e-5
    assert difference.max() < 0.01


class TestWaveform:
    def test_report_shape(self):
        spec = WaveformSpec(windows=Windows(seconds=1.0, hop=0.5))
        waveform = np.random.default_rng(0).uniform(-1, 1, 80_000).astype(np.float32)
        array = extract(waveform, spec)
        assert array.shape == spec.shape == (9, 16_000)
        assert array.dtype == np.float32

    def test_without_windows_is_the_waveform(self):
        spec = WaveformSpec(seconds=0.5)
        waveform = np.random.default_rng(0).uniform(-1, 1, 8_000).astype(np.float32)
        assert np.array_equal(extract(waveform, spec), waveform[None])

    @given(samples=st.integers(1, 400), length=st.integers(1, 400), hop=st.integers(1, 500))
    def test_windows_are_the_pieces_at_every_hop(self, samples: int, length: int, hop: int):
        length = min(length, samples)
        windows = Windows(seconds=length / 1000, hop=hop / 1000)
        spec = WaveformSpec(sample_rate=1000, seconds=samples / 1000, windows=windows)
        waveform = np.arange(samples, dtype=np.float32)
        array = extract(waveform, spec)
        starts = range(0, samples - length + 1, hop)
        assert array.shape == spec.shape == (len(starts), length)
        for row, start in zip(array, starts, strict=True):
            assert np.array_equal(row, waveform[start : start + length])


class TestLogMel:
    @pytest.mark.parametrize("backend", ["torchaudio", "librosa"])
    @pytest.mark.parametrize("n_fft", [512, 1024, 2048])
    def test_shape(self, backend: str, n_fft: int):
        spec = LogMelSpec(seconds=0.7, n_fft=n_fft, hop_length=200, n_mels=40, backend=backend)
        array = extract(tone(440, spec), spec)
        assert array.shape == spec.shape == (40, 1 + 11_200 // 200)
        assert array.dtype == np.float32

    def test_five_seconds_with_the_defaults(self):
        assert extract(tone(440, LogMelSpec()), LogMelSpec()).shape == (80, 157)

    def test_a_louder_tone_has_more_decibels(self):
        quiet, loud = (extract(tone(1000, peak=peak), SECOND) for peak in (0.05, 0.5))
        middle = np.s_[:, 5:-5]
        assert loud[middle].max() - quiet[middle].max() == pytest.approx(20, abs=1e-3)

    def test_the_highest_band_follows_the_pitch(self):
        bands = [int(extract(tone(f), SECOND)[:, 15].argmax()) for f in (200, 500, 1000, 4000)]
        assert bands == sorted(set(bands))
        # Slaney's scale is linear up to 1 kHz, which is band 15 of 45.2 at 8 kHz.
        assert bands[2] == pytest.approx(15 / 45.245 * 81 - 1, abs=1)

    @pytest.mark.parametrize("backend", ["torchaudio", "librosa"])
    def test_silence_and_top_db(self, backend: str):
        spec = SECOND.model_copy(update={"backend": backend})
        silence = np.zeros(16_000, np.float32)
        assert extract(silence, spec) == pytest.approx(-100)
        click = silence.copy()
        click[8_000] = 1
        array = extract(click, spec)
        assert array.min() == pytest.approx(array.max() - 80, abs=1e-4)
        unlimited = extract(click, spec.model_copy(update={"top_db": None}))
        assert unlimited.min() == pytest.approx(-100)
        assert unlimited.max() == pytest.approx(array.max())

    @pytest.mark.parametrize(
        "spec",
        [
            LogMelSpec(seconds=2.0),
            LogMelSpec(seconds=2.0, top_db=None, f_min=50.0, f_max=7000.0, n_mels=128, n_fft=2048),
            LogMelSpec(sample_rate=22_050, seconds=1.5, hop_length=256, n_mels=64, fit="loop"),
        ],
        ids=["default", "unlimited", "22050"],
    )
    def test_torchaudio_agrees_with_librosa(self, spec: LogMelSpec):
        other = spec.model_copy(update={"backend": "librosa"})
        for waveform in synthetic_clips(spec):
            ours, reference = extract(waveform, spec), extract(waveform, other)
            assert_agree(ours, reference)

    @pytest.mark.esc10
    @pytest.mark.skipif("ESC10_DIR" not in os.environ, reason="ESC10_DIR is not set")
    def test_torchaudio_agrees_with_librosa_on_real_clips(self):
        spec = LogMelSpec()
        other = spec.model_copy(update={"backend": "librosa"})
        dataset = load_esc10(Path(os.environ["ESC10_DIR"]))
        for clip in dataset.clips[::20]:
            waveform = fit_length(read_clip(dataset, clip, 16_000), spec.samples, "pad")
            assert_agree(extract(waveform, spec), extract(waveform, other))

    @settings(deadline=None, max_examples=25)
    @given(
        samples=st.integers(600, 4000),
        n_fft=st.integers(64, 1024),
        hop=st.integers(1, 600),
        n_mels=st.integers(1, 30),
    )
    def test_shape_is_what_the_specification_says(
        self, samples: int, n_fft: int, hop: int, n_mels: int
    ):
        spec = LogMelSpec(
            sample_rate=8000, seconds=samples / 8000, n_fft=n_fft, hop_length=hop, n_mels=n_mels
        )
        assert extract(tone(440, spec), spec).shape == spec.shape

    @pytest.mark.parametrize("n_fft", [1, 2, 65, 1023])
    def test_odd_and_tiny_windows_in_both_backends(self, n_fft: int):
        spec = LogMelSpec(seconds=1.0, n_fft=n_fft, hop_length=100, n_mels=1)
        other = spec.model_copy(update={"backend": "librosa"})
        assert extract(tone(440), spec).shape == extract(tone(440), other).shape == spec.shape


def test_every_kind_is_extracted():
    for spec in (kind(seconds=0.5) for kind in FEATURE_KINDS.values()):
        assert extract(tone(440, spec), spec).shape == spec.shape


def test_wrong_length_is_refused():
    with pytest.raises(ValueError, match="16000 samples"):
        extract(np.zeros(15_999, np.float32), SECOND)


@pytest.mark.parametrize("spec", [WaveformSpec(seconds=1.0), SECOND])
def test_nan_is_a_bad_clip(spec: FeatureSpec):
    waveform = tone(440)
    waveform[7] = np.nan
    with pytest.raises(BadClip, match="NaN"):
        extract(waveform, spec)


def test_overflow_is_a_bad_clip():
    with pytest.raises(BadClip, match="infinite"):
        extract(tone(440, peak=3e38), SECOND)


def test_waveforms_need_neither_torch_nor_librosa():
    code = (
        "import sys, numpy as np;"
        "from features.extract import extract; from features.spec import WaveformSpec;"
        "extract(np.zeros(16000, np.float32), WaveformSpec(seconds=1.0));"
        "print([m for m in ('torch', 'torchaudio', 'librosa', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
