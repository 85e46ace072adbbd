"""The models that come with foldgrid: layers, sizes and the inputs that they take."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.build import BUILDERS, build_model, count_parameters
from models.cnn1d import PatchConv1d, conv_blocks
from models.cnn2d import Cnn2d
from models.cnn_transformer import CnnTransformer, sinusoidal_positions
from models.googlenet import GoogLeNet, four_by_four
from models.outputs import AuxiliaryLogits
from models.resnet import ResNet
from models.spec import (
    MODELS,
    Cnn1dSpec,
    Cnn2dSpec,
    CnnTransformerSpec,
    GoogLeNetSpec,
    InputError,
    InputSpec,
    ModelSpec,
    ResNet34Spec,
)

WINDOWS = InputSpec("samples", (9, 16_000))
BANDS = InputSpec("bands", (80, 157))
IMAGE = InputSpec("image", (3, 224, 224))
SMALL_IMAGE = InputSpec("image", (3, 32, 32))
PICTORIAL = [Cnn2dSpec(channels=4), GoogLeNetSpec(), ResNet34Spec()]
SHORTEST = {"samples": 4160, "bands": 24}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small layers wait for their threads more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize(
    ("spec", "total"), [(GoogLeNetSpec(), 10_339_607), (ResNet34Spec(), 22_676_109)]
)
def test_networks_on_images_have_the_reports_parameter_count(spec: ModelSpec, total: int) -> None:
    assert count_parameters(build_model(spec, IMAGE, 13)) == (total, total)


def test_a_spectrogram_takes_two_channels_off_the_first_convolution() -> None:
    for spec, total in [(GoogLeNetSpec(), 10_339_607), (ResNet34Spec(), 22_676_109)]:
        assert count_parameters(build_model(spec, BANDS, 13))[0] == total - 2 * 64 * 7 * 7


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


@pytest.mark.parametrize("spec", [Cnn1dSpec(), CnnTransformerSpec()])
def test_an_image_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(InputError, match="waveform, log_mel or mfcc, no images"):
        build_model(spec, SMALL_IMAGE, 3)


@pytest.mark.parametrize("spec", PICTORIAL)
def test_a_waveform_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(InputError, match="log_mel, mfcc or mel_image, no waveform"):
        build_model(spec, WINDOWS, 3)


@pytest.mark.parametrize("spec", PICTORIAL)
@pytest.mark.parametrize(
    "inputs", [SMALL_IMAGE, InputSpec("bands", (33, 57)), InputSpec("image", (3, 65, 40))]
)
def test_pictures_of_many_sizes(spec: ModelSpec, inputs: InputSpec) -> None:
    model = small_model(spec, inputs)
    output = model(torch.randn(2, *inputs.shape))
    heads = [output] if isinstance(output, torch.Tensor) else [output.logits, *output.auxiliary]
    assert [(tuple(head.shape), head.dtype) for head in heads] == [((2, 3), torch.float32)] * len(
        heads
    )
    torch.stack(heads).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    copied = copy.deepcopy(model).eval()
    with torch.no_grad():
        assert copied(torch.randn(1, *inputs.shape)).shape == (1, 3)


@pytest.mark.parametrize("spec", PICTORIAL)
def test_a_full_picture_by_shapes_alone(spec: ModelSpec) -> None:
    with torch.device("meta"):
        model = build_model(spec, IMAGE, 3).eval()
        assert model(torch.zeros(2, *IMAGE.shape)).shape == (2, 3)


@pytest.mark.parametrize(("spec", "side"), list(zip(PICTORIAL, [16, 32, 32], strict=True)))
def test_a_smaller_picture_is_refused(spec: ModelSpec, side: int) -> None:
    small_model(spec, InputSpec("bands", (side, side)))
    for layout, shape in [("bands", (side - 1, 200)), ("image", (3, 200, side - 1))]:
        message = f"at least {side} x {side} pixels.*{shape[-2]} x {shape[-1]}$"
        with pytest.raises(InputError, match=message):
            build_model(spec, InputSpec(layout, shape), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", PICTORIAL)
def test_equal_seeds_give_equal_pictorial_models(spec: ModelSpec) -> None:
    picture = torch.randn(2, *SMALL_IMAGE.shape)
    first, second = (small_model(spec, SMALL_IMAGE).eval()(picture) for _ in range(2))
    assert torch.equal(first, second)


def test_the_auxiliary_classifiers_of_googlenet_speak_in_training_only() -> None:
    model = small_model(GoogLeNetSpec(), SMALL_IMAGE)
    output = model(torch.randn(2, *SMALL_IMAGE.shape))
    assert isinstance(output, AuxiliaryLogits)
    assert len(output.auxiliary) == 2
    assert output.weight == 0.3
    assert isinstance(model.eval()(torch.randn(2, *SMALL_IMAGE.shape)), torch.Tensor)


def test_the_auxiliary_classifiers_read_the_first_and_the_fourth_block() -> None:
    model = small_model(GoogLeNetSpec(), SMALL_IMAGE)
    assert isinstance(model, GoogLeNet)
    output = model(torch.randn(2, *SMALL_IMAGE.shape))
    for head, last in zip(output.auxiliary, (0, 3), strict=True):
        model.zero_grad(set_to_none=True)
        head.sum().backward(retain_graph=True)
        reached = [all(p.grad is not None for p in block.parameters()) for block in model.four]
        assert reached == [block <= last for block in range(5)]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (5, 9), (14, 13), (20, 6)])
def test_maps_are_averaged_to_four_by_four(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = torch.nn.functional.adaptive_avg_pool2d(maps, 4)
    assert torch.allclose(four_by_four(maps), expected, atol=1e-6)


def test_the_papers_map_is_averaged_as_in_the_paper() -> None:
    maps = torch.randn(2, 3, 14, 14)
    assert torch.equal(four_by_four(maps), torch.nn.functional.avg_pool2d(maps, 5, stride=3))


def test_three_shortcuts_of_resnet34_are_convolutions() -> None:
    model = small_model(ResNet34Spec(), SMALL_IMAGE)
    assert isinstance(model, ResNet)
    layers = [block.get_submodule("shortcut") for block in model.blocks]
    strided = [i for i, layer in enumerate(layers) if list(layer.parameters())]
    assert strided == [3, 7, 13]
    for i in strided:
        convolution = layers[i].get_submodule("0")
        assert convolution.kernel_size == (3, 3)
        assert convolution.stride == (2, 2)


def test_cnn2d_hears_what_happens_once() -> None:
    model = small_model(Cnn2dSpec(channels=4), BANDS).eval()
    silence = torch.zeros(1, *BANDS.shape)
    click = silence.clone()
    click[..., 60:64] = 30.0
    with torch.no_grad():
        assert not torch.allclose(model(silence), model(click), atol=1e-5)


def test_cnn2d_grows_with_its_channels() -> None:
    narrow, wide = (
        dict(small_model(Cnn2dSpec(channels=c), BANDS).named_parameters()) for c in (4, 8)
    )
    assert narrow["branches.0.classifier.1.weight"].shape == (3, 64)
    assert wide["branches.0.classifier.1.weight"].shape == (3, 128)
    assert narrow.keys() == wide.keys()


@pytest.mark.parametrize("inputs", [BANDS, SMALL_IMAGE], ids=["bands", "image"])
def test_the_branches_of_cnn2d_answer_together_and_learn_apart(inputs: InputSpec) -> None:
    model = small_model(Cnn2dSpec(channels=4, branches=4, dropout=0.0), inputs)
    assert isinstance(model, Cnn2d)
    batch = torch.randn(2, *inputs.shape)
    output = model(batch)
    assert isinstance(output, AuxiliaryLogits)
    assert len(output.auxiliary) == 3
    assert output.weight == 1.0
    torch.autograd.backward(output.auxiliary[1].sum())
    gradients = [any(p.grad is not None for p in branch.parameters()) for branch in model.branches]
    assert gradients == [False, False, True, False]
    model.eval()
    with torch.no_grad():
        each = torch.stack([branch(batch) for branch in model.branches])
        assert torch.allclose(model(batch), each.mean(dim=0))
    assert not torch.allclose(each[0], each[3])


def test_a_branch_of_cnn2d_does_not_hear_how_loud_a_clip_is() -> None:
    model = small_model(Cnn2dSpec(channels=4, branches=2), BANDS).eval()
    assert isinstance(model, Cnn2d)
    batch = torch.randn(2, *BANDS.shape)
    with torch.no_grad():
        loud = [branch(batch + 20) for branch in model.branches]
        soft = [branch(batch) for branch in model.branches]
    assert not torch.allclose(loud[0], soft[0], atol=1e-3)
    assert torch.allclose(loud[1], soft[1], atol=1e-4)


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
    steps = ours(signal.unsqueeze(2)).squeeze(2)
    assert torch.allclose(steps, plain(signal), atol=1e-12)
    steps.square().sum().backward()
    plain(signal).square().sum().backward()
    assert ours.weight.grad is not None
    assert plain.weight.grad is not None
    assert torch.allclose(ours.weight.grad, plain.weight.grad, atol=1e-9)


def plain_blocks(channels: int, layout: str) -> torch.nn.Sequential:
    """The four blocks as the paper writes them, on `[b, c, t]`."""
    layers: list[torch.nn.Module] = []
    first, pool = ((80, 16, 0), 4) if layout == "samples" else ((9, 1, 0), 2)
    for narrow, wide in [(channels, 128), (128, 128), (128, 256), (256, 512)]:
        kernel = first if not layers else (3, 1, 1)
        layers += [torch.nn.Conv1d(narrow, wide, *kernel), torch.nn.BatchNorm1d(wide)]
        layers += [torch.nn.ReLU(), torch.nn.MaxPool1d(pool)]
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("inputs", [InputSpec("samples", (3, 5000)), InputSpec("bands", (5, 41))])
def test_blocks_are_those_of_plain_layers(inputs: InputSpec) -> None:
    torch.manual_seed(0)
    ours = conv_blocks(inputs.shape[0], inputs.layout).double()
    plain = plain_blocks(inputs.shape[0], inputs.layout).double()
    for norm in (layer for layer in ours if isinstance(layer, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    plain.load_state_dict(ours.state_dict())
    clips = torch.randn(4, *inputs.shape, dtype=torch.float64)
    # Silence, where every step of a pool is as loud as the others.
    clips[0, :, inputs.shape[1] // 2 :] = 0.0
    for _ in range(2):
        answers = [blocks(clips) for blocks in (ours, plain)]
        assert torch.allclose(*answers, atol=1e-9)
        for answer in answers:
            answer.square().sum().backward()
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, plain.get_parameter(name).grad, atol=1e-6), name
    assert all(torch.allclose(b, plain.get_buffer(n)) for n, b in ours.named_buffers())
    assert torch.allclose(ours.eval()(clips), plain.eval()(clips), atol=1e-9)


def test_patches_need_a_stride_that_divides_the_kernel() -> None:
    with pytest.raises(ValueError, match="kernel=10, stride=3"):
        PatchConv1d(1, 1, 10, 3)


def test_the_specifications_need_no_torch() -> None:
    code = "import models, models.spec, models.factory, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
