"""Search spaces: from nested values with spaces in them to the list of plain ones.

A space stands in place of a value: `{grid: [...]}` for every value, `{choice: [...]}`,
`{uniform: [a, b]}`, `{loguniform: [a, b]}`, `{randint: [a, b]}` for a drawn one. Values may be
mappings with spaces inside, which is how conditional parameters are written.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol, TypeAlias

from orchestrator.errors import Fault, shown
from orchestrator.trials import canonical
from orchestrator.yaml_source import KeyPath, YamlSource, dotted

SAMPLED = ("choice", "uniform", "loguniform", "randint")
SPACES = ("grid", *SAMPLED)

Rank: TypeAlias = Callable[[KeyPath], int]
"""Position of a key in the schema, given its path without the space words."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A plain value, or an empty list or mapping."""

    value: Any
    path: KeyPath


@dataclass(frozen=True, slots=True)
class Branches:
    """A mapping or a list whose members may hold spaces; members in schema order."""

    members: tuple[tuple[str | int, Node], ...]
    path: KeyPath
    is_list: bool


@dataclass(frozen=True, slots=True)
class Space:
    """A search space.

    Attributes:
        kind: `grid`, `choice`, `uniform`, `loguniform` or `randint`.
        options: the values of a grid or choice.
        bounds: of the others; the upper one is excluded.
        path: where it stands in the source.
        key: the path of the value it stands for, with the number of spaces around it.
    """

    kind: str
    options: tuple[Node, ...]
    bounds: tuple[float, float]
    path: KeyPath
    key: str


Node: TypeAlias = Leaf | Branches | Space


class Chooser(Protocol):
    """Says which values spaces take."""

    def options(self, space: Space) -> Sequence[Node]:
        """Of a `grid` or a `choice`, the values that it takes."""

    def number(self, space: Space) -> float | int:
        """The value of a numeric space."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Which values sampled spaces take: the `index`-th draw, or one that probes the bounds."""

    seed: int = 0
    index: int = 0
    probe: Literal["", "low", "high"] = ""

    def uniform(self, key: str) -> float:
        """A number in [0, 1) that depends on the seed, the key and the index alone."""
        text = f"{self.seed}|{self.index}|{key}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64 * (1 - 2**-53)

    def options(self, space: Space) -> Sequence[Node]:
        """All of a grid, and of a choice one, or all where it is probed."""
        if space.kind == "grid" or self.probe:
            return space.options
        index = min(int(self.uniform(space.key) * len(space.options)), len(space.options) - 1)
        return (space.options[index],)

    def number(self, space: Space) -> float | int:
        """The value of a numeric space."""
        low, high = space.bounds
        u = {"low": 0.0, "high": 1 - 2**-53}.get(self.probe, -1.0)
        u = self.uniform(space.key) if u < 0 else u
        if space.kind == "randint":
            return int(low) + min(int(u * (int(high) - int(low))), int(high) - int(low) - 1)
        if space.kind == "loguniform":
            value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
        else:
            value = low + u * (high - low)
        return min(max(value, low), math.nextafter(high, low))


class SpaceParser:
    """Reads the spaces of one section of a specification, collecting every fault."""

    def __init__(self, source: YamlSource, rank: Rank) -> None:
        self.source = source
        self.rank = rank
        self.faults: list[Fault] = []
        self.sampled: list[Space] = []

    def parse(self, value: Any, path: KeyPath, logical: KeyPath, depth: int = 0) -> Node:
        """The tree below a value.

        Args:
            value: plain data.
            path: where it stands in the source.
            logical: the same without the space words and indices, the key it configures.
            depth: how many spaces stand around it at the same key.
        """
        if isinstance(value, dict) and value:
            words = [key for key in value if key in SPACES]
            if len(words) == 1 and len(value) == 1:
                return self._space(words[0], value[words[0]], (*path, words[0]), logical, depth)
            if words:
                other = next(key for key in value if key != words[0])
                found = f"{other} beside {words[0]}"
                self._fault((*path, other), found, "a space alone in its mapping")
                return Leaf(None, path)
            members = sorted(value, key=lambda key: self.rank((*logical, key)))
            parsed = ((k, self.parse(value[k], (*path, k), (*logical, k))) for k in members)
            return Branches(tuple(parsed), path, is_list=False)
        if isinstance(value, list) and value:
            items = ((i, self.parse(v, (*path, i), (*logical, i))) for i, v in enumerate(value))
            return Branches(tuple(items), path, is_list=True)
        return Leaf(value, path)

    def _space(self, kind: str, value: Any, path: KeyPath, logical: KeyPath, depth: int) -> Node:
        key = f"{dotted(logical)}#{depth}"
        if kind in ("grid", "choice"):
            if not isinstance(value, list) or not value:
                self._fault(path, shown(value), "a list of at least one value")
                return Leaf(None, path)
            if kind == "grid":
                self._refuse_repeated(value, path)
            options = tuple(
                self.parse(v, (*path, i), logical, depth + 1) for i, v in enumerate(value)
            )
            space = Space(kind, options, (0, 0), path, key)
        else:
            bounds = self._bounds(kind, value, path)
            if bounds is None:
                return Leaf(None, path)
            space = Space(kind, (), bounds, path, key)
        if kind in SAMPLED:
            self.sampled.append(space)
        return space

    def _refuse_repeated(self, values: list[Any], path: KeyPath) -> None:
        first: dict[str, int] = {}
        for i, value in enumerate(values):
            if (text := canonical(value)) in first:
                found = f"{shown(value)} again (element {first[text]})"
                self._fault((*path, i), found, "each value once")
            first.setdefault(text, i)

    def _bounds(self, kind: str, value: Any, path: KeyPath) -> tuple[float, float] | None:
        whole = kind == "randint"
        kinds = (int,) if whole else (int, float)
        numbers = value if isinstance(value, list) and len(value) == 2 else []
        good = len(numbers) == 2 and all(
            isinstance(n, kinds) and not isinstance(n, bool) and abs(n) < 2**53 for n in numbers
        )
        if not good:
            self._fault(path, shown(value), f"two {'whole ' if whole else ''}numbers, [low, high]")
        elif not numbers[0] < numbers[1]:
            self._fault(path, shown(value), "low below high")
        elif kind == "loguniform" and numbers[0] <= 0:
            self._fault(path, shown(value), "bounds above 0")
        else:
            return numbers[0], numbers[1]
        return None

    def _fault(self, path: KeyPath, found: str, allowed: str) -> None:
        self.faults.append(self.source.fault(path, found, allowed))


def count(node: Node) -> int:
    """How many values `expand` gives for one draw, at most."""
    if isinstance(node, Leaf):
        return 1
    if isinstance(node, Branches):
        return math.prod(count(child) for _, child in node.members)
    if node.kind == "grid":
        return sum(count(option) for option in node.options)
    return max((count(option) for option in node.options), default=1)


def expand(node: Node, draw: Chooser) -> Iterator[Node]:
    """Every value without spaces for one draw, the last member varying fastest.

    A probing draw takes every option of a choice, so that each branch is seen.
    """
    if isinstance(node, Leaf):
        yield node
    elif isinstance(node, Branches):
        keys = [key for key, _ in node.members]
        lists = [list(expand(child, draw)) for _, child in node.members]
        for combination in product(*lists):
            yield Branches(tuple(zip(keys, combination, strict=True)), node.path, node.is_list)
    elif node.kind in ("grid", "choice"):
        for option in draw.options(node):
            yield from expand(option, draw)
    else:
        yield Leaf(draw.number(node), node.path)


def plain(node: Node) -> Any:
    """The data of a tree without spaces."""
    if isinstance(node, Leaf):
        return node.value
    if isinstance(node, Space):
        raise TypeError("a tree with spaces has no single value")
    if node.is_list:
        return [plain(child) for _, child in node.members]
    return {str(key): plain(child) for key, child in node.members}


def source_path(node: Node, path: KeyPath) -> KeyPath:
    """Where the value at a path of a tree without spaces stands in the source."""
    for i, key in enumerate(path):
        members = dict(node.members) if isinstance(node, Branches) else {}
        if key not in members:
            return (*node.path, *path[i:])
        node = members[key]
    return node.path
