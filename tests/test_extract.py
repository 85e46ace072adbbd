"""The arrays made from waveforms: shapes, known answers, agreement of the two backends."""

import csv
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from features.audio import BadClip, fit_length, read_clip
from features.datasets import load_esc10, load_synthetic
from features.extract import extract
from features.images import mel_image
from features.mel import empty_bands, filter_bank
from features.spec import (
    FEATURE_KINDS,
    ClipStatisticsSpec,
    FeatureSpec,
    LogMelSpec,
    MfccSpec,
    WaveformSpec,
    Windows,
)
from features.spectrograms import log_mel, mfcc
from features.statistics import clip_statistics, zero_crossing_rates

SECOND = LogMelSpec(seconds=1.0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker; more threads of small sums would wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def tone(hertz: float, spec: FeatureSpec = SECOND, peak: float = 0.5) -> NDArray[np.float32]:
    time = np.arange(spec.samples) / spec.sample_rate
    return (peak * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def sounds(spec: FeatureSpec) -> list[NDArray[np.float32]]:
    """A clip of each synthetic class, noise, silence, a click, and a tone far too loud."""
    dataset = load_synthetic()
    clips = {clip.label: clip for clip in dataset.clips}
    assert len(clips) == 10
    waveforms = [read_clip(dataset, clip, spec.sample_rate) for clip in clips.values()]
    noise = np.random.default_rng(0).normal(0, 0.3, spec.samples).astype(np.float32)
    silence = np.zeros(spec.samples, np.float32)
    click = silence.copy()
    click[spec.samples // 3] = 1
    fitted = [fit_length(waveform, spec.samples, spec.fit) for waveform in waveforms]
    return [*fitted, noise, silence, click, tone(440, spec, peak=3e4)]


BANDS: list[dict[str, Any]] = [
    {"seconds": 1.5},
    {"seconds": 1.5, "top_db": None, "f_min": 50.0, "f_max": 7000.0, "n_mels": 128, "n_fft": 2048},
    {"sample_rate": 22_050, "seconds": 1.0, "hop_length": 256, "n_mels": 64, "fit": "loop"},
    # Half of this rate is no whole number, and the last bin of this window is not half the rate.
    {"sample_rate": 11_025, "seconds": 1.0, "n_fft": 401, "hop_length": 160, "n_mels": 40},
    # Some of these bands are empty.
    {"seconds": 1.0, "n_fft": 256, "hop_length": 64, "n_mels": 100},
]
"""Parameters that every kind made from a mel spectrogram can take."""

MADE: dict[str, Callable[[NDArray[np.float32], Any], NDArray[np.float32]]] = {
    "log_mel": log_mel,
    "mfcc": mfcc,
    "mel_image": mel_image,
    "clip_statistics": clip_statistics,
}
"""By kind, the features before they are brought into the type that is stored."""


def assert_agree(kind: str, waveform: NDArray[np.float32], parameters: dict[str, Any]) -> None:
    """dB, coefficients, brightness and statistics differ by 1e-4 at most."""
    ours, reference = (
        MADE[kind](waveform, FEATURE_KINDS[kind](**parameters, backend=backend))
        for backend in ("torchaudio", "librosa")
    )
    assert np.abs(ours - reference).max() < 1e-4, (kind, parameters)


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

    def test_is_librosas_own_log_mel(self):
        import librosa

        for waveform in sounds(SECOND):
            power = librosa.feature.melspectrogram(
                y=waveform, sr=16_000, n_fft=1024, hop_length=512, n_mels=80
            )
            expected = librosa.power_to_db(power, top_db=80)
            # librosa's own is float32, which shows where little is left of large sums.
            assert extract(waveform, SECOND) == pytest.approx(expected, abs=0.02)

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


class TestMfcc:
    @pytest.mark.parametrize("backend", ["torchaudio", "librosa"])
    def test_is_librosas_own_mfcc(self, backend: str):
        import librosa

        spec = MfccSpec(seconds=1.0, n_mfcc=13, n_mels=40, top_db=None, backend=backend)
        for waveform in sounds(spec):
            expected = librosa.feature.mfcc(
                y=waveform.astype(np.float64),
                sr=16_000,
                n_mfcc=13,
                n_fft=1024,
                hop_length=512,
                n_mels=40,
                dtype=np.float64,
            )
            array = extract(waveform, spec.model_copy(update={"top_db": 80.0}))
            assert array.shape == spec.shape == (13, 32)
            assert array.dtype == np.float32
            assert array == pytest.approx(expected, abs=1e-4)

    def test_all_coefficients_keep_the_power(self):
        bands = {"seconds": 1.0, "n_mels": 40}
        decibels = extract(tone(440), LogMelSpec(**bands))
        coefficients = extract(tone(440), MfccSpec(**bands, n_mfcc=40))
        # An orthonormal transform keeps the length, and its first row is the mean.
        assert np.linalg.norm(coefficients) == pytest.approx(np.linalg.norm(decibels), rel=1e-6)
        assert coefficients[0] == pytest.approx(decibels.mean(axis=0) * np.sqrt(40), rel=1e-5)

    def test_the_first_coefficients_do_not_depend_on_their_number(self):
        few, many = (extract(tone(440), MfccSpec(seconds=1.0, n_mfcc=n)) for n in (13, 40))
        assert many[:13] == pytest.approx(few, abs=1e-5)


class TestClipStatistics:
    @pytest.mark.parametrize("backend", ["torchaudio", "librosa"])
    def test_are_those_of_librosas_frames(self, backend: str):
        import librosa

        spec = ClipStatisticsSpec(seconds=1.0, n_mels=40, backend=backend)
        for waveform in sounds(spec):
            coefficients = librosa.feature.mfcc(
                y=waveform.astype(np.float64),
                sr=16_000,
                n_mfcc=13,
                n_fft=1024,
                hop_length=512,
                n_mels=40,
                dtype=np.float64,
            )[1:]
            array = extract(waveform, spec)
            assert array.shape == spec.shape == (26,)
            assert array.dtype == np.float32
            assert array[:12] == pytest.approx(coefficients.mean(axis=1), abs=1e-4)
            assert array[12:24] == pytest.approx(coefficients.std(axis=1), abs=1e-4)

    def test_level_alone_changes_nothing(self):
        spec = ClipStatisticsSpec(seconds=1.0)
        assert extract(tone(440) / 4, spec) == pytest.approx(extract(tone(440), spec), abs=1e-4)

    def test_the_last_two_are_the_zero_crossing_rate(self):
        # 400 Hz at 16 kHz: a crossing every 20 samples, in frames of 500 always 25.
        spec = ClipStatisticsSpec(seconds=1.0, hop_length=500)
        time = (np.arange(16_000) + 0.5) / 16_000
        wave = np.sin(2 * np.pi * 400 * time).astype(np.float32)
        mean, deviation = extract(wave, spec)[-2:]
        # Before the first sample there is none.
        assert mean == pytest.approx((800 - 1) / 16_000)
        assert deviation == pytest.approx(np.std([24, *[25] * 31]) / 500, abs=1e-7)

    def test_silence_crosses_nothing(self):
        assert not zero_crossing_rates(np.zeros(1000, np.float32), 300).any()

    @given(
        signs=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60),
        length=st.integers(1, 70),
    )
    def test_rates_are_counted_one_by_one(self, signs: list[int], length: int):
        crossed = [i > 0 and (s < 0) != (signs[i - 1] < 0) for i, s in enumerate(signs)]
        frames = [crossed[i : i + length] for i in range(0, len(signs), length)]
        rates = zero_crossing_rates(np.array(signs, np.float32), length)
        assert rates.tolist() == [sum(frame) / len(frame) for frame in frames]


class TestBackends:
    @pytest.mark.parametrize("parameters", BANDS, ids=lambda p: "-".join(map(str, p.values())))
    def test_agree(self, parameters: dict[str, Any]):
        limited = parameters | {"top_db": parameters.get("top_db", 80.0) or 200.0}
        for waveform in sounds(LogMelSpec(**parameters)):
            for kind in MADE:
                assert_agree(kind, waveform, limited if kind == "mel_image" else parameters)

    @pytest.mark.esc10
    @pytest.mark.skipif("ESC10_DIR" not in os.environ, reason="ESC10_DIR is not set")
    def test_agree_on_real_clips(self):
        dataset = load_esc10(Path(os.environ["ESC10_DIR"]))
        clips = {clip.label: clip for clip in dataset.clips}
        for clip in clips.values():
            waveform = fit_length(read_clip(dataset, clip, 16_000), 80_000, "pad")
            for kind in MADE:
                assert_agree(kind, waveform, {})

    def test_empty_bands_are_silent_and_warn_nobody(self):
        for backend in ("torchaudio", "librosa"):
            spec = LogMelSpec(seconds=1.0, n_fft=256, n_mels=120, top_db=None, backend=backend)
            noise = np.random.default_rng(0).uniform(-1, 1, 16_000).astype(np.float32)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                silent = (extract(noise, spec) == -100).all(axis=1)
            assert silent.sum() == empty_bands(spec) > 0


class TestFilterBank:
    @settings(deadline=None, max_examples=25)
    @given(
        rate=st.integers(1000, 48_000),
        n_fft=st.integers(2, 300),
        share=st.floats(0.01, 1),
        low=st.floats(0, 0.9),
        high=st.floats(0.91, 1),
    )
    def test_is_librosas(self, rate: int, n_fft: int, share: float, low: float, high: float):
        import librosa

        n_mels = max(1, int(share * (n_fft // 2 + 1)))
        edges = {"f_min": low * rate / 2, "f_max": high * rate / 2}
        spec = LogMelSpec(sample_rate=rate, n_fft=n_fft, n_mels=n_mels, **edges)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = librosa.filters.mel(
                sr=rate,
                n_fft=n_fft,
                n_mels=n_mels,
                fmin=edges["f_min"],
                fmax=edges["f_max"],
                dtype=np.float64,
            )
        ours = filter_bank(spec)
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-9)
        # A bin within a rounding error of a band's edge may count either way.
        faint = ((ours.max(axis=1) > 0) & (ours.max(axis=1) < 1e-9)).sum()
        assert abs(int((ours.max(axis=1) == 0).sum()) - empty_bands(spec)) <= faint


def test_every_kind_is_extracted():
    for spec in (kind(seconds=0.5) for kind in FEATURE_KINDS.values()):
        array = extract(tone(440, spec), spec)
        assert array.shape == spec.stored_shape
        assert array.dtype == spec.stored_dtype
        assert array.nbytes == spec.stored_bytes


def test_wrong_length_is_refused():
    with pytest.raises(ValueError, match="16000 samples"):
        extract(np.zeros(15_999, np.float32), SECOND)


@pytest.mark.parametrize("kind", list(FEATURE_KINDS))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_a_bad_clip(kind: str, value: float):
    waveform = tone(440)
    waveform[7] = value
    with pytest.raises(BadClip, match="NaN or infinite"):
        extract(waveform, FEATURE_KINDS[kind](seconds=1.0))


@pytest.mark.parametrize("backend", ["torchaudio", "librosa"])
def test_the_loudest_samples_do_not_overflow(backend: str):
    spec = SECOND.model_copy(update={"backend": backend})
    quiet, loud = (extract(tone(1000, peak=peak), spec) for peak in (1.0, 3e38))
    assert loud.max() - quiet.max() == pytest.approx(20 * np.log10(3e38), abs=1e-3)


def test_waveforms_need_neither_torch_nor_librosa():
    heavy = {"torch", "torchaudio", "torchvision", "librosa", "scipy"}
    assert not loaded_by("WaveformSpec") & heavy


def test_nothing_but_its_backend_needs_librosa():
    assert not loaded_by("LogMelSpec", "MfccSpec", "MelImageSpec") & {"librosa", "numba"}


def loaded_by(*specs: str) -> set[str]:
    """The modules in a process of its own that has extracted features of these kinds."""
    code = (
        "import sys, numpy as np\n"
        "from features import spec; from features.extract import extract\n"
        f"for name in {specs}:\n"
        "    extract(np.zeros(16000, np.float32), getattr(spec, name)(seconds=1.0))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_normalized_features_are_another_configuration(
    foldgrid: Any, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    features = {"kind": "waveform", "sample_rate": 8000, "seconds": 0.6}
    levels = {"grid": [None, "peak", "rms"]}
    spec = write_spec(
        features=features | {"normalize": levels},
        model={"name": "cnn1d"},
        train={"epochs": 1, "batch_size": 8},
        folds={"test": 1, "validate": [2]},
    )
    out = tmp_path / "out"
    result = foldgrid("run", spec, "--out", out, "--executor", "serial", "--quiet")
    assert result.code == 0, result.err
    with (out / "tables" / "trials.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["features.normalize"] for row in rows] == ["", "peak", "rms"]
    assert len({row["val_loss"] for row in rows}) == 3
    plain = foldgrid("plan", write_spec(features=features, model={"name": "cnn1d"}), "--json")
    null = features | {"normalize": None}
    assert foldgrid("plan", write_spec(features=null, model={"name": "cnn1d"}), "--json").out == (
        plain.out
    )
    result = foldgrid("plan", write_spec(features=features | {"normalize": "rmss"}))
    assert result.code == 2
    assert "features.normalize: found 'rmss'; allowed peak, rms" in result.err
