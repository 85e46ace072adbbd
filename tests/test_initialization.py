"""How weights start: bounds and spreads of the papers, and what stays as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from models.build import build_model
from models.initialization import initialize
from models.spec import CnnTransformerSpec, Init, InputSpec

BANDS = InputSpec("bands", (40, 60))


def network(init: Init) -> nn.Module:
    torch.manual_seed(5)
    return build_model(CnnTransformerSpec(heads=2, init=init), BANDS, 4)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weight matrices of convolutions, linear layers and attention."""
    return {
        name: value
        for name, value in model.named_parameters()
        if value.dim() > 1 and name.endswith("weight")
    }


def test_random_keeps_what_pytorch_drew() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv1d(3, 4, 5), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    initialize(model, "random")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_xavier_is_uniform_within_glorots_bound() -> None:
    found = weights(network("xavier"))
    assert any("in_proj" in name for name in found)
    for name, weight in found.items():
        receptive = weight[0][0].numel()
        fan_in, fan_out = weight.shape[1] * receptive, weight.shape[0] * receptive
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert weight.abs().max().item() <= bound, name
        assert weight.abs().max().item() > 0.97 * bound, name
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name


def test_kaiming_is_normal_with_hes_deviation() -> None:
    for name, weight in weights(network("kaiming")).items():
        deviation = math.sqrt(2 / weight[0].numel())
        assert weight.std().item() == pytest.approx(deviation, rel=0.05), name
        beyond_two = (weight.abs() > 2 * deviation).float().mean().item()
        assert beyond_two == pytest.approx(0.0455, abs=0.015), name


@pytest.mark.parametrize("init", ["xavier", "kaiming"])
def test_biases_are_zero_and_the_rest_untouched(init: Init) -> None:
    model, reference = network(init), network("random").state_dict()
    for name, value in model.named_parameters():
        kept = "norm" in name or name == "cls" or _is_batch_norm(model, name)
        if kept:
            assert torch.equal(value, reference[name]), name
        elif name.endswith("bias"):
            assert not value.any(), name
        else:
            assert not torch.equal(value, reference[name]), name


@pytest.mark.parametrize("init", ["xavier", "kaiming"])
def test_layers_no_longer_start_as_copies(init: Init) -> None:
    encoder = network(init).get_submodule("encoder.layers")
    first, second = (dict(layer.named_parameters()) for layer in encoder.children())
    name = "self_attn.in_proj_weight"
    assert not torch.equal(first[name], second[name])


@pytest.mark.parametrize("init", ["xavier", "kaiming"])
def test_attention_with_separate_projections(init: Init) -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
    before = {name: value.clone() for name, value in attention.state_dict().items()}
    initialize(attention, init)
    for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"):
        assert not torch.equal(attention.state_dict()[name], before[name]), name
    assert not attention.in_proj_bias.any()


def test_layers_without_bias_and_of_two_dimensions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ConvTranspose2d(8, 3, 3))
    initialize(model, "xavier")
    first, second = model[0], model[1]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.ConvTranspose2d)
    assert first.weight.abs().max().item() <= math.sqrt(6 / (11 * 9))
    assert second.bias is not None
    assert not second.bias.any()


def test_equal_seeds_give_equal_weights() -> None:
    first, second = network("kaiming").state_dict(), network("kaiming").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def _is_batch_norm(model: nn.Module, parameter: str) -> bool:
    module = model.get_submodule(parameter.rpartition(".")[0])
    return isinstance(module, nn.BatchNorm2d)
