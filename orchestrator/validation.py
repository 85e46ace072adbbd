"""From pydantic's errors to faults: the YAML path, what was found, what is allowed."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from orchestrator.errors import Fault, listing, nearest, shown
from orchestrator.yaml_source import KeyPath, YamlSource

SPACE_SECTIONS = ("features", "model", "train")
"""Those in which a search space may stand for a value."""

Locate = Callable[[KeyPath], KeyPath]
"""Where the value at a path of the validated data stands in the source."""

Model = TypeVar("Model", bound=BaseModel)


def validate(
    model: type[Model],
    data: Mapping[str, Any],
    section: KeyPath,
    source: YamlSource,
    locate: Locate = lambda path: path,
) -> tuple[Model | None, list[Fault]]:
    """The validated model, or None and every fault.

    Args:
        model: what the data should be.
        data: plain values.
        section: path of the data in the specification.
        source: for the lines.
        locate: maps a path of the data, section included, to the source's.
    """
    try:
        return model.model_validate(dict(data)), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [_fault(model, detail, section, source, locate) for detail in details]


def _fault(
    model: type[BaseModel],
    detail: ErrorDetails,
    section: KeyPath,
    source: YamlSource,
    locate: Locate,
) -> Fault:
    path, owner, field = _resolve(model, detail["loc"])
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "constraint":
        path = (*path, *(_index(key) for key in context["field"].split(".") if key))
        return source.fault(locate((*section, *path)), context["found"], context["allowed"])
    place = locate((*section, *path))
    if kind == "extra_forbidden":
        # By its key, not by its value: that may be a space, whose values have paths of their own.
        place = (*locate((*section, *path[:-1])), path[-1])
        return unknown_key(place, field_names(owner), source)
    if kind == "missing":
        allowed = describe(field) if field else "a value"
        return source.fault(place, "nothing", f"{allowed} (required)")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = str(context["discriminator"]).strip("'")
        names = [str(_tag(m)) for m in _models(field.annotation)] if field else []
        found = context.get("tag")
        return unknown_value(
            locate((*section, *path, tag)),
            found,
            names or ["a name"],
            source,
        )
    if field is None:
        return source.fault(place, shown(detail["input"]), str(detail["msg"]))
    if path and isinstance(path[-1], int) and (member := _member(field.annotation)) is not None:
        return source.fault(place, shown(detail["input"]), _describe(member, []))
    choices = _choices(field.annotation)
    if describe(field) == listing(choices) and isinstance(detail["input"], str):
        return unknown_value(place, detail["input"], choices, source)
    allowed = describe(field) + _several(place, detail["input"])
    return source.fault(place, shown(detail["input"]), allowed)


def unknown_key(path: KeyPath, allowed: Iterable[str], source: YamlSource) -> Fault:
    """A key that the schema does not have."""
    names = list(allowed)
    key = str(path[-1])
    return source.fault(path, f"unknown key {shown(key)}", listing(names), nearest(key, names))


def unknown_value(path: KeyPath, found: Any, allowed: list[str], source: YamlSource) -> Fault:
    """A name that is not among the allowed ones."""
    text = "nothing" if found is None else shown(found)
    if several := _several(path, found):
        return source.fault(path, text, listing(allowed) + several)
    return source.fault(path, text, listing(allowed), nearest(found, allowed))


def _several(path: KeyPath, found: Any) -> str:
    """How to write what a list was surely meant to be: a search space."""
    meant = isinstance(found, list) and path[0] in SPACE_SECTIONS
    return ", or {grid: [...]} for each of several" if meant else ""


def field_names(model: type[BaseModel]) -> list[str]:
    """The keys of a model as YAML spells them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _index(key: str) -> str | int:
    return int(key) if key.isdecimal() else key


def _resolve(
    model: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[KeyPath, type[BaseModel], FieldInfo | None]:
    """The path without pydantic's union tags, the model that holds its end, and the field."""
    path: list[str | int] = []
    owner, field = model, None
    candidates: list[type[BaseModel]] = [model]
    for key in location:
        tagged = [c for c in candidates if len(candidates) > 1 and _tag(c) == key]
        if tagged:
            candidates = tagged
            continue
        fields = {f.alias or n: f for c in candidates for n, f in c.model_fields.items()}
        if key in fields:
            owner = candidates[0]
            field = fields[str(key)]
            candidates = _models(field.annotation)
            path.append(key)
        elif isinstance(key, int) or (candidates and field is None):
            path.append(key)
        elif candidates:
            # An unknown key below a known field: its owner is the nested model.
            owner, field = candidates[0], None
            path.append(key)
        # Else the name of a union's member, which is no key.
    if candidates and field is None:
        owner = candidates[0] if path else model
    return tuple(path), owner, field


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("name") or model.model_fields.get("kind")
    return None if field is None else field.default


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _member(annotation: Any) -> Any:
    """What an element of a list may be; None for what is no list."""
    if get_origin(annotation) is list:
        return get_args(annotation)[0]
    found = (_member(part) for part in get_args(annotation))
    return next((member for member in found if member is not None), None)


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [shown_choice(value) for value in get_args(annotation)]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [c for part in get_args(annotation) for c in _choices(part)]
    return []


def shown_choice(value: Any) -> str:
    """A fixed value as YAML spells it, strings without quotes."""
    return value if isinstance(value, str) else shown(value)


def describe(field: FieldInfo) -> str:
    """What may stand in a field, in words: `a whole number from 1 to 512`."""
    if field.annotation is type(None):
        return "null in this version"
    return _describe(field.annotation, list(field.metadata))


def _describe(annotation: Any, metadata: list[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *more = get_args(annotation)
        extra = [
            m for item in more for m in (item.metadata if isinstance(item, FieldInfo) else [item])
        ]
        return _describe(base, [*metadata, *extra])
    if origin is Literal:
        return listing(_choices(annotation))
    if origin in (Union, types.UnionType):
        parts = [_describe(part, metadata) for part in get_args(annotation)]
        return " or ".join(dict.fromkeys(parts))
    if origin is list:
        if models := _models(annotation):
            return f"a list of {listing([_tag(model) for model in models])}"
        member = _describe(get_args(annotation)[0], [])
        if any(getattr(m, "min_length", None) for m in metadata):
            return f"a list of at least one of {member.replace('a whole number', 'whole numbers')}"
        return f"a list of {member.replace('a whole number', 'whole numbers')}"
    if annotation is type(None) or annotation is None:
        return "null"
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        return ("a whole number" if annotation is int else "a number") + _range(metadata)
    if annotation is str:
        pattern = next((m.pattern for m in metadata if getattr(m, "pattern", None)), None)
        return f"text matching {pattern}" if pattern else "text"
    return "a mapping"


def _range(metadata: list[Any]) -> str:
    low = high = ""
    for item in metadata:
        if isinstance(item, annotated_types.Ge):
            low = f" from {item.ge}"
        elif isinstance(item, annotated_types.Gt):
            low = f" above {item.gt}"
        elif isinstance(item, annotated_types.Le):
            high = f" to {item.le}" if low.startswith(" from") else f" up to {item.le}"
        elif isinstance(item, annotated_types.Lt):
            high = f" below {item.lt}" if not low else f" and below {item.lt}"
    return low + high
