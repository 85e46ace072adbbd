"""The models that come with foldgrid: layers, sizes and the inputs that they take."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.build import BUILDERS, build_model, count_parameters
from models.cnn1d import PatchConv1d
from models.cnn_transformer import CnnTransformer, sinusoidal_positions
from models.spec import MODELS, Cnn1dSpec, CnnTransformerSpec, InputError, InputSpec, ModelSpec

WINDOWS = InputSpec("samples", (9, 16_000))
BANDS = InputSpec("bands", (80, 157))
SHORTEST = {"samples": 4160, "bands": 24}


def small_model(spec: ModelSpec, inputs: InputSpec, classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(spec, inputs, classes)


@pytest.mark.parametrize("inputs", [WINDOWS, BANDS])
def test_cnn1d_has_the_reports_parameter_count(inputs: InputSpec) -> None:
    assert count_parameters(build_model(Cnn1dSpec(), inputs, 10)) == (641_034, 641_034)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("inputs", [WINDOWS, BANDS])
def test_cnn_transformer_has_the_reports_parameter_count(inputs: InputSpec, heads: int) -> None:
    model = build_model(CnnTransformerSpec(heads=heads), inputs, 10)
    assert count_parameters(model) == (3_272_714, 3_272_714)


def test_frozen_parameters_are_counted_apart() -> None:
    model = build_model(Cnn1dSpec(), WINDOWS, 10)
    for parameter in model.get_submodule("blocks").parameters():
        parameter.requires_grad_(False)
    assert count_parameters(model) == (641_034, 5_130)


@pytest.mark.parametrize(("inputs", "tokens"), [(WINDOWS, 3), (BANDS, 9)])
def test_time_steps_that_become_tokens(inputs: InputSpec, tokens: int) -> None:
    model = build_model(CnnTransformerSpec(), inputs, 10)
    assert isinstance(model, CnnTransformer)
    assert model.tokens(torch.zeros(2, *inputs.shape)).shape == (2, tokens, 512)


@pytest.mark.parametrize("spec", [Cnn1dSpec(), CnnTransformerSpec(layers=1)])
@pytest.mark.parametrize("layout", ["samples", "bands"])
@pytest.mark.parametrize("extra", [0, 1, 17, 4001])
def test_clips_of_any_length_from_the_shortest(spec: ModelSpec, layout: str, extra: int) -> None:
    inputs = InputSpec(layout, (2, SHORTEST[layout] + extra))  # type: ignore[arg-type]
    model = small_model(spec, inputs)
    logits = model(torch.randn(4, *inputs.shape))
    assert logits.shape == (4, 3)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("spec", [Cnn1dSpec(), CnnTransformerSpec()])
@pytest.mark.parametrize(("layout", "unit"), [("samples", "samples"), ("bands", "frames")])
def test_a_shorter_clip_is_refused(spec: ModelSpec, layout: str, unit: str) -> None:
    short = SHORTEST[layout] - 1
    with pytest.raises(InputError, match=f"at least {short + 1} {unit}.*{short}"):
        build_model(spec, InputSpec(layout, (2, short)), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["samples", "bands"])
def test_the_shortest_clip_is_really_the_shortest(layout: str) -> None:
    shortest = SHORTEST[layout]
    model = small_model(Cnn1dSpec(), InputSpec(layout, (1, shortest)))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="size"):
        model(torch.randn(2, 1, shortest - 1))


def test_every_model_of_the_specification_has_a_builder() -> None:
    assert set(BUILDERS) == set(MODELS)


def test_heads_and_dropout_start_from_equal_weights() -> None:
    first = small_model(CnnTransformerSpec(heads=1), BANDS).state_dict()
    second = small_model(CnnTransformerSpec(heads=4, dropout=0.5), BANDS).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_class_token_attends_to_every_time_step() -> None:
    model = small_model(CnnTransformerSpec(heads=2), BANDS).eval()
    clip = torch.randn(1, *BANDS.shape)
    changed = clip.clone()
    changed[..., -20:] += 1.0
    with torch.no_grad():
        assert not torch.allclose(model(clip), model(changed))


def test_the_order_of_the_tokens_matters() -> None:
    model = small_model(CnnTransformerSpec(heads=2), BANDS).eval()
    assert isinstance(model, CnnTransformer)
    steps = torch.randn(1, 512, 9)
    model.blocks = torch.nn.Identity()
    with torch.no_grad():
        assert not torch.allclose(model(steps), model(steps.flip(-1)), atol=1e-4)


def test_the_encoder_is_post_norm_without_a_final_norm() -> None:
    model = small_model(CnnTransformerSpec(layers=3, dropout=0.2), BANDS)
    encoder = model.get_submodule("encoder")
    assert isinstance(encoder, torch.nn.TransformerEncoder)
    assert encoder.norm is None
    assert len(encoder.layers) == 3
    assert all(not layer.norm_first for layer in encoder.layers)
    assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == {0.2}


def test_positions_are_those_of_vaswani() -> None:
    table = sinusoidal_positions(torch.zeros(1, 50, 512))
    assert table.shape == (50, 512)
    for position, column in [(0, 0), (0, 1), (7, 0), (7, 1), (49, 200), (49, 511)]:
        angle = position / 10_000 ** (column // 2 * 2 / 512)
        expected = math.cos(angle) if column % 2 else math.sin(angle)
        assert table[position, column].item() == pytest.approx(expected, abs=1e-4)


def test_positions_are_no_state() -> None:
    assert not any(
        "position" in name for name in build_model(CnnTransformerSpec(), BANDS, 2).state_dict()
    )


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 4),
    stride=st.integers(1, 6),
    patches=st.integers(1, 4),
    extra=st.integers(0, 40),
)
def test_patches_give_the_convolution(channels: int, stride: int, patches: int, extra: int) -> None:
    torch.manual_seed(1)
    kernel = stride * patches
    ours = PatchConv1d(channels, 5, kernel, stride).double()
    plain = torch.nn.Conv1d(channels, 5, kernel, stride).double()
    plain.load_state_dict(ours.state_dict())
    signal = torch.randn(2, channels, kernel + extra, dtype=torch.float64)
    assert torch.allclose(ours(signal), plain(signal), atol=1e-12)
    ours(signal).square().sum().backward()
    plain(signal).square().sum().backward()
    assert ours.weight.grad is not None
    assert plain.weight.grad is not None
    assert torch.allclose(ours.weight.grad, plain.weight.grad, atol=1e-9)


def test_patches_need_a_stride_that_divides_the_kernel() -> None:
    with pytest.raises(ValueError, match="kernel=10, stride=3"):
        PatchConv1d(1, 1, 10, 3)


def test_the_specifications_need_no_torch() -> None:
    code = "import models, models.spec, models.factory, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
