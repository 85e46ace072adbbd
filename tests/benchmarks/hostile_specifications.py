"""Specifications as nobody should write them: mutations of real ones, in structure and in text."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).parents[2] / "configs"

TINY = """\
name: tiny
data: {dataset: folder, root: '${DATA}'}
features: {kind: log_mel, sample_rate: 8000, seconds: 0.4, n_fft: 256, hop_length: 128, n_mels: 16}
folds: {k: 4, test: 1, validate: [2, 3]}
model: {name: cnn1d, init: {grid: [random, xavier]}}
train:
  epochs: 1
  batch_size: 8
  optimizer: {name: sgd, lr: 0.01, momentum: 0.9}
search: {method: grid, metric: val_accuracy}
resources: {cpu: 1, gpu: 0}
execution: {max_failures: 0}
"""

OWN_MODEL = """\
name: own
data: {dataset: folder, root: '${DATA}', on_bad_clip: skip}
features: {kind: log_mel, sample_rate: 8000, seconds: 0.4, n_fft: 256, hop_length: 128, n_mels: 16}
folds: {k: 4, test: null, validate: [2]}
model: {name: 'own_model:build', params: {width: {grid: [2, 4]}, note: a, list: [1, 2]}}
train: {epochs: 1, batch_size: 8, select: best, augment: {mixup: 0.2, gain: 3}}
search: {method: random, samples: 2, metric: val_loss}
"""

OWN_MODEL_CODE = '''\
"""A model that takes any parameters."""

from torch import nn


def build(input_shape, classes, **params):
    channels, frames = input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * frames, classes))
'''


class Raw(str):
    """Text that stands in the file as it is."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _raw(dumper: yaml.SafeDumper, value: Raw) -> yaml.Node:
    tag = dumper.resolve(yaml.ScalarNode, str(value), (True, False))
    return dumper.represent_scalar(tag, str(value))


_Dumper.add_representer(Raw, _raw)

NUMBERS: list[Any] = [
    *(0, -1, 1, 2, 3, 7, 65_536, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 0.1, 0.5, -0.5),
    *(float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1e-300, 1e-9, 1e308, 1.5, 1e16),
    *map(Raw, ("9" * 4000, "9" * 5000, "-" + "8" * 400, "0x" + "f" * 5000, "0o" + "7" * 6000)),
    *map(Raw, ("1e999", "1e-999", "0." + "0" * 400 + "1", ".1e1", "1.", "+1", "0b1", "1_000")),
    *map(Raw, ("0x", "1e", "12:30:45", "2001-01-01", "١٢", "1/3", "1/0", "1/" + "9" * 5000)),
]
TEXTS = [
    *("", " ", "\t", "\n", "a\nb", "\0", "\x1b[2J", "\r", "\x85", "\u2028", "\ud800", "\ufeff"),
    *("\U0001f4a5", "e\u0301\u0301\u0301", "\u202egnp.exe", "a" * 300, "b" * 5000, "c" * 200_000),
    *("/", "//", ".", "..", "../..", "../../../../etc", "/dev/null", "/dev/zero", "/dev/full"),
    *("/dev/stdin", "/dev/random", "/proc/self/mem", "/proc/self/environ", "/etc/shadow", "~"),
    "~/",
    *("~nobody-there/x", "$HOME", "${HOME}", "${}", "${ }", "${NO_SUCH}", "${A${B}}", "${HOME"),
    "%s",
    *("=1+1", "+1", "-x", "@SUM(A1)", "<script>alert(1)</script>", "{{ 7*7 }}", "{% raw %}", "$x$"),
    *("'; DROP TABLE", '"', "'", "`id`", "$(id)", "a,b", "null", "true", "on", "NaN", "~x", "*a"),
    *("&a", "!tag", "? x", "- x", "a: b", "# x", "|", ">", "%YAML", "---", "...", "1e-3", "0x1F"),
    *("auto", "best", "best ", "Adam", "sgd", "adam", "cnn1d", "cnn_transformer", "cnn2d"),
    "googlenet",
    *("resnet34", "torchvision:resnet18", "torchvision:nothing", "torchvision:../x", "sklearn:SVC"),
    *("os:system", "sys:exit", "builtins:exec", "own_model:build", "own_model:absent"),
    "own_model:",
    *(":build", "a..b:c", "..:x", "a.b.c:d", "own_model:build\n", "x" * 300 + ":y", "ünï:x"),
    "json:dumps",
    *("synthetic", "esc10", "esc50", "urbansound8k", "folder", "manifest", "waveform", "log_mel"),
    *("mfcc", "mel_image", "rotate", "held_out", "nested", "random", "grid", "val_loss"),
    "test_loss",
    *("cosine", "one_cycle", "plateau", "step", "bf16", "balanced", "librosa", "loop", "peak"),
    *("(", "(a+)+$", "(.)", "(" * 200 + ")" * 200, "(a{99999999999})", "[[a]-(b)", "(?P<x>.)"),
    "(?i)(x)",
    *("(?<!a*)(b)", "\\", "([^/]*)", "(x)?", "()", "(?:)", "(\\d+)|(x)"),
]
EMPTY: list[Any] = [None, True, False, [], {}, [[]], [{}], {"": ""}, [None], {"grid": []}]
KEYS = [
    *("grid", "choice", "uniform", "loguniform", "randint", "name", "kind", "params", "weights"),
    *("__class__", "__init__", "model_config", "format_version", "<<", "=", "*", "0", "-1", "1.5"),
    *("true", "null", "~", "", " ", "a.b", "..", "k" * 3000, "\ud800", "\x1b[31m", "\n", "ключ"),
    "💥",
    *("seed", "seeds", "train", "trian", "validate", "validate_folds", "self", "data", "root"),
    "source",
]


LEGAL: dict[str, list[Any]] = {
    "name": ["x", "-x", "A.b_c-9", "a" * 200],
    "seed": [0, 2**31 - 1],
    "repeats": [1, 2],
    "data.source_pattern": ["([0-9])", "(.)", "([^/]*)", "(x)?", "(?i)([A-Z]+)", "[[](.)", "()"],
    "data.allow_leakage": [True, False],
    "data.near_duplicates": ["warn", "refuse"],
    "data.on_bad_clip": ["skip", "refuse"],
    "features.kind": ["log_mel", "mfcc", "mel_image", "waveform"],
    "features.sample_rate": [1000, 7919, 8000, 16_000, 384_000],
    "features.seconds": [0.001, 0.05, 0.4, 0.4001, 3.7],
    "features.fit": ["pad", "loop"],
    "features.normalize": ["peak", "rms", None],
    "features.n_fft": [1, 2, 3, 255, 256, 4096],
    "features.hop_length": [1, 7, 128, 65_536],
    "features.n_mels": [1, 2, 16, 40, 128],
    "features.n_mfcc": [1, 13, 16, 40],
    "features.f_min": [0.0, 1e-300, 100, 3999.9],
    "features.f_max": [1e-300, 1, 100, 4000, None],
    "features.top_db": [None, 1e-300, 0.1, 80, 200, 1e300],
    "features.size": [32, 33, 64],
    "features.backend": ["torchaudio"],
    "features.windows": [{"seconds": 0.1, "hop": 0.05}, {"seconds": 0.4, "hop": 1e-4}],
    "folds.k": [2, 3, 4, 8, 9],
    "folds.test": [None, 0, 1, 4],
    "folds.validate": [None, [1], [2, 3], [4, 3, 2]],
    "folds.protocol": ["rotate", "held_out"],
    "folds.stratify": [False],
    "folds.group": [False],
    "model.name": ["cnn1d", "cnn2d", "cnn_transformer", "own_model:build"],
    "model.init": ["random", "xavier", "kaiming"],
    "model.heads": [1, 2, 512, {"grid": [1, 2]}],
    "model.layers": [1, 3],
    "model.dropout": [0, 0.5, 0.9999999999999999],
    "model.params": [{}, {"a": "=1+1"}, {"a": "-x"}, {"b": "<b>"}, {"c": [1, {"d": None}]}],
    "model.params.x": [*TEXTS, *NUMBERS],
    "train.epochs": [1, 2, {"grid": [1, 2]}],
    "train.batch_size": [1, 2, 3, 1_000_000],
    "train.optimizer": [{"name": "adam"}, {"name": "adamw", "lr": 1e-300}, {"lr": 5}, {}],
    "train.optimizer.lr": [5e-324, 1e-30, 1, 1e10, 1e38, 1e300, {"grid": [0.1, 1e30]}],
    "train.optimizer.momentum": [0, 0.5, 0.9999999999999999],
    "train.optimizer.nesterov": [True],
    "train.optimizer.weight_decay": [0, 1, 1e30, 1e308],
    "train.schedule": [
        *("cosine", "one_cycle", "plateau", None, {"name": "step", "milestones": [1, 1_000_000]}),
        *({"name": "one_cycle", "div_factor": 1e300}, {"name": "one_cycle", "pct_start": 1e-300}),
        *({"name": "cosine", "min_lr": 1e-300}, {"name": "plateau", "patience": 0}),
    ],
    "train.select": ["best", "last"],
    "train.early_stopping": [{"patience": 1}, {"min_delta": 1e308}, {"metric": "val_accuracy"}],
    "train.augment": [
        *({"mixup": 1e-300}, {"mixup": 0.4}, {"gain": 60}, {"time_shift": 1}),
        {"spec_augment": True},
        *({"gain": 1e300}, {"mixup": 1e300}, {"time_shift": 0.5, "gain": 6}),
    ],
    "train.label_smoothing": [0, 0.5, 0.9999999999999999],
    "train.class_weights": ["balanced", "none"],
    "train.precision": ["bf16", "float32"],
    "train.deterministic": [True],
    "train.test_every_epoch": [True],
    "search": [{"method": "random", "samples": 2}, {"metric": "val_auroc"}, {"mode": "min"}],
    "search.metric": ["val_loss", "val_f1", "val_auroc"],
    "resources.cpu": [1e-300, 0.5, 1, 2],
    "resources.gpu": ["auto", 0, 5e-324, "1/3", "1/" + "9" * 400, 1e-10],
    "checkpoint.every": [1, 2**31 - 1],
    "execution.max_failures": [0, 2**31 - 1],
    "execution.keep_weights": ["none", "all"],
    "trackers": [[]],
}
"""Values that are allowed, most of them, however odd."""


def set_legal(rng: random.Random, data: dict[str, Any]) -> None:
    """Set a key to a value that it may well have."""
    path = rng.choice(list(LEGAL))
    *way, last = path.split(".")
    for key in way:
        child = data.setdefault(key, {})
        if not isinstance(child, dict):
            return
        data = child
    data[last] = copy.deepcopy(rng.choice(LEGAL[path]))


def space(rng: random.Random, depth: int = 0) -> Any:
    """A search space, sound or not."""
    values = [hostile(rng, depth + 1) for _ in range(rng.randrange(4))]
    numbers = rng.choice(
        [[0, 1], [1e-5, 1e-1], [1, 1], [2, 1], [0], [-1, 1], [1e-300, 1e300], [1, 9]]
    )
    word = rng.choice(["grid", "grid", "choice", "uniform", "loguniform", "randint"])
    content = rng.choice([values, values * 2, numbers, hostile(rng, depth + 1), values])
    made: dict[str, Any] = {word: content}
    if rng.random() < 0.1:
        made[rng.choice(KEYS)] = hostile(rng, depth + 1)
    return made


def hostile(rng: random.Random, depth: int = 0) -> Any:
    """A value that no key expects."""
    kind = rng.randrange(10)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 6:
        return rng.choice(TEXTS)
    if kind == 6:
        return copy.deepcopy(rng.choice(EMPTY))
    if depth > 4:
        return 1
    if kind == 7:
        return [hostile(rng, depth + 1) for _ in range(rng.randrange(1, 5))]
    if kind == 8:
        return {rng.choice(KEYS): hostile(rng, depth + 1) for _ in range(rng.randrange(1, 4))}
    return space(rng, depth)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything below a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, child in items:
        found.append((*path, key))
        if isinstance(child, dict | list):
            found += places(child, (*path, key))
    return found


def _parent(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        data = data[key]
    return data


def mutate_structure(rng: random.Random, data: dict[str, Any], times: int) -> dict[str, Any]:
    """The data with values replaced, keys renamed, removed or added, spaces anywhere."""
    data = copy.deepcopy(data)
    for _ in range(times):
        if rng.random() < 0.3:
            set_legal(rng, data)
            continue
        path = rng.choice(places(data) or [("name",)])
        parent, key = _parent(data, path), path[-1]
        kind = rng.randrange(8)
        if kind == 0 and isinstance(parent, dict):
            parent[rng.choice(KEYS)] = parent.pop(key, None)
        elif kind == 1:
            del parent[key]
        elif kind == 2:
            parent[key] = {rng.choice(["grid", "grid", "choice"]): [parent[key], hostile(rng)]}
        elif kind == 3:
            parent[key] = space(rng)
        elif kind == 4 and isinstance(parent, dict):
            parent[rng.choice(KEYS)] = hostile(rng)
        elif kind == 5:
            other = rng.choice(places(data))
            parent[key] = copy.deepcopy(_parent(data, other)[other[-1]])
        else:
            parent[key] = hostile(rng)
    return data


def _positions(rng: random.Random, content: bytes, count: int) -> list[int]:
    return [rng.randrange(len(content) + 1) for _ in range(count)]


def _truncated(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flipped(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for position in _positions(rng, content, rng.choice([1, 1, 3, 20])):
        if position < len(changed):
            changed[position] ^= 1 << rng.randrange(8)
    return bytes(changed)


_INSERTS = [
    *(b"\0", b"\x07", b"\x1b", b"\t", b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xff"),
    b"\xef\xbb\xbf",
    *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"{", b"}", b"[", b"]", b":", b": ", b",", b"#", b" #"),
    *(b"&a ", b"*a", b"*a ", b"!!python/object/apply:os.system ", b"!!binary ", b"!!set "),
    b"!!omap ",
    *(b"!!int ", b"!!float ", b"!!bool ", b"!!null ", b"!!str ", b"!x ", b"! "),
    b"!<tag:yaml.org> ",
    *(b"!<%ff> ", b"!!timestamp ", b"? ", b"- ", b"| ", b"> ", b"|9", b"'", b'"', b'"\\UFFFFFFFF"'),
    *(b'"\\ud800"', b'"\\xZZ"', b'"\\', b"@", b"`", b"%", b"\n---\n", b"\n...\n"),
    b"\n%YAML 1.2\n---\n",
    *(b"<<: *a\n", b"\n\n\n", b"    ", b"\n  ", b"\n\t", b"=", b"~", b"null", b"${HOME}"),
]


def _inserted(rng: random.Random, content: bytes) -> bytes:
    for position in _positions(rng, content, rng.choice([1, 1, 2, 5])):
        content = content[:position] + rng.choice(_INSERTS) + content[position:]
    return content


def _at_values(rng: random.Random, content: bytes) -> bytes:
    """Something put before a value."""
    spots = [match.end() for match in re.finditer(rb": |, |\[|- ", content)]
    spot = rng.choice(spots or [0])
    return content[:spot] + rng.choice(_INSERTS) + content[spot:]


def _lines_changed(rng: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    kind, i = rng.randrange(5), rng.randrange(len(lines))
    if kind == 0:
        lines.insert(rng.randrange(len(lines)), lines[i])
    elif kind == 1:
        del lines[i]
    elif kind == 2:
        rng.shuffle(lines)
    elif kind == 3:
        lines[i] = rng.choice([b"\t", b" ", b"  ", b"\xc2\xa0"]) + lines[i]
    else:
        lines[i] = lines[i].lstrip()
    return b"\n".join(lines)


def _numbers_blown_up(rng: random.Random, content: bytes) -> bytes:
    numbers = list(re.finditer(rb"\b\d[\d.e-]*\b", content))
    if not numbers:
        return content
    match = rng.choice(numbers)
    new = str(rng.choice([n for n in NUMBERS if isinstance(n, Raw)])).encode()
    return content[: match.start()] + new + content[match.end() :]


def _recoded(rng: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    coding = rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7"])
    return text.encode(coding, "replace")


def _line_ends(rng: random.Random, content: bytes) -> bytes:
    ends = [b"\r", b"\r\n", b"\xc2\x85", b"\xe2\x80\xa9", b"\n\n", b"\x0b", b""]
    return content.replace(b"\n", rng.choice(ends))


def _laughs(rng: random.Random, content: bytes) -> bytes:
    """A few lines that stand for billions of values."""
    levels, width = rng.choice([(9, 9), (40, 2), (5, 20), (3, 60)])
    opening, closing = rng.choice([("[", "]"), ("{", "}")])

    def items(text: str) -> str:
        pairs = (f"k{i}: {text}" if opening == "{" else text for i in range(width))
        return opening + ", ".join(pairs) + closing

    lines = ["l0: &l0 " + items("x")]
    lines += [f"l{n}: &l{n} " + items(f"*l{n - 1}") for n in range(1, levels)]
    place = rng.choice(["data", "params", "train", "x"])
    lines.append(f"{place}: {rng.choice(['*l0', f'*l{levels - 1}', f'{{grid: *l{levels - 1}}}'])}")
    laughs = "\n".join(lines).encode() + b"\n"
    return laughs + content if rng.random() < 0.5 else content + b"\n" + laughs


def _nested(rng: random.Random, content: bytes) -> bytes:
    depth = rng.choice([20, 45, 60, 200, 900, 3000, 50_000])
    texts = [
        *("x: " + "[" * depth, "x: " + "[" * depth + "]" * depth),
        *("x: " + "{a: " * depth + "}" * depth, "x: " + "- " * depth),
        "x:\n" + "".join(" " * i + "- \n" for i in range(1, min(depth, 900))),
        "".join(" " * i + "a:\n" for i in range(min(depth, 900))),
        *("model: " + "{grid: [" * depth + "1" + "]}" * depth, "x: " + "? " * depth),
        *("x: " + "!!str " * min(depth, 900) + "a", "&a x: &b " + "[*b, " * depth),
    ]
    text = rng.choice(texts).encode()
    return content + b"\n" + text if rng.random() < 0.5 else text


def _many(rng: random.Random, content: bytes) -> bytes:
    count = rng.choice([1000, 20_000])
    texts = [
        "".join(f"key{i}: {i}\n" for i in range(count)),
        "trackers: [" + ", ".join(["a"] * count) + "]\n",
        "folds: {validate: [" + ", ".join(map(str, range(count))) + "]}\n",
        "model: {name: {grid: [" + ", ".join(f"m{i}" for i in range(count)) + "]}}\n",
        "train: {epochs: {grid: [" + ", ".join(map(str, range(1, count))) + "]}}\n",
        *("seed: " + "1" * count + "\n", "name: " + "a" * count + "\n"),
        *("# " + "x" * count + "\n" + "name: '" + " \n" * count + "'\n", "a" * count + ": 1\n"),
    ]
    return content + b"\n" + rng.choice(texts).encode()


TEXT_MUTATIONS: list[Callable[[random.Random, bytes], bytes]] = [
    *(_truncated, _flipped, _flipped, _inserted, _inserted, _at_values, _at_values, _at_values),
    *(_lines_changed, _lines_changed, _numbers_blown_up, _numbers_blown_up, _recoded, _line_ends),
    *(_laughs, _nested, _many),
]

_FILES = [
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"{}", b"[]", b"~", b"---", b"...", b"&a *a"),
    b"*a",
]
_PATHS = ["seed", "name", "data.root", "model", "train.epochs", "model.heads", "a", "", ".", "a..b"]
_PATHS += [
    "folds.validate.0",
    "folds.validate.99",
    "folds.validate." + "9" * 5000,
    "folds.validate.-1",
]
_PATHS += [
    "train.optimizer.lr",
    ".".join("a" * 3000),
    "model.params.x",
    "data.on_bad_clip",
    "\x1b[1m",
]
_PATHS += ["features.seconds", "search", "resources.gpu", "resources.cpu", "features", "repeats"]


@dataclass(frozen=True)
class Specification:
    """A mutated specification and the options beside it."""

    label: str
    content: bytes
    options: tuple[str, ...]


def _option(rng: random.Random) -> str:
    values = [
        *("", "[", "{", "}", "&a", "*a", "1\nb: 2", "a: b", "- 1", "{grid: [1, 2]}", "!!int x"),
        "'",
        *("1 # x", "{a: " * 60, "[" * 3000, "\t1", "{grid: []}", "null", ".nan", "-1", "1e999"),
        "\0",
        *("x\x85value2: y", "5e-324", "1e-400", "0x" + "f" * 5000, "\n", "? x", "---\n"),
        '"\\UFFFFFFFF"',
        *("1\nvalue: 2", "\ud800", "%YAML 1.1", "<<: {a: 1}"),
    ]
    path = rng.choice(_PATHS)
    equals = rng.choice(["=", "=", "=", "=", "", " = ", "=="])
    return f"{path}{equals}{rng.choice(values)}"


def specification(seed: int, number: int, run: bool) -> Specification:
    """The mutated specification with a number; `run`: one that may well run, and soon."""
    rng = random.Random(f"{seed}/specification/{number}")
    files = sorted(CONFIGS.glob("*.yaml"))
    bases = {path.stem: path.read_text(encoding="utf-8") for path in files}
    small = {"tiny": TINY, "own": OWN_MODEL}
    name = rng.choice(list(small)) if run or rng.random() < 0.4 else rng.choice(list(bases))
    text = (bases | small)[name]
    if rng.random() < 0.01:
        return Specification("file", rng.choice(_FILES), ())
    options = (
        tuple(_option(rng) for _ in range(rng.choice([1, 1, 2]))) if rng.random() < 0.1 else ()
    )
    if run or rng.random() < 0.6:
        data = yaml.safe_load(text)
        legal = rng.choice([1, 2, 4]) if run or rng.random() < 0.4 else 0
        for _ in range(legal):
            set_legal(rng, data)
        times = rng.choice([0, 0, 0, 1]) if run else rng.choice([0, 1, 1, 2, 8])
        data = mutate_structure(rng, data, times)
        content = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=rng.random() < 0.5)
        return Specification(
            f"{name}, structure", content.encode("utf-8", "surrogatepass"), options
        )
    content_bytes = text.encode()
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        content_bytes = rng.choice(TEXT_MUTATIONS)(rng, content_bytes)
    return Specification(f"{name}, text", content_bytes, options)
