"""Training of one model on small arrays: batches, losses, selection, the untouched test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orchestrator.batches import EVALUATION_BATCH, ClipSet
from orchestrator.compilation import CompilerMissing, missing_for
from orchestrator.device import choose_device, device_name, trial_settings
from orchestrator.hyperparameters import AdamSpec, AdamWSpec, SgdSpec, TrainSpec
from orchestrator.optim import make_optimizer
from orchestrator.seeding import Seeds
from orchestrator.training import Fit, NonFiniteLoss, SplitData, TrainingData

CPU = torch.device("cpu")
SEEDS = Seeds(initialization=1, order=2, dropout=3, augmentation=4)


def make_data(clips: int = 30, classes: int = 3, test: bool = True) -> TrainingData:
    """Clips `[4, 6]` whose class shifts one channel; a half trains, then val and test."""
    rng = np.random.default_rng(7)
    labels = np.arange(clips) % classes
    features = rng.standard_normal((clips, 4, 6)).astype(np.float32)
    features[np.arange(clips), labels] += 1.5
    features.flags.writeable = False
    rows = np.arange(clips)
    half, rest = clips // 2, clips // 2 + clips // 4
    split = SplitData(rows[:half], rows[half:rest], rows[rest:] if test else None)
    return TrainingData(features, labels, split, classes)


def linear(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(24, classes))


def make_fit(model: nn.Module | None = None, data: TrainingData | None = None, **spec: Any) -> Fit:
    train = TrainSpec(**{"epochs": 2, "batch_size": 4, **spec})
    return Fit(model or linear(), data or make_data(), train, SEEDS, CPU)


class Recorder(nn.Module):
    """A linear model that keeps every input, apart for training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()
        self.trained: list[torch.Tensor] = []
        self.evaluated: list[torch.Tensor] = []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        (self.trained if self.training else self.evaluated).append(features.clone())
        logits: torch.Tensor = self.inner(features)
        return logits


class Scripted(nn.Module):
    """Gives the logits of a script, one entry an evaluation; its one weight counts epochs."""

    def __init__(self, script: list[Callable[[int], torch.Tensor]]) -> None:
        super().__init__()
        self.script = script
        self.weight = nn.Parameter(torch.zeros(()))
        self.epochs = nn.Buffer(torch.zeros((), dtype=torch.int64))
        self.evaluations: list[int] = []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.epochs.add_(1)
            return torch.zeros(len(features), 3) + self.weight
        epoch = int(self.epochs) - 1
        self.evaluations.append(epoch)
        return self.script[epoch](len(features))


def rows_seen(data: TrainingData, batches: list[torch.Tensor]) -> list[int]:
    """Rows of the feature array that the batches came from."""
    index = {clip.tobytes(): row for row, clip in enumerate(data.features)}
    return [index[clip.numpy().tobytes()] for batch in batches for clip in batch]


# Batches


@given(clips=st.integers(1, 60), size=st.integers(1, 20), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=100, deadline=None)
def test_shuffled_batches_hold_every_clip_once(clips: int, size: int, seed: int) -> None:
    features = np.zeros((clips, 1, 1), np.float32)
    rows = np.arange(clips)
    batches = ClipSet(features, rows, rows, CPU).shuffled(size, seed)
    assert sorted(torch.cat(batches).tolist()) == list(range(clips))
    assert all(len(batch) == size for batch in batches[:-2])
    # Only the joined batch is longer, only the last one shorter, none a leftover of one clip.
    assert all(len(batch) <= size + 1 for batch in batches)
    if clips > 1 and size > 1:
        assert all(len(batch) > 1 for batch in batches)


def test_the_order_depends_on_the_seed_and_not_on_the_batch_size() -> None:
    rows = np.arange(50)
    clips = ClipSet(np.zeros((50, 1, 1), np.float32), rows, rows, CPU)
    orders = [torch.cat(clips.shuffled(size, 5)).tolist() for size in (1, 7, 16, 50)]
    assert orders.count(orders[0]) == 4
    assert torch.cat(clips.shuffled(7, 6)).tolist() != orders[0]


def test_a_batch_is_a_copy_of_the_shared_rows() -> None:
    data = make_data()
    clips = ClipSet(data.features, data.labels, np.array([4, 9, 2]), CPU)
    features, labels = clips.batch(torch.tensor([2, 0]))
    assert np.array_equal(features.numpy(), data.features[[2, 4]])
    assert labels.tolist() == data.labels[[2, 4]].tolist()
    before = data.features.copy()
    features.zero_()
    assert np.array_equal(data.features, before)


@pytest.mark.parametrize("row", [-1, 30])
def test_a_row_that_does_not_exist_is_refused(row: int) -> None:
    data = make_data()
    with pytest.raises(IndexError, match="of 30 clips"):
        ClipSet(data.features, data.labels, np.array([0, row]), CPU)


def test_a_lone_last_clip_joins_the_batch_before() -> None:
    data = make_data(clips=18)
    model = Recorder()
    fit = make_fit(model, data, batch_size=4, epochs=1)
    fit.run_epoch()
    assert [len(batch) for batch in model.trained] == [4, 5]


def test_batch_norm_trains_with_a_lone_last_clip() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(24), nn.Linear(24, 3))
    make_fit(model, make_data(clips=18), batch_size=4, epochs=1).run_epoch()


# What an epoch sees


def test_an_epoch_sees_its_split_once_in_a_new_order() -> None:
    data, model = make_data(), Recorder()
    fit = make_fit(model, data, epochs=2)
    fit.run_epoch()
    first = rows_seen(data, model.trained)
    model.trained.clear()
    fit.run_epoch()
    second = rows_seen(data, model.trained)
    assert sorted(first) == sorted(second) == data.split.train.tolist()
    assert first != second
    assert first != sorted(first)


def test_the_test_split_is_seen_only_at_the_end_and_once() -> None:
    data, model = make_data(), Recorder()
    fit = make_fit(model, data)
    assert data.split.test is not None
    while not fit.finished:
        fit.run_epoch()
    seen = rows_seen(data, model.trained + model.evaluated)
    assert not set(seen) & set(data.split.test.tolist())
    model.evaluated.clear()
    fit.result()
    assert rows_seen(data, model.evaluated) == data.split.test.tolist()


def test_evaluation_batches_are_constant() -> None:
    data = make_data(clips=4 * 150)
    sizes = []
    for batch_size in (7, 100):
        model = Recorder()
        make_fit(model, data, batch_size=batch_size).run_epoch()
        sizes.append([len(batch) for batch in model.evaluated])
    assert sizes[0] == sizes[1] == [EVALUATION_BATCH] * 9 + [150 - 9 * EVALUATION_BATCH]


def test_test_every_epoch_fills_the_rows_and_changes_nothing_else() -> None:
    plain, watched = make_fit(), make_fit(test_every_epoch=True)
    for _ in range(2):
        row, more = plain.run_epoch(), watched.run_epoch()
        assert row.test_loss is None
        assert more.test_loss is not None
        assert (row.train_loss, row.val_loss) == (more.train_loss, more.val_loss)
    assert plain.result() == watched.result()
    test = watched.result()[2]
    assert test is not None
    assert (test.scores.loss, test.scores.accuracy) == (more.test_loss, more.test_accuracy)


def test_without_a_test_split_there_is_no_test_result() -> None:
    fit = make_fit(data=make_data(test=False), epochs=1, test_every_epoch=True)
    assert fit.run_epoch().test_loss is None
    assert fit.result()[2] is None


# Losses and results


def test_an_epoch_is_plain_gradient_descent() -> None:
    data, reference = make_data(), linear()
    spec = SgdSpec(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    fit = make_fit(data=data, optimizer=spec, epochs=1, batch_size=5)
    clips = ClipSet(data.features, data.labels, data.split.train, CPU)
    row = fit.run_epoch()
    # One step a batch by the book, in the order that the fit must have used.
    model = Recorder()
    make_fit(model, data, optimizer=spec, epochs=1, batch_size=5).run_epoch()
    optimizer = torch.optim.SGD(
        reference.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
    )
    total, correct = 0.0, 0
    for features in model.trained:
        labels = torch.from_numpy(data.labels[rows_seen(data, [features])])
        logits = reference(features)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        total += losses.sum().item()
        correct += int((logits.argmax(1) == labels).sum())
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    assert row.train_loss == pytest.approx(total / len(clips), rel=1e-5)
    assert row.train_accuracy == correct / len(clips)
    assert row.lr == 0.1
    for ours, theirs in zip(fit.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_val_loss_is_the_log_loss_of_the_probabilities() -> None:
    fit = make_fit(label_smoothing=0.3, class_weights="balanced", epochs=1)
    row = fit.run_epoch()
    _, val, _ = fit.result()
    probabilities = np.array(val.predictions.probabilities)
    chosen = probabilities[np.arange(len(probabilities)), list(val.predictions.labels)]
    assert val.scores.loss == row.val_loss == pytest.approx(-np.log(chosen).mean(), rel=1e-12)
    assert val.scores.accuracy == row.val_accuracy
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert val.predictions.predicted == tuple(probabilities.argmax(axis=1))


def test_predictions_name_rows_and_labels() -> None:
    data = make_data()
    fit = make_fit(data=data, epochs=1)
    fit.run_epoch()
    _, val, test = fit.result()
    assert test is not None
    assert data.split.test is not None
    for result, rows in ((val, data.split.val), (test, data.split.test)):
        assert result.predictions.clips == tuple(rows)
        assert result.predictions.labels == tuple(data.labels[rows])
        assert all(type(value) is int for value in result.predictions.predicted)


def test_training_learns() -> None:
    fit = make_fit(data=make_data(clips=120), epochs=15, optimizer=AdamSpec(lr=0.01))
    rows = [fit.run_epoch() for _ in range(15)]
    assert rows[-1].train_loss < 0.5 * rows[0].train_loss
    assert rows[-1].val_accuracy > 0.8


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, lambda z, y, w: nn.functional.cross_entropy(z, y)),
        (
            {"label_smoothing": 0.2},
            lambda z, y, w: nn.functional.cross_entropy(z, y, label_smoothing=0.2),
        ),
        (
            {"class_weights": "balanced"},
            lambda z, y, w: nn.functional.cross_entropy(z, y, weight=w),
        ),
    ],
)
def test_the_reported_loss_is_the_optimised_one(
    spec: dict[str, Any], expected: Callable[..., torch.Tensor]
) -> None:
    data = make_data()
    labels = np.array([0] * 9 + [1] * 4 + [2] * 2 + [0, 1, 2] * 5)
    data = TrainingData(data.features, labels, data.split, 3)
    model = linear()
    logits = model(torch.from_numpy(data.features[:15].copy()))
    weights = torch.tensor([15 / (3 * 9), 15 / (3 * 4), 15 / (3 * 2)])
    wanted = expected(logits, torch.from_numpy(labels[:15]), weights).item()
    row = make_fit(model, data, batch_size=15, epochs=1, **spec).run_epoch()
    assert row.train_loss == pytest.approx(wanted, rel=1e-5)


# Selection


def answer(*classes: int, confidence: float = 1.0) -> Callable[[int], torch.Tensor]:
    """Logits that name the classes, repeated over the split."""

    def logits(clips: int) -> torch.Tensor:
        wanted = torch.tensor((classes * clips)[:clips])
        return confidence * nn.functional.one_hot(wanted, 3).float()

    return logits


def selection_data() -> TrainingData:
    data = make_data(clips=16)
    return TrainingData(data.features, np.zeros(16, np.int64), data.split, 3)


def scripted_fit(select: str, script: list[Callable[[int], torch.Tensor]]) -> Fit:
    return make_fit(
        Scripted(script), selection_data(), epochs=len(script), batch_size=8, select=select
    )


@pytest.mark.parametrize(
    ("script", "epoch"),
    [
        ([answer(1), answer(0, 1), answer(0), answer(0, 1)], 2),
        # Equal accuracy: the lower loss.
        ([answer(0), answer(0, confidence=3.0), answer(0, confidence=2.0)], 1),
        # Equal accuracy and loss: the earlier.
        ([answer(1), answer(0), answer(0)], 1),
        # Accuracy comes before loss.
        ([answer(0, 1, confidence=0.1), answer(0, 0, 0, 1, confidence=9.0)], 1),
    ],
)
def test_best_is_the_highest_accuracy_then_the_lowest_loss(
    script: list[Callable[[int], torch.Tensor]], epoch: int
) -> None:
    fit = scripted_fit("best", script)
    rows = [fit.run_epoch() for _ in script]
    chosen, val, test = fit.result()
    assert chosen == epoch
    assert (val.scores.accuracy, val.scores.loss) == (
        rows[epoch].val_accuracy,
        rows[epoch].val_loss,
    )
    assert test is not None
    # The test split went through the weights of that epoch, once.
    model = fit.model
    assert isinstance(model, Scripted)
    assert model.evaluations == [*range(len(script)), epoch]


def test_last_is_the_last_whatever_its_accuracy() -> None:
    fit = scripted_fit("last", [answer(0), answer(1)])
    rows = [fit.run_epoch(), fit.run_epoch()]
    epoch, val, _ = fit.result()
    assert epoch == 1
    assert val.scores.accuracy == rows[1].val_accuracy == 0.0
    model = fit.model
    assert isinstance(model, Scripted)
    assert model.evaluations == [0, 1, 1]


def test_best_keeps_a_copy_of_the_weights() -> None:
    data = make_data()
    # Labels without a pattern: the longer the training, the worse the validation.
    labels = np.random.default_rng(0).integers(0, 3, len(data.labels))
    data = TrainingData(data.features, labels, data.split, 3)
    fit = make_fit(data=data, epochs=6, select="best", optimizer=SgdSpec(lr=0.3))
    states, rows = [], []
    while not fit.finished:
        rows.append(fit.run_epoch())
        states.append([p.detach().clone() for p in fit.model.parameters()])
    epoch, _, _ = fit.result()
    assert epoch == max(range(6), key=lambda e: (rows[e].val_accuracy, -rows[e].val_loss, -e))
    assert 0 < epoch < 5
    for kept, now in zip(states[epoch], fit.model.parameters(), strict=True):
        assert torch.equal(kept, now)


def test_there_is_no_result_before_the_first_epoch() -> None:
    with pytest.raises(RuntimeError, match="no epoch"):
        make_fit().result()


# Faults


def test_a_diverged_training_names_epoch_and_rate() -> None:
    fit = make_fit(optimizer=SgdSpec(lr=3e38))
    with pytest.raises(NonFiniteLoss, match=r"^loss is (nan|inf) in epoch 0 \(lr 3e\+38\)$"):
        fit.run_epoch()


def test_a_diverged_validation_is_told_apart() -> None:
    def nothing(clips: int) -> torch.Tensor:
        return torch.full((clips, 3), torch.nan)

    fit = scripted_fit("last", [answer(0), nothing])
    fit.run_epoch()
    with pytest.raises(NonFiniteLoss, match=r"^validation loss is nan in epoch 1 \(lr 0.01\)$"):
        fit.run_epoch()


def test_wrong_logits_are_named() -> None:
    fit = make_fit(nn.Sequential(nn.Flatten(), nn.Linear(24, 7)))
    with pytest.raises(ValueError, match=r"^model gave logits \[4, 7\], expected \[4, 3\]$"):
        fit.run_epoch()


def test_an_output_that_is_no_tensor_is_named() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, features: torch.Tensor) -> object:
            return features, features

    with pytest.raises(ValueError, match=r"^model gave tuple, expected \[4, 3\]$"):
        make_fit(Pair()).run_epoch()


def test_an_empty_split_is_refused() -> None:
    data = make_data()
    split = SplitData(data.split.train, np.array([], np.int64))
    with pytest.raises(ValueError, match="the val split has no clips"):
        make_fit(data=TrainingData(data.features, data.labels, split, 3))


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        make_fit(nn.Flatten())


def test_a_model_may_keep_a_tensor_from_evaluation() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear()
            self.scale: torch.Tensor | None = None

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            if self.scale is None or len(self.scale) < len(features):
                self.scale = torch.ones(len(features), 1)
            logits: torch.Tensor = self.inner(features) * self.scale[: len(features)]
            return logits

    fit = make_fit(Caching(), epochs=3)
    rows = [fit.run_epoch() for _ in range(3)]
    assert rows[-1].train_loss < rows[0].train_loss


# Optimizers and devices


@pytest.mark.parametrize(
    ("spec", "kind", "settings_of"),
    [
        (
            SgdSpec(lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.02),
            torch.optim.SGD,
            {"lr": 0.3, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
        ),
        (AdamSpec(lr=0.2, weight_decay=0.1), torch.optim.Adam, {"lr": 0.2, "weight_decay": 0.1}),
        (AdamWSpec(lr=0.2), torch.optim.AdamW, {"lr": 0.2, "weight_decay": 0.01}),
    ],
)
def test_optimizers(spec: Any, kind: type, settings_of: dict[str, object]) -> None:
    model = linear()
    next(model.parameters()).requires_grad_(False)
    optimizer = make_optimizer(spec, model)
    assert isinstance(optimizer, kind)
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in settings_of} == settings_of
    assert len(group["params"]) == 1
    assert _after_three_steps(optimizer) == pytest.approx(
        _after_three_steps(kind(group["params"], **settings_of)), rel=1e-6
    )


def _after_three_steps(optimizer: torch.optim.Optimizer) -> list[float]:
    (parameter,) = optimizer.param_groups[0]["params"]
    start = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
    with torch.no_grad():
        parameter.copy_(start)
    for step in range(3):
        parameter.grad = torch.sin(start * (step + 1))
        optimizer.step()
    return [float(value) for value in parameter.detach().flatten()]


def test_a_model_with_sparse_gradients_can_be_trained() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = make_optimizer(SgdSpec(lr=1.0), embedding)
    before = embedding.weight.detach().clone()
    embedding(torch.tensor([1])).sum().backward()
    optimizer.step()
    assert (embedding.weight.detach() - before)[:2].tolist() == [[0.0] * 3, [-1.0] * 3]


@pytest.mark.parametrize("spec", [SgdSpec(lr=1.0, momentum=0.9), AdamSpec(lr=1.0)])
def test_a_parameter_that_is_a_view_of_other_weights_is_trained_alone(spec: Any) -> None:
    whole = torch.zeros(4, 8)
    model = nn.Linear(4, 4, bias=False)
    model.weight = nn.Parameter(whole[:, :4])
    optimizer = make_optimizer(spec, model)
    model.weight.grad = torch.ones(4, 4)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), -torch.ones(4, 4))
    assert whole[:, 4:].tolist() == [[0.0] * 4] * 4


def test_a_second_validation_split_that_gives_no_numbers_does_not_end_the_training() -> None:
    features = np.zeros((6, 1, 4), np.float32)
    features[4:] = np.nan
    labels = np.array([0, 1] * 3)
    parts = SplitData(np.arange(2), np.arange(2, 4), None, np.arange(4, 6))
    spec = TrainSpec(epochs=2, batch_size=2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    fit = Fit(model, TrainingData(features, labels, parts, 2), spec, SEEDS, CPU)
    for _ in range(2):
        assert np.isfinite(fit.run_epoch().val_loss)
        assert fit.twin_row is None
    assert fit.result()[1] is not None
    assert fit.twin_result() is None


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompilerMissing, match=r"needs a C\+\+ compiler: no-such-compiler is not"):
        make_fit(compile=True)


@pytest.mark.slow
def test_compiled_training_changes_rounding_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = missing_for(CPU)
    if missing is not None:
        pytest.skip(f"no {missing}")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    plain, *others = make_fit(epochs=2), make_fit(epochs=2, compile=True), make_fit(compile=True)
    rows = [[fit.run_epoch(), fit.run_epoch()] for fit in (plain, *others)]
    assert list((tmp_path / "compiled").iterdir())
    assert rows[1] == rows[2]
    for expected, found in zip(rows[0], rows[1], strict=True):
        assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
        assert found.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
    assert plain.model.state_dict().keys() == others[0].model.state_dict().keys()


def test_a_trial_uses_one_thread_and_gives_it_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with trial_settings(CPU, deterministic=True):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)


def test_no_gpu_is_the_cpu() -> None:
    assert choose_device(0) == CPU
    assert device_name(CPU) == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"given 0\.5 GPU"):
        choose_device(0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_as_the_cpu_does() -> None:
    device = choose_device(0.5)
    data = make_data(clips=120)
    rows = []
    for place in (CPU, device):
        fit = Fit(linear(), data, TrainSpec(epochs=2, batch_size=4), SEEDS, place)
        rows.append([fit.run_epoch() for _ in range(2)])
        assert fit.result()[1].predictions.clips == tuple(data.split.val)
    for cpu, gpu in zip(*rows, strict=True):
        assert gpu.train_loss == pytest.approx(cpu.train_loss, rel=1e-2)
        assert gpu.val_loss == pytest.approx(cpu.val_loss, rel=1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_deterministic_algorithms_are_restored() -> None:
    with trial_settings(choose_device(1), deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


# Trainings without a validation split, or with two


def splits_of(data: TrainingData, **parts: Any) -> TrainingData:
    return replace(data, split=replace(data.split, **parts))


@pytest.mark.parametrize("select", ["best", "last"])
def test_a_second_validation_split_is_scored_as_in_a_training_of_its_own(select: str) -> None:
    data = make_data(test=False)
    other = np.arange(22, 30)
    spec = {"epochs": 4, "select": select, "optimizer": SgdSpec(lr=0.3)}
    shared = make_fit(data=splits_of(data, twin=other), **spec)
    own = make_fit(data=splits_of(data, val=other), **spec)
    plain = make_fit(data=data, **spec)
    for _ in range(4):
        assert shared.run_epoch() == plain.run_epoch()
        assert shared.twin_row == own.run_epoch()
    assert shared.twin_result() == own.result()[:2]
    assert shared.result() == plain.result()


def test_a_shared_training_goes_on_where_it_was() -> None:
    data = splits_of(make_data(test=False), twin=np.arange(22, 30))
    whole, first, second = (make_fit(data=data, epochs=4, select="best") for _ in range(3))
    for _ in range(4):
        whole.run_epoch()
    for _ in range(2):
        first.run_epoch()
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.run_epoch()
    assert second.twin_row == whole.twin_row
    assert second.twin_result() == whole.twin_result()


def test_without_a_validation_split_the_last_epoch_counts_and_an_earlier_end_is_kept() -> None:
    data = make_data()
    spec = {"epochs": 4, "select": "best", "early_stopping": {"patience": 1}}
    train = TrainSpec(**spec, batch_size=4)
    fit = Fit(linear(), splits_of(data, val=None), train, SEEDS, CPU, stop=3)
    like = make_fit(data=data, epochs=4)
    rows = []
    while not fit.finished:
        rows.append(fit.run_epoch())
        assert rows[-1].train_loss == like.run_epoch().train_loss
    assert [(row.val_loss, row.val_accuracy) for row in rows] == [(None, None)] * 3
    epoch, val, test = fit.result()
    assert (epoch, val) == (2, None)
    assert test is not None
    assert test.predictions.clips == tuple(data.split.test)


def test_a_rate_that_follows_the_validation_loss_needs_one() -> None:
    data = splits_of(make_data(), val=None)
    with pytest.raises(ValueError, match="plateau without a validation split"):
        make_fit(data=data, schedule={"name": "plateau"})
