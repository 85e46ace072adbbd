"""How near the training of one epoch comes to the limit of one core, and to a plain loop.

    python tests/benchmarks/training.py [MODEL ...] [--repetitions N] [--compile]

Without a model: `cnn1d` and `cnn_transformer` (4 heads) on windows as ESC-10 gives them, 9 x 16000
(240 clips to train on, 80 to validate, batches of 16); `googlenet` and `resnet34` on pictures of
224 pixels (16 and 16, one batch each). All of random numbers, SGD with momentum, one thread. An
epoch is a pass over the training clips and the validation. Two minutes, with `--compile` four.

First the peak of one core, in GFLOP/s: the largest product of matrices by `torch.mm`, and by a 1x1
convolution, which PyTorch gives to another library; the faster of both is the limit. Then a row for
each way of running an epoch:

    plain     what a user would write: the model in plain layers, a DataLoader over a TensorDataset
    foldgrid  `Fit.run_epoch`; then with `precision: bf16`, and with `compile: true`

Columns: `seconds` of processor time an epoch, the median of repetitions that alternate between the
rows; `times plain`, the median of how many times as fast as the plain loop it was; `GFLOP/s`, the
floating-point operations of the plain model's layers (torch.utils.flop_counter: convolutions and
products, forward and backward) over the seconds; `share` of the float32 limit, in a bf16 row of the
bf16 limit; `first s`, the first epoch beyond a later one. Last where foldgrid's seconds go: gather,
forward, backward, optimizer, evaluation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from models.build import build_model
from models.cnn_transformer import CnnTransformer
from models.outputs import AuxiliaryLogits
from models.spec import (
    Cnn1dSpec,
    CnnTransformerSpec,
    GoogLeNetSpec,
    InputSpec,
    ModelSpec,
    ResNet34Spec,
)
from orchestrator.batches import ClipSet
from orchestrator.evaluation import evaluate, forward
from orchestrator.hyperparameters import SgdSpec, TrainSpec
from orchestrator.losses import Targets, TrainingLoss
from orchestrator.optim import make_optimizer
from orchestrator.seeding import derive_seeds
from orchestrator.training import Fit, SplitData, TrainingData

BATCH = 16
CLASSES = 10
OPTIMIZER = SgdSpec(lr=1e-3, momentum=0.9, nesterov=True, weight_decay=0.01)


@dataclass(frozen=True)
class Case:
    """A model on its usual input: clips to train on and to validate."""

    spec: ModelSpec
    inputs: InputSpec
    train: int
    val: int

    def data(self) -> TrainingData:
        """Random clips, seeded."""
        rng = np.random.default_rng(0)
        clips = self.train + self.val
        features: Any
        if self.inputs.layout == "image":
            shape = (clips, 1, *self.inputs.shape[1:])
            features = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            features = rng.standard_normal((clips, *self.inputs.shape), dtype=np.float32)
        rows = np.arange(clips)
        split = SplitData(rows[: self.train], rows[self.train :])
        return TrainingData(features, rng.integers(0, CLASSES, clips), split, CLASSES)

    def model(self) -> nn.Module:
        """foldgrid's model."""
        torch.manual_seed(0)
        return build_model(self.spec, self.inputs, CLASSES)

    def plain_model(self) -> nn.Module:
        """The same layers as PyTorch has them, with the same weights."""
        model = self.model()
        if self.inputs.layout == "image":
            return model
        blocks = plain_blocks(self.inputs.shape[0])
        blocks.load_state_dict(model.get_submodule("blocks").state_dict())
        classifier = model.get_submodule("classifier")
        if isinstance(model, CnnTransformer):
            return CnnTransformer(blocks, model.encoder, classifier)
        return nn.Sequential(blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), classifier)


CASES = {
    "cnn1d": Case(Cnn1dSpec(), InputSpec("samples", (9, 16_000)), 240, 80),
    "cnn_transformer": Case(
        CnnTransformerSpec(heads=4), InputSpec("samples", (9, 16_000)), 240, 80
    ),
    "googlenet": Case(GoogLeNetSpec(), InputSpec("image", (3, 224, 224)), 16, 16),
    "resnet34": Case(ResNet34Spec(), InputSpec("image", (3, 224, 224)), 16, 16),
}


def plain_blocks(channels: int) -> nn.Sequential:
    """The four blocks of `cnn1d` on samples, as one writes them down."""
    widths = [channels, 128, 128, 256, 512]
    layers: list[nn.Module] = []
    for i, (narrow, wide) in enumerate(pairwise(widths)):
        kernel, stride, padding = (80, 16, 0) if i == 0 else (3, 1, 1)
        layers += [nn.Conv1d(narrow, wide, kernel, stride, padding), nn.BatchNorm1d(wide)]
        layers += [nn.ReLU(), nn.MaxPool1d(4)]
    return nn.Sequential(*layers)


def summed_loss(output: Any, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, auxiliary classifiers included."""
    if not isinstance(output, AuxiliaryLogits):
        return cross_entropy(output, labels)
    loss = cross_entropy(output.logits, labels)
    for logits in output.auxiliary:
        loss = loss + output.weight * cross_entropy(logits, labels)
    return loss


class PlainLoop:
    """An epoch as it stands in a tutorial."""

    def __init__(self, case: Case) -> None:
        self.model = case.plain_model()
        data = case.data()
        features = torch.from_numpy(data.features)
        if features.dtype == torch.uint8:
            features = (features / 255).repeat(1, 3, 1, 1)
        clips = TensorDataset(features, torch.from_numpy(data.labels))
        rows = data.split
        train, val = (torch.utils.data.Subset(clips, r.tolist()) for r in (rows.train, rows.val))
        self.train_loader = DataLoader(train, batch_size=BATCH, shuffle=True)
        self.val_loader = DataLoader(val, batch_size=BATCH)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=OPTIMIZER.lr,
            momentum=OPTIMIZER.momentum,
            nesterov=OPTIMIZER.nesterov,
            weight_decay=OPTIMIZER.weight_decay,
        )

    def run_epoch(self) -> None:
        """Train, then validate."""
        self.model.train()
        total, correct = 0.0, 0
        for features, labels in self.train_loader:
            self.optimizer.zero_grad()
            output = self.model(features)
            loss = summed_loss(output, labels)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(labels)
            logits = output.logits if isinstance(output, AuxiliaryLogits) else output
            correct += int((logits.argmax(dim=1) == labels).sum().item())
        self.model.eval()
        with torch.no_grad():
            for features, labels in self.val_loader:
                logits = self.model(features)
                total += cross_entropy(logits, labels).item() * len(labels)
                correct += int((logits.argmax(dim=1) == labels).sum().item())


def foldgrid_fit(case: Case, **options: Any) -> Fit:
    """The same epochs by foldgrid, with options of `train`."""
    spec = TrainSpec(epochs=1_000_000, batch_size=BATCH, optimizer=OPTIMIZER, **options)
    seeds = derive_seeds(0, 1, 2)
    return Fit(case.model(), case.data(), spec, seeds, torch.device("cpu"))


def operations(case: Case) -> float:
    """GFLOP of an epoch: training and validation."""
    model, shape = case.plain_model(), case.inputs.shape
    clips, labels = torch.zeros(BATCH, *shape), torch.zeros(BATCH, dtype=torch.int64)
    with FlopCounterMode(display=False) as training:
        torch.autograd.backward(summed_loss(model(clips), labels))
    model.eval()
    with FlopCounterMode(display=False) as validation, torch.no_grad():
        model(clips)
    each = [counter.get_total_flops() / BATCH / 1e9 for counter in (training, validation)]
    return case.train * each[0] + case.val * each[1]


def peaks(dtype: torch.dtype, width: int = 512) -> dict[str, float]:
    """GFLOP/s of the fastest of ten products `[16 * 32 * 32, width] x [width, width]`."""
    maps = torch.randn(16, width, 32, 32).to(dtype, memory_format=torch.channels_last)
    rows = maps.permute(0, 2, 3, 1).reshape(-1, width)
    weight = torch.randn(width, width).to(dtype)
    kernels = weight.t().reshape(width, width, 1, 1)
    products: dict[str, Callable[[], Any]] = {
        "torch.mm": lambda: torch.mm(rows, weight),
        "1x1 convolution": lambda: conv2d(maps, kernels),
    }
    work = 2e-9 * rows.numel() * width
    with torch.no_grad():
        return {
            name: work / min(processor_seconds(run) for _ in range(10))
            for name, run in products.items()
        }


def processor_seconds(run: Callable[[], Any]) -> float:
    """Of one call."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


@dataclass
class Row:
    """A way of running an epoch and how long each took."""

    name: str
    run_epoch: Callable[[], Any]
    dtype: torch.dtype = torch.float32
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)


def rows_of(case: Case, *, bf16: bool, compiled: bool) -> list[Row]:
    """Every row of a model's table, the first epoch behind it."""
    rows = [
        Row("plain", PlainLoop(case).run_epoch),
        Row("foldgrid", foldgrid_fit(case).run_epoch),
    ]
    if bf16:
        fit = foldgrid_fit(case, precision="bf16")
        rows.append(Row("foldgrid, bf16", fit.run_epoch, torch.bfloat16))
    if compiled:
        rows.append(Row("foldgrid, compiled", foldgrid_fit(case, compile=True).run_epoch))
    for row in rows:
        row.first = processor_seconds(row.run_epoch)
    return rows


def print_rows(case: Case, rows: list[Row], limit: dict[torch.dtype, float]) -> None:
    """The table of a model."""
    work = operations(case)
    print(f"{'':20}{'seconds':>9}{'times plain':>13}{'GFLOP/s':>9}{'share':>7}{'first s':>9}")
    for row in rows:
        seconds = statistics.median(row.seconds)
        pairs = zip(rows[0].seconds, row.seconds, strict=True)
        times = statistics.median(plain / own for plain, own in pairs)
        rate = work / seconds
        share = rate / limit[row.dtype]
        beyond = row.first - seconds
        print(f"{row.name:20}{seconds:9.3f}{times:13.2f}{rate:9.0f}{share:7.0%}{beyond:9.2f}")


def parts(case: Case) -> dict[str, float]:
    """Processor seconds of an epoch's parts, as `Fit` runs them."""
    data, model = case.data(), case.model()
    train, val = (
        ClipSet(data.features, data.labels, rows, torch.device("cpu"))
        for rows in (data.split.train, data.split.val)
    )
    optimizer = make_optimizer(OPTIMIZER, model)
    loss_of = TrainingLoss(train.labels, CLASSES, smoothing=0.0, class_weights="none")
    spent: dict[str, list[float]] = {}
    for epoch in range(4):
        clock = Clock(spent, epoch)
        model.train()
        for positions in train.shuffled(BATCH, epoch):
            features, labels = train.batch(positions)
            clock.stop("gather")
            loss = loss_of(forward(model, features, CLASSES), Targets(labels, None))
            clock.stop("forward")
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            clock.stop("backward")
            optimizer.step()
            clock.stop("optimizer")
        evaluate(model, val, CLASSES)
        clock.stop("evaluation")
    return {name: statistics.median(epochs[1:]) for name, epochs in spent.items()}


class Clock:
    """Adds up processor time by part and epoch."""

    def __init__(self, spent: dict[str, list[float]], epoch: int) -> None:
        self._spent, self._epoch = spent, epoch
        self._last = time.process_time()

    def stop(self, part: str) -> None:
        """The time since the last stop was spent in this part."""
        now = time.process_time()
        epochs = self._spent.setdefault(part, [])
        epochs.extend([0.0] * (self._epoch + 1 - len(epochs)))
        epochs[self._epoch] += now - self._last
        self._last = now


def measure(name: str, repetitions: int, limit: dict[torch.dtype, float], compiled: bool) -> None:
    """Measure a model and print its table."""
    case = CASES[name]
    clips = f"{case.train} + {case.val} clips of {' x '.join(map(str, case.inputs.shape))}"
    print(f"\n{name}, {clips}: {operations(case):.0f} GFLOP an epoch", flush=True)
    rows = rows_of(case, bf16=torch.bfloat16 in limit, compiled=compiled)
    for _ in range(repetitions):
        for row in rows:
            row.seconds.append(processor_seconds(row.run_epoch))
    print_rows(case, rows, limit)
    shares = parts(case)
    print("foldgrid: " + ", ".join(f"{part} {spent:.3f}" for part, spent in shares.items()))


def limits() -> Iterator[tuple[torch.dtype, float]]:
    """Print and give the peak of each type that the processor multiplies."""
    types = [torch.float32]
    # The check that PyTorch itself makes before it takes the processor's instructions.
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        types.append(torch.bfloat16)
    for dtype in types:
        found = peaks(dtype)
        listed = ", ".join(f"{name} {rate:.0f}" for name, rate in found.items())
        print(f"peak of one core, {str(dtype).removeprefix('torch.')}: {listed} GFLOP/s")
        yield dtype, max(found.values())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Seconds an epoch beside the limit of a core.")
    parser.add_argument("models", nargs="*", choices=[[], *CASES], metavar="MODEL")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--compile", action="store_true", dest="compiled")
    given = parser.parse_args()
    torch.set_num_threads(1)
    limit = dict(limits())
    for name in given.models or CASES:
        measure(name, given.repetitions, limit, given.compiled)


if __name__ == "__main__":
    main()
