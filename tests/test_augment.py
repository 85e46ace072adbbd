"""Augmentation: what is drawn, that it is repeatable, and that the labels follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from features.augment import Augmenter, mask, mix, roll
from features.augment_spec import AugmentError, AugmentSpec, SpecAugmentSpec
from features.spec import LogMelSpec, WaveformSpec, Windows
from models.outputs import AuxiliaryLogits
from orchestrator.batches import ClipSet
from orchestrator.hyperparameters import TrainSpec
from orchestrator.seeding import Seeds
from orchestrator.training import Fit, SplitData, TrainingData

CPU = torch.device("cpu")
SEEDS = Seeds(initialization=1, order=2, dropout=3, augmentation=4)
MEL = LogMelSpec(sample_rate=8000, seconds=1.0, n_mels=20, n_fft=256, hop_length=100)
EVERYTHING = AugmentSpec(spec_augment=SpecAugmentSpec(), mixup=0.4, time_shift=0.5, gain=6.0)


def spectrograms(clips: int = 8) -> torch.Tensor:
    return torch.randn(clips, *MEL.shape, generator=torch.Generator().manual_seed(0))


def test_draws_depend_on_the_seed_alone_and_leave_the_generators() -> None:
    augment = Augmenter(EVERYTHING, MEL)
    batch = spectrograms()
    original = batch.clone()
    torch.manual_seed(5)
    expected_next = torch.rand(3)
    torch.manual_seed(5)
    first, mixed = augment(batch, 11)
    assert torch.equal(torch.rand(3), expected_next)
    torch.manual_seed(99)
    again, mixed_again = augment(batch, 11)
    other, _ = augment(batch, 12)
    assert torch.equal(first, again)
    assert mixed is not None
    assert mixed_again is not None
    assert torch.equal(mixed.share, mixed_again.share)
    assert not torch.equal(first, other)
    assert torch.equal(batch, original)


def test_each_augmentation_draws_the_same_whatever_others_there_are() -> None:
    batch = spectrograms()
    _, alone = Augmenter(AugmentSpec(mixup=0.4), MEL)(batch, 11)
    _, among = Augmenter(EVERYTHING, MEL)(batch, 11)
    assert alone is not None
    assert among is not None
    assert torch.equal(alone.partner, among.partner)
    assert torch.equal(alone.share, among.share)


def test_a_small_alpha_mixes_hardly_anything() -> None:
    torch.manual_seed(0)
    _, mixture = mix(torch.zeros(2000, 1), 0.01)
    assert ((mixture.share < 0.01) | (mixture.share > 0.99)).float().mean() > 0.9


@pytest.mark.parametrize("shape", [(6, 3, 50), (6, 3, 5, 50)])
def test_a_roll_moves_whole_clips_around(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    batch = torch.arange(6 * 50.0).view(6, *[1] * (len(shape) - 2), 50).expand(shape)
    rolled = roll(batch, 0.5)
    shifts = set()
    for before, after in zip(batch, rolled, strict=True):
        flat = after.reshape(-1, 50)
        shift = int((flat[0] == before.reshape(-1, 50)[0, 0]).nonzero())
        assert torch.equal(after, before.roll(shift, dims=-1))
        shifts.add(shift)
    assert len(shifts) > 1


def test_a_small_roll_stays_small() -> None:
    batch = torch.arange(100.0).expand(200, 1, 100)
    moved = roll(batch, 0.03)[:, 0, 50] - 50
    assert moved.abs().max() == 3
    assert len(moved.unique()) == 7


def test_windows_roll_as_the_waveform_they_were_cut_from() -> None:
    spec = WaveformSpec(sample_rate=1000, seconds=0.5, windows=Windows(seconds=0.1, hop=0.05))
    waves = torch.arange(500.0).expand(4, 500) + torch.arange(4.0).view(4, 1) * 1000
    batch = waves.unfold(-1, 100, 50)
    rolled, _ = Augmenter(AugmentSpec(time_shift=0.5), spec)(batch, 3)
    assert rolled.shape == batch.shape == (4, *spec.shape)
    for before, after in zip(waves, rolled, strict=True):
        shift = int((after[0, 0] - before[0]) % 500)
        assert torch.equal(after, before.roll(-shift).unfold(-1, 100, 50))


def test_masks_are_spans_of_the_mean_no_wider_than_asked() -> None:
    torch.manual_seed(0)
    spec = SpecAugmentSpec(time_masks=1, time_width=0.2, frequency_masks=1, frequency_width=0.25)
    batch = torch.randn(300, 20, 50)
    masked = mask(batch, spec)
    bands, frames = set(), set()
    for before, after in zip(batch, masked, strict=True):
        changed = before != after
        assert torch.allclose(after[changed], before.mean())
        bands.add(int(changed.all(dim=1).sum()))
        frames.add(int(changed.all(dim=0).sum()))
    assert bands == set(range(6))
    assert frames == set(range(11))


def test_the_channels_of_an_image_are_masked_alike() -> None:
    torch.manual_seed(0)
    image = torch.rand(5, 1, 32, 32).expand(-1, 3, -1, -1)
    masked = mask(image, SpecAugmentSpec(time_width=0.5))
    assert torch.equal(masked[:, 0], masked[:, 2])
    assert not torch.equal(masked, image)


def test_gain_is_a_factor_of_samples_and_a_sum_of_decibels() -> None:
    waves = torch.ones(500, 1, 8)
    spec = WaveformSpec(sample_rate=1000, seconds=0.008)
    louder, _ = Augmenter(AugmentSpec(gain=6.0), spec)(waves, 0)
    level = 20 * louder[:, 0, 0].log10()
    assert level.abs().max() <= 6.0 + 1e-4
    assert level.abs().max() > 5.8
    mels, _ = Augmenter(AugmentSpec(gain=6.0), MEL)(torch.zeros(500, *MEL.shape), 0)
    assert torch.allclose(mels[:, 0, 0], level, atol=1e-4)
    assert torch.equal(mels[:, 3, 7], mels[:, 0, 0])


def test_mixing_is_the_sum_by_shares() -> None:
    torch.manual_seed(0)
    batch = torch.eye(6).view(6, 6, 1)
    mixed, mixture = mix(batch, 0.4)
    for i, (partner, share) in enumerate(
        zip(mixture.partner.tolist(), mixture.share.tolist(), strict=True)
    ):
        expected = share * batch[i] + (1 - share) * batch[partner]
        assert torch.allclose(mixed[i], expected)
    assert sorted(mixture.partner.tolist()) == list(range(6))


class Seen(nn.Module):
    """A linear model that keeps what it was trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(MEL.shape[0] * MEL.shape[1], 3))
        self.batches: list[torch.Tensor] = []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches.append(features.clone())
        logits: torch.Tensor = self.inner(features)
        return logits


def make_fit(model: nn.Module, augment: AugmentSpec | None, **spec: Any) -> Fit:
    features = spectrograms(20).numpy()
    features.flags.writeable = False
    rows = np.arange(20)
    split = SplitData(rows[:12], rows[12:])
    data = TrainingData(features, rows % 3, split, 3)
    train = TrainSpec(**{"epochs": 2, "batch_size": 12, "augment": augment, **spec})
    augmenter = Augmenter(augment, MEL) if augment else None
    return Fit(model, data, train, SEEDS, CPU, augmenter)


def test_every_epoch_is_changed_anew_and_evaluation_is_not() -> None:
    torch.manual_seed(0)
    model = Seen()
    fit = make_fit(model, AugmentSpec(time_shift=0.5))
    fit.run_epoch()
    fit.run_epoch()
    first, second = model.batches
    assert not torch.equal(first.sum(dim=(1, 2)).sort().values, first.sum(dim=(1, 2)))
    rolled_alike = all(any(torch.equal(a, b) for b in second) for a in first)
    assert not rolled_alike


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_loss_of_mixed_clips_is_shared_by_their_labels(
    smoothing: float, class_weights: str
) -> None:
    torch.manual_seed(0)
    augment = AugmentSpec(mixup=1.0)
    fit = make_fit(
        Seen(), augment, epochs=1, label_smoothing=smoothing, class_weights=class_weights
    )
    weights = {k: v.clone() for k, v in fit.model.state_dict().items()}
    row = fit.run_epoch()
    model = Seen()
    model.load_state_dict(weights)
    clips = ClipSet(spectrograms(20).numpy(), np.arange(20) % 3, np.arange(12), CPU)
    from orchestrator.seeding import batch_seed, epoch_seed

    (positions,) = clips.shuffled(12, epoch_seed(SEEDS.order, 0))
    features, labels = clips.batch(positions)
    mixed, mixture = Augmenter(augment, MEL)(features, batch_seed(SEEDS.augmentation, 0, 0))
    assert mixture is not None
    one_hot = nn.functional.one_hot(labels, 3)
    share = mixture.share.view(-1, 1)
    soft = share * one_hot + (1 - share) * one_hot[mixture.partner]
    # The classes are of equal size, so that their weights change nothing.
    expected = cross_entropy(model(mixed), soft, label_smoothing=smoothing)
    assert row.train_loss == pytest.approx(expected.item(), rel=1e-5)
    hits = soft[torch.arange(12), model(mixed).argmax(dim=1)]
    assert row.train_accuracy == pytest.approx(hits.mean().item(), rel=1e-5)


class WithAuxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main = Seen()
        self.side = nn.Sequential(nn.Flatten(), nn.Linear(MEL.shape[0] * MEL.shape[1], 3))

    def forward(self, features: torch.Tensor) -> torch.Tensor | AuxiliaryLogits:
        logits: torch.Tensor = self.main(features)
        if not self.training:
            return logits
        return AuxiliaryLogits(logits, (self.side(features),), weight=0.3)


def test_auxiliary_losses_count_as_their_weight_says() -> None:
    torch.manual_seed(0)
    model = WithAuxiliary()
    fit = make_fit(model, None, epochs=1)
    before = [p.clone() for p in model.side.parameters()]
    batch = torch.from_numpy(spectrograms(20).numpy()[:12])
    labels = torch.arange(12) % 3
    expected = cross_entropy(model.main(batch), labels) + 0.3 * cross_entropy(
        model.side(batch), labels
    )
    model.main.batches.clear()
    row = fit.run_epoch()
    assert row.train_loss == pytest.approx(expected.item(), rel=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.side.parameters(), strict=True))
    fit.run_epoch()


def test_bytes_of_an_image_become_three_channels_from_zero_to_one() -> None:
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 1, 4, 4) * 8
    clips = ClipSet(images, np.array([0, 1]), np.array([1, 0]), CPU)
    batch, labels = clips.batch(torch.tensor([0]))
    assert batch.shape == (1, 3, 4, 4)
    assert batch.dtype == torch.float32
    assert torch.equal(batch[0, 1], torch.from_numpy(images[1, 0] / 255).float())
    assert labels.tolist() == [1]


def test_bf16_trains_in_mixed_precision() -> None:
    class Dtype(Seen):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            logits = super().forward(features)
            self.dtype = logits.dtype
            return logits

    torch.manual_seed(0)
    model = Dtype()
    fit = make_fit(model, None, precision="bf16", epochs=3)
    losses = [fit.run_epoch().train_loss for _ in range(3)]
    assert model.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses[2] < losses[0]
    _, val, _ = fit.result()
    assert sum(val.predictions.probabilities[0]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("augment", "features", "field"),
    [
        (AugmentSpec(spec_augment=SpecAugmentSpec()), WaveformSpec(), "spec_augment"),
        (
            AugmentSpec(time_shift=0.5),
            WaveformSpec(windows=Windows(seconds=0.5, hop=1.0)),
            "time_shift",
        ),
    ],
)
def test_what_features_cannot_have(augment: AugmentSpec, features: Any, field: str) -> None:
    with pytest.raises(AugmentError) as caught:
        Augmenter(augment, features)
    assert caught.value.field == field


def train(**augment: Any) -> dict[str, Any]:
    return {"epochs": 1, "batch_size": 8, "augment": augment}


@pytest.mark.parametrize(
    ("augment", "error"),
    [
        ({"mixup": 0}, "train.augment.mixup: found 0"),
        ({"time_shift": 1.5}, "train.augment.time_shift: found 1.5"),
        ({"mixu": 0.4}, "unknown key 'mixu'; allowed spec_augment, mixup, time_shift, gain"),
        ({"spec_augment": {"time_masks": -1}}, "train.augment.spec_augment.time_masks: found -1"),
        ({"gain": "loud"}, "train.augment.gain: found 'loud'"),
    ],
)
def test_a_wrong_augmentation_is_named(
    augment: dict[str, Any], error: str, foldgrid: Any, write_spec: Callable[..., Path]
) -> None:
    result = foldgrid("plan", write_spec(train=train(**augment)))
    assert result.code == 2
    assert error in result.err
    assert len(result.err.splitlines()) == 1


def test_spec_augment_on_a_waveform_is_refused_with_its_line(
    foldgrid: Any, write_spec: Callable[..., Path]
) -> None:
    features = {"kind": "waveform", "sample_rate": 8000, "seconds": 1.0}
    result = foldgrid("plan", write_spec(features=features, train=train(spec_augment=True)))
    assert result.code == 2
    assert (
        "train.augment.spec_augment: found masks of a waveform; allowed it with a spectrogram only"
        in result.err
    )


def test_augmented_sweeps_are_repeatable_and_their_specification_too(
    foldgrid: Any,
    write_spec: Callable[..., Path],
    tmp_path: Path,
    tables_of: Callable[[Path], dict[str, bytes]],
) -> None:
    augment = {"grid": [None, {"spec_augment": True, "mixup": 0.4, "time_shift": 0.5, "gain": 3}]}
    spec = write_spec(model={"name": "cnn1d"}, train={"epochs": 2, "augment": augment})
    for name in ("one", "two"):
        out = tmp_path / name
        result = foldgrid("run", spec, "--out", out, "--executor", "serial", "--quiet")
        assert result.code == 0, result.err
    assert tables_of(tmp_path / "one") == tables_of(tmp_path / "two")
    again = foldgrid(
        "run", tmp_path / "one" / "spec.yaml", "--out", tmp_path / "one", "--executor", "serial"
    )
    assert again.code == 0, again.err
    rows = (tmp_path / "one" / "tables" / "trials.csv").read_text().splitlines()
    assert "train.augment.mixup" in rows[0]
    assert rows[1].split(",")[12:] != rows[2].split(",")[12:]
