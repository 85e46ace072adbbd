"""A user's own model: finding, importing and checking `package.module:factory`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = [
    "FactoryError",
    "check_factory",
    "copy_source",
    "forget_changed",
    "load_factory",
    "source_hash",
]

Factory = Callable[..., Any]

_IMPORTED = "__foldgrid_source__"
"""Attribute of a user's module: the hash of its file when a factory was first loaded from it."""


class FactoryError(ValueError):
    """A user's model cannot be found, imported or called; the message is one line.

    Attributes:
        parameter: the parameter that is at fault; None where it is the factory itself.
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


def load_factory(name: str, import_path: Sequence[Path]) -> Factory:
    """Import a user's factory.

    The folders go to the front of `sys.path` and stay there, so that imports inside the user's
    functions work too. A module that is imported already is taken as it is, never reloaded; see
    `forget_changed`.

    Args:
        name: `package.module:factory`.
        import_path: folders to look in before the installed packages.

    Raises:
        FactoryError: no such module or attribute, not callable, the module raises while it is
            imported, or another module of that name is imported already.
    """
    module_name, _, attribute = name.partition(":")
    file = _source_file(module_name, import_path)
    module = _import(module_name, import_path)
    loaded = getattr(module, "__file__", None)
    if loaded is None or Path(loaded).resolve() != file.resolve():
        raise FactoryError(
            f"{module_name} is already the name of {loaded or 'a built-in module'}; "
            f"rename {file.name}"
        )
    vars(module).setdefault(_IMPORTED, _hash(file))
    return _attribute(module, attribute)


def forget_changed(name: str) -> None:
    """Let a factory's module be imported anew if its file has changed since the first time.

    For a specification that is read again in one process, as in a notebook: a trial's identity
    says what the file holds then. Not while trials run.

    Args:
        name: `package.module:factory`.
    """
    module_name = name.partition(":")[0]
    module = sys.modules.get(module_name)
    before, file = getattr(module, _IMPORTED, None), getattr(module, "__file__", None)
    if before is not None and file is not None:
        with suppress(OSError):
            if _hash(Path(file)) == before:
                return
        del sys.modules[module_name]


def check_factory(factory: Factory, params: Mapping[str, Any]) -> None:
    """Bind `factory(input_shape, classes, **params)` without calling it.

    Raises:
        FactoryError: parameters that the factory does not take, lacks, or gets from foldgrid.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # Written in C, without a signature: only calling it can tell.
    shown = getattr(factory, "__name__", type(factory).__name__)
    given = list(signature.parameters.values())
    own, rest = given[:2], given[2:]
    if any(p.kind is p.VAR_POSITIONAL for p in own):
        own, rest = [], given
    elif len(own) < 2 or any(p.kind is p.KEYWORD_ONLY or p.kind is p.VAR_KEYWORD for p in own):
        raise FactoryError(f"{shown} must take (input_shape, classes, ...), it takes {signature}")
    _check_names(shown, [p.name for p in own if p.kind is not p.POSITIONAL_ONLY], rest, params)


def source_hash(name: str, import_path: Sequence[Path]) -> str:
    """SHA-256 of the source file of a user's factory, without importing it.

    Args:
        name: `package.module:factory`.
        import_path: folders to look in before the installed packages.

    Raises:
        FactoryError: no such module, or none with a file.
    """
    file = _source_file(name.partition(":")[0], import_path)
    return _hash(file)


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def copy_source(name: str, import_path: Sequence[Path], folder: Path) -> bool:
    """Copy the Python files of a user's factory, so that `folder` can be its import path.

    Those of its package, or its one file; not what it imports beside them.

    Args:
        name: `package.module:factory`.
        import_path: folders to look in before the installed packages.
        folder: made where there is something to copy.

    Returns:
        Whether it lies in one of the folders. An installed package is not copied.

    Raises:
        FactoryError: no such module, or none with a file.
        OSError: it cannot be copied.
    """
    module_name = name.partition(":")[0]
    file = _source_file(module_name, import_path).resolve()
    roots = [root for root in map(Path, _absolute(import_path)) if file.is_relative_to(root)]
    if not roots:
        return False
    top = roots[0] / file.relative_to(roots[0]).parts[0]
    files = [path for path in top.rglob("*.py") if path.is_file()] if top.is_dir() else [file]
    for path in files:
        copy = folder / path.relative_to(roots[0])
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return True


def _source_file(module_name: str, import_path: Sequence[Path]) -> Path:
    spec = _find(module_name, import_path)
    if spec is None:
        folders = ", ".join(str(folder) for folder in import_path) or "no folder"
        raise FactoryError(f"module {module_name} not found in {folders} or the installed packages")
    if not spec.has_location or spec.origin is None:
        raise FactoryError(f"module {module_name} has no source file")
    return Path(spec.origin)


def _find(module_name: str, import_path: Sequence[Path]) -> ModuleSpec | None:
    """Follow the dotted name from folder to folder; the packages on the way are not imported."""
    importlib.invalidate_caches()
    folders: Sequence[str] = [*_absolute(import_path), *sys.path]
    spec: ModuleSpec | None = None
    for part in module_name.split("."):
        spec = PathFinder.find_spec(part, folders)
        if spec is None:
            break
        folders = list(spec.submodule_search_locations or [])
    return spec or _find_installed(module_name)


def _find_installed(module_name: str) -> ModuleSpec | None:
    """What import hooks know beside `sys.path`: built-in modules and editable installations."""
    try:
        return importlib.util.find_spec(module_name)
    except (ImportError, ValueError, AttributeError):
        return None


def _import(module_name: str, import_path: Sequence[Path]) -> ModuleType:
    for folder in reversed(_absolute(import_path)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        with _no_bytecode():
            return importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    # The user's code runs here; sys.exit in it must not end the program.
    except BaseException as error:
        line = next(iter(str(error).splitlines()), "")
        raise FactoryError(
            f"{type(error).__name__} while importing {module_name}" + (f": {line}" if line else "")
        ) from error


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leave no `__pycache__` beside the user's files; it also goes stale within one second."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _absolute(import_path: Sequence[Path]) -> list[str]:
    return [str(Path(folder).resolve()) for folder in import_path]


def _attribute(module: ModuleType, attribute: str) -> Factory:
    try:
        factory = getattr(module, attribute)
    except AttributeError:
        names = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
        hint = _nearest(attribute, names)
        raise FactoryError(f"module {module.__name__} has no {attribute}{hint}") from None
    if not callable(factory):
        kind = type(factory).__name__
        raise FactoryError(f"{module.__name__}:{attribute} is of type {kind}, not callable")
    found: Factory = factory
    return found


def _check_names(
    shown: str, own: list[str], rest: list[inspect.Parameter], params: Mapping[str, Any]
) -> None:
    taken = [p for p in rest if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    allowed = [p.name for p in taken]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in rest)
    for name in params:
        if name in own:
            raise FactoryError(f"{shown} gets {name} from foldgrid, not from params", name)
        if name not in allowed and not takes_any:
            listed = ", ".join(allowed) or "none"
            hint = _nearest(name, allowed)
            raise FactoryError(f"{shown} takes no {name}; allowed {listed}{hint}", name)
    for parameter in taken:
        if parameter.default is parameter.empty and parameter.name not in params:
            raise FactoryError(f"{shown} needs {parameter.name}", parameter.name)


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
