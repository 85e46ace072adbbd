"""YAML text with the line of every key: YAML 1.2 scalars, `--set` overrides, faults by place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from orchestrator.errors import Fault, SpecificationError, listing, shown

Key: TypeAlias = str | int
KeyPath: TypeAlias = tuple[Key, ...]

_MOST_NODES = 200_000
"""More than any specification needs: aliases can blow up a small file without limit."""

MOST_DEPTH = 50

_MOST_BYTES = 1_000_000
"""Of a file: what takes PyYAML about ten seconds to read."""

MOST_BITS = 1023
"""Of a whole number: a larger one is beyond every float, and its digits take long to make."""

# YAML 1.2 core schema (yaml.org/spec/1.2.2, section 10.3.2): unlike PyYAML's 1.1 rules, `1e-3`
# is a number and `on`, `off`, `yes`, `no` are strings.
_SCALARS = (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    (
        "tag:yaml.org,2002:int",
        r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$",
        list("-+0123456789"),
    ),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
)


def dotted(path: Iterable[Key]) -> str:
    """`('train', 'epochs')` as `train.epochs`; list elements by index."""
    return ".".join(str(key) for key in path)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 scalars."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, quoting exactly the strings that `_Loader` would not read as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def dump(data: Any) -> str:
    """The data as YAML text that `load` reads back equal."""
    return str(
        yaml.dump(
            data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None
        )
    )


@dataclass
class YamlSource:
    """A YAML mapping and where each of its values comes from.

    Attributes:
        name: of the file, as it stands in messages.
        data: plain values: dict, list, str, int, float, bool, None.
        lines: line of each key or element, counted from 1.
        options: the `--set` option that brought a value.
    """

    name: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    options: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """`FILE:LINE` of the value, or of its nearest parent that has one; or its option."""
        below = [option for key, option in self.options.items() if key[: len(path)] == path]
        if below and path not in self.lines:
            return below[0]
        for end in range(len(path), -1, -1):
            if path[:end] in self.options:
                return self.options[path[:end]]
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        # A mapping that was no file has no lines.
        return f"{self.name}:1" if self.lines else self.name

    def fault(self, path: KeyPath, found: str, allowed: str, near: str = "") -> Fault:
        """A fault at a path of this source."""
        return Fault(self.place(path), dotted(path), found, allowed, near)

    def find(self, path: KeyPath, ending: object = None) -> KeyPath:
        """Where a key stands when search spaces lie on its way; the path itself if nowhere.

        Args:
            path: of the key, without spaces.
            ending: the value looked for, or the end of its text; None takes the first.
        """
        return _find(self.data, path, (), ending) or path

    def override(self, option: str) -> None:
        """Apply one `path.to.key=value`; the value is YAML.

        Raises:
            SpecificationError: no `=`, no such list element, or a value that is not YAML.
        """
        name = f"--set {option}"
        path_text, equals, text = option.partition("=")
        keys = path_text.strip().split(".")
        if not equals or not all(keys):
            raise SpecificationError(f"{name}: found no path and value; allowed path.to.key=value")
        if len(keys) > MOST_DEPTH:
            raise SpecificationError(f"{name}: found {len(keys)} keys; allowed {MOST_DEPTH}")
        parsed = load(f"value: {text}\n", name)
        if list(parsed.data) != ["value"]:
            raise SpecificationError(f"{name}: found several values; allowed one")
        path = self._assign(name, keys, parsed.data["value"])
        for known in (self.lines, self.options):
            for old in [p for p in known if p[: len(path)] == path]:
                del known[old]
        self.options[path] = name

    def _assign(self, name: str, keys: list[str], value: Any) -> KeyPath:
        parent: Any = self.data
        path: list[Key] = []
        for position, text in enumerate(keys):
            last = position == len(keys) - 1
            key = _key(name, parent, path, text)
            path.append(key)
            if last:
                parent[key] = value
            else:
                child = parent[key] if isinstance(key, int) else parent.get(key)
                if not isinstance(child, dict | list):
                    child = parent[key] = {}
                parent = child
        return tuple(path)


def _key(name: str, parent: Any, path: list[Key], text: str) -> Key:
    if isinstance(parent, dict):
        return text
    if re.fullmatch("[0-9]{1,9}", text) and int(text) < len(parent):
        return int(text)
    allowed = f"0 to {len(parent) - 1}" if parent else "no element"
    raise SpecificationError(str(Fault(name, dotted([*path, text]), repr(text), allowed)))


def read(path: Path) -> YamlSource:
    """Read a YAML file that holds a mapping.

    Raises:
        SpecificationError: not readable, not UTF-8, not YAML, a repeated key, not a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            found = f"found more than {_MOST_BYTES} bytes"
            raise SpecificationError(f"{path}: {found}; allowed a smaller specification")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecificationError(f"{path}:{line}: found byte {error.start}, not UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SpecificationError(f"{path}: found no file to read ({reason})") from None
    return load(text, str(path))


def load(text: str, name: str) -> YamlSource:
    """Parse YAML text that holds a mapping; see `read`."""
    try:
        node = _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        raise SpecificationError(_syntax(error, name)) from None
    except RecursionError:
        raise SpecificationError(f"{_place(name, 1)}: found nesting too deep to read") from None
    except (ValueError, OverflowError) as error:
        # PyYAML lets those of `chr` and `int` through: "\UFFFFFFFF", a version of 5000 digits.
        problem = f"found text that is not YAML ({error})"
        raise SpecificationError(f"{_place(name, 1)}: {problem}") from None
    if not isinstance(node, yaml.MappingNode):
        found = "nothing" if node is None else f"a {type(node).__name__.lower()[:-4]}"
        raise SpecificationError(f"{_place(name, 1)}: found {found}; allowed a mapping")
    source = YamlSource(name, {})
    builder = _Builder(source)
    data = builder.build(node, ())
    if builder.faults:
        raise SpecificationError(*(str(fault) for fault in builder.faults))
    source.data = data
    return source


def _place(name: str, line: int) -> str:
    # A fault in an option's value names the option; a line number there would mean nothing.
    return name if name.startswith("--set ") else f"{name}:{line}"


def _syntax(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else 1
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "bad YAML"
    return f"{_place(name, line)}: found text that is not YAML ({' '.join(str(problem).split())})"


class _Builder:
    """Turns YAML nodes into plain values, noting each one's line and every fault."""

    def __init__(self, source: YamlSource) -> None:
        self.source = source
        self.faults: list[Fault] = []
        self._scalars = yaml.constructor.SafeConstructor()
        self._nodes = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.source.lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > _MOST_NODES or len(path) > MOST_DEPTH:
            limit = f"{_MOST_NODES} values, {MOST_DEPTH} levels"
            place = _place(self.source.name, node.start_mark.line + 1)
            raise SpecificationError(str(Fault(place, "", "too many or too deep values", limit)))
        if node.tag == "tag:yaml.org,2002:map" and isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if node.tag == "tag:yaml.org,2002:seq" and isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            line = key_node.start_mark.line + 1
            place = _place(self.source.name, line)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                found = f"key {shown(key)}" if isinstance(key, str) else "a key that is no name"
                self.faults.append(Fault(place, dotted(path), found, "names as keys"))
                continue
            if key in data:
                first = self.source.lines[(*path, key)]
                found = f"the key again (first in line {first})"
                self.faults.append(Fault(place, dotted((*path, key)), found, "each key once"))
                continue
            self.source.lines[(*path, key)] = line
            data[key] = self.build(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        kinds = _KINDS
        kind = node.tag.rpartition(":")[2] if isinstance(node, yaml.ScalarNode) else ""
        if not node.tag.startswith("tag:yaml.org,2002:") or kind not in kinds:
            self.faults.append(self.source.fault(path, f"tag {node.tag}", listing(sorted(kinds))))
            return None
        try:
            return _scalar_value(kind, node.value)
        except ValueError:
            self.faults.append(self.source.fault(path, shown(node.value), _KINDS[kind]))
            return None


_KINDS = {
    "null": "null",
    "bool": "true or false",
    "int": f"a whole number below 2^{MOST_BITS}",
    "float": "a number",
    "str": "text",
}


def _scalar_value(kind: str, text: str) -> Any:
    """The value of a scalar; ValueError where a tag says what it is not."""
    if kind == "null":
        return None
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError("neither true nor false")
        return text.lower() == "true"
    if kind == "int":
        number = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if number.bit_length() > MOST_BITS:
            raise ValueError("too large")
        return number
    if kind == "float":
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    return text


def _find(node: Any, keys: KeyPath, way: KeyPath, ending: object) -> KeyPath | None:
    if isinstance(node, dict) and len(node) == 1 and next(iter(node)) in ("grid", "choice"):
        word, options = next(iter(node.items()))
        branches = enumerate(options if isinstance(options, list) else [])
        ways = (_find(option, keys, (*way, word, i), ending) for i, option in branches)
        return next((found for found in ways if found is not None), None)
    if not keys:
        ends = isinstance(ending, str) and str(node).endswith(ending)
        return way if ending is None or node == ending or ends else None
    if isinstance(node, dict) and keys[0] in node:
        return _find(node[keys[0]], keys[1:], (*way, keys[0]), ending)
    return None
