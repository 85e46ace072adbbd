"""torchvision's classifiers, and weights to start from, by the specification and from a file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.build import build_model, count_parameters, try_model
from models.outputs import AuxiliaryLogits
from models.spec import GoogLeNetSpec, InputError, InputSpec, TorchvisionSpec
from models.torchvision_classifier import TorchvisionError, classifier_names
from models.weights import WeightsError, load_weights, read_weights
from orchestrator.sweep import load_sweep
from orchestrator.trials import Configuration

IMAGE = InputSpec("image", (3, 64, 64))
BANDS = InputSpec("bands", (40, 70))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small layers wait for their threads more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spec(name: str, **changes: Any) -> TorchvisionSpec:
    return TorchvisionSpec(name=f"torchvision:{name}", **changes)


def built(model: TorchvisionSpec | GoogLeNetSpec, inputs: InputSpec, classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return build_model(model, inputs, classes)


def network(name: str, classes: int, **params: Any) -> nn.Module:
    from torchvision import models

    torch.manual_seed(1)
    return models.get_model(name, weights=None, num_classes=classes, **params)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Write the weights of a network of torchvision."""

    def save(name: str, classes: int, suffix: str = ".pth", **params: Any) -> str:
        path = tmp_path / f"{name}{suffix}"
        state = network(name, classes, **params).state_dict()
        if suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        return str(path)

    return save


@pytest.mark.parametrize("inputs", [IMAGE, BANDS])
@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_logits_and_gradients(name: str, inputs: InputSpec) -> None:
    model = built(spec(name), inputs)
    logits = model(torch.randn(2, *inputs.shape))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert copy.deepcopy(model).eval()(torch.randn(2, *inputs.shape)).shape == (2, 5)


def test_the_head_and_the_first_convolution_are_all_that_differs() -> None:
    heads = 512 * 1000 + 1000 - (512 * 5 + 5)
    assert count_parameters(built(spec("resnet18"), IMAGE))[0] == 11_689_512 - heads
    assert count_parameters(built(spec("resnet18"), BANDS))[0] == 11_689_512 - heads - 2 * 64 * 49


@pytest.mark.parametrize(
    ("name", "side", "heads", "weight"), [("googlenet", 64, 2, 0.3), ("inception_v3", 299, 1, 0.4)]
)
def test_auxiliary_classifiers_speak_in_training_only(
    name: str, side: int, heads: int, weight: float
) -> None:
    with torch.device("meta"):
        model = built(spec(name), InputSpec("image", (3, side, side)))
        images = torch.zeros(2, 3, side, side)
    output = model(images)
    assert isinstance(output, AuxiliaryLogits)
    assert [tuple(part.shape) for part in output.auxiliary] == [(2, 5)] * heads
    assert output.weight == weight
    assert model.eval()(images).shape == (2, 5)


def test_equal_seeds_give_equal_models() -> None:
    first, second = (built(spec("mobilenet_v3_small"), BANDS) for _ in range(2))
    bands = torch.randn(2, *BANDS.shape)
    with torch.no_grad():
        assert torch.equal(first.eval()(bands), second.eval()(bands))


def test_decibels_are_standardised_before_the_network_sees_them() -> None:
    model = built(spec("squeezenet1_1"), BANDS)
    seen = model.get_submodule("picture")(torch.randn(8, *BANDS.shape) * 20 - 60)
    assert seen.shape == (8, 1, *BANDS.shape)
    assert seen.mean().item() == pytest.approx(0, abs=1e-3)
    assert seen.std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_weights_from_a_file_with_another_head(saved: Callable[..., str], suffix: str) -> None:
    file = saved("squeezenet1_1", 7, suffix)
    start = built(spec("squeezenet1_1"), IMAGE).state_dict()
    state = built(spec("squeezenet1_1", weights=file), IMAGE).state_dict()
    for name, tensor in network("squeezenet1_1", 7).state_dict().items():
        head = name.startswith("classifier.")
        expected = start[f"network.{name}"] if head else tensor
        assert torch.equal(state[f"network.{name}"], expected), name


def test_a_head_of_our_size_is_kept(saved: Callable[..., str]) -> None:
    model = built(spec("resnet18", weights=saved("resnet18", 5)), IMAGE)
    expected = network("resnet18", 5)
    images = torch.rand(2, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        want = expected.eval()((images - mean) / std)
        assert torch.allclose(model.eval()(images), want, atol=1e-5)


def test_one_channel_sees_what_three_equal_ones_would(saved: Callable[..., str]) -> None:
    model = built(spec("resnet18", weights=saved("resnet18", 5)), BANDS).eval()
    picture = torch.randn(2, 1, *BANDS.shape)
    with torch.no_grad():
        want = network("resnet18", 5).eval()(picture.expand(-1, 3, -1, -1))
        assert torch.allclose(model.get_submodule("network")(picture), want, atol=1e-4)


def test_pretrained_googlenet_sees_pictures_as_torchvision_shows_them(
    saved: Callable[..., str],
) -> None:
    params = {"init_weights": False}
    model = built(spec("googlenet", weights=saved("googlenet", 5, **params), params=params), IMAGE)
    theirs = network("googlenet", 5, transform_input=True, **params).eval()
    images = torch.rand(2, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        assert torch.allclose(model.eval()(images), theirs((images - mean) / std), atol=1e-5)


def test_auxiliary_classifiers_may_be_missing_in_a_file(saved: Callable[..., str]) -> None:
    file = saved("googlenet", 9, aux_logits=False, init_weights=False)
    state = built(spec("googlenet", weights=file), IMAGE).state_dict()
    assert torch.equal(
        state["network.conv1.conv.weight"], read_weights(Path(file))["conv1.conv.weight"]
    )
    assert state["network.aux1.fc2.weight"].shape == (5, 1024)


def test_old_names_in_files_of_densenet(saved: Callable[..., str]) -> None:
    file = Path(saved("densenet121", 5))
    state = read_weights(file)
    old = {n.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): t for n, t in state.items()}
    torch.save(old, file)
    assert old.keys() != state.keys()
    try_model(spec("densenet121", weights=str(file)), IMAGE)


def test_a_whole_saved_model_is_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    first = built(spec("mobilenet_v3_small"), BANDS)
    first(torch.randn(4, *BANDS.shape) - 50)
    save_file(first.state_dict(), path)
    second = built(spec("mobilenet_v3_small", weights=str(path)), BANDS)
    bands = torch.randn(2, *BANDS.shape) - 50
    with torch.no_grad():
        assert torch.equal(first.eval()(bands), second.eval()(bands))


def test_a_built_in_model_takes_up_its_own_weights(tmp_path: Path) -> None:
    path = tmp_path / "googlenet.pt"
    inputs = InputSpec("image", (3, 32, 32))
    first = built(GoogLeNetSpec(), inputs, classes=4)
    torch.save(first.state_dict(), path)
    state = built(GoogLeNetSpec(weights=str(path)), inputs, classes=6).state_dict()
    own = first.state_dict()
    differ = {name for name in own if not torch.equal(own[name], state[name])}
    layers = ("classifier", "auxiliary.0.classifier.4", "auxiliary.1.classifier.4")
    assert differ == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv1.weight"), r"^it lacks conv1\.weight$"),
        (lambda s: s.update(more=torch.zeros(1)), "^it holds more, which the model does not have$"),
        (
            lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(2, 3)}),
            r"^its shapes do not fit: layer1\.0\.conv1\.weight \[2, 3\] for \[64, 64, 3, 3\]$",
        ),
        (lambda s: s.update(epoch=3), "^it holds int under 'epoch', not a tensor"),
        (
            lambda s: [s.pop(n) for n in list(s) if n.startswith("layer1")],
            r"^it lacks layer1\.0\.conv1\.weight, .* and 17 more$",
        ),
    ],
)
def test_weights_that_do_not_fit(
    saved: Callable[..., str], change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    file = saved("resnet18", 7)
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)
    with pytest.raises(WeightsError, match=message):
        try_model(spec("resnet18", weights=file), IMAGE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pt", None, "^it cannot be read: No such file or directory$"),
        ("notes.txt", b"hello", "^its name ends in neither"),
        ("broken.pt", b"hello", "^it (is damaged|holds more than tensors)"),
        ("broken.safetensors", b"hello", "^it is damaged"),
        ("empty.pth", b"", "^it is damaged"),
    ],
)
def test_files_that_hold_no_weights(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / name)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="more than tensors"):
        read_weights(tmp_path / "model.pt")


def test_shapes_are_compared_before_anything_is_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = {name: torch.full_like(tensor, 7) for name, tensor in model.state_dict().items()}
    state["1.bias"] = torch.zeros(3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(WeightsError, match=r"1\.bias \[3\] for \[2\]"):
        load_weights(model, type(model.state_dict())(state), set())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (spec("alexnet"), InputSpec("image", (3, 32, 32)), "64 x 64 pixels for instance"),
        (spec("vit_b_16"), IMAGE, "224 x 224 pixels for instance .*Expected 224 but got 64"),
        (spec("resnet18"), InputSpec("samples", (9, 16_000)), "no waveform"),
    ],
)
def test_features_that_do_not_fit(model: TorchvisionSpec, inputs: InputSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        try_model(model, inputs)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (spec("resnet19"), r"^name: found torchvision:resnet19; allowed torchvision's resnet18, "),
        (spec("fcn_resnet50"), "^name: found torchvision:fcn_resnet50"),
        (
            spec("vgg11", params={"dropuot": 0.1}),
            r"^params\.dropuot: found unknown key 'dropuot'",
        ),
        (
            spec("vgg11", params={"dropout": 3}),
            "^params: found .*ValueError: dropout probability",
        ),
        (
            spec("alexnet", params={"num_classes": 3}),
            r"^params\.num_classes: found .* which foldgrid gives",
        ),
    ],
)
def test_what_torchvision_does_not_have(model: TorchvisionSpec, message: str) -> None:
    with pytest.raises(TorchvisionError, match=message):
        try_model(model, IMAGE)


def test_trying_a_model_draws_nothing() -> None:
    generator = torch.get_rng_state()
    # The second computes its widths with tensors, so that it cannot be built without memory.
    for name in ("mobilenet_v3_small", "regnet_y_400mf"):
        try_model(spec(name, params={}), IMAGE)
    assert torch.equal(torch.get_rng_state(), generator)


def test_detectors_and_segmenters_are_no_classifiers() -> None:
    names = classifier_names()
    assert {"resnet18", "googlenet", "vit_b_16", "convnext_tiny"} <= set(names)
    assert not [name for name in names if "rcnn" in name or "deeplab" in name or "raft" in name]


def specification(tmp_path: Path, model: str, folder: str = "a") -> Path:
    (tmp_path / folder).mkdir(exist_ok=True)
    path = tmp_path / folder / "spec.yaml"
    text = f"data: {{dataset: synthetic}}\nfeatures: {{kind: log_mel}}\nmodel: {model}\n"
    path.write_text(text, encoding="utf-8")
    return path


def configurations(path: Path) -> tuple[Configuration, ...]:
    return load_sweep(path).configurations


def test_the_content_of_the_file_is_the_identity_and_its_folder_is_not(
    tmp_path: Path, saved: Callable[..., str]
) -> None:
    file = Path(saved("squeezenet1_1", 3))
    model = "{name: 'torchvision:squeezenet1_1', weights: w.pth}"
    there, here = specification(tmp_path, model), specification(tmp_path, model, "b")
    for folder in ("a", "b"):
        (tmp_path / folder / "w.pth").write_bytes(file.read_bytes())
    (first,), (second,) = configurations(there), configurations(here)
    assert first.id == second.id
    assert first.model != second.model
    assert first.parameters["model.weights"] == f"w.pth@{first.source[:8]}"
    assert Configuration.from_json(first.to_json()) == first
    torch.save(network("squeezenet1_1", 4).state_dict(), tmp_path / "b" / "w.pth")
    assert configurations(here)[0].id != first.id


def test_one_file_in_two_folders_is_one_configuration(
    tmp_path: Path, saved: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(saved("squeezenet1_1", 3))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("COPY", str(tmp_path / "copy"))
    grid = f"{{grid: [null, ../{file.name}, '${{COPY}}/{file.name}']}}"
    path = specification(tmp_path, f"{{name: 'torchvision:squeezenet1_1', weights: {grid}}}")
    sweep = load_sweep(path)
    plain, started = sweep.configurations
    assert "model.weights" not in plain.parameters
    assert started.parameters["model.weights"] == f"{file.name}@{started.source[:8]}"
    assert sweep.merged == 1
    written = sweep.document["model"]["weights"]["grid"]
    assert written == [None, str(file), str(tmp_path / "copy" / file.name)]


def test_faults_of_a_specification_are_one_line_each(
    tmp_path: Path, foldgrid: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    for model, words in [
        ("{name: 'torchvision:resnet19'}", ["model.name", "did you mean torchvision:resnet18?"]),
        (
            "{name: 'torchvision:vgg11', params: {dropuot: 1}}",
            ["params.dropuot", "mean dropout?"],
        ),
        ("{name: resnet34, weights: none.pt}", ["model.weights", "none.pt", "No such file"]),
        ("{name: resnet34, weights: DEFAULT}", ["model.weights", ".safetensors, .pt or .pth"]),
        ("{name: cnn2d, weights: a.pt, init: xavier}", ["model.init", "xavier", "random"]),
        (
            "{name: 'torchvision:resnet18', weights: DEFAULT}",
            ["https://download.pytorch.org/models/resnet18-f37072fd.pth cannot be downloaded"],
        ),
        ("{name: 'torchvision:resnet18', weights: BEST}", ["IMAGENET1K_V1, DEFAULT"]),
    ]:
        result = foldgrid("plan", specification(tmp_path, model))
        assert result.code == 2, model
        assert result.err.count("\n") == 1, result.err
        assert "spec.yaml:3: " in result.err
        assert all(word in result.err for word in words), result.err
    assert not list((tmp_path / "torch").rglob("*.pth*"))
