"""The JSON Schema of a specification, for editors: made from the classes that check it.

It says what a key may hold, not what keys may hold together: `foldgrid plan` checks that too.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from features.spec import FeatureSpec
from models.spec import ModelSpec
from orchestrator.document import SECTIONS
from orchestrator.hyperparameters import TrainSpec
from orchestrator.specification import FORMAT_VERSION, Settings
from orchestrator.validation import SPACE_SECTIONS

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/"

_SHORT_FORMS: dict[str, Schema] = {
    "ResourcesSpec.gpu": {"type": "string", "pattern": r"^\s*1\s*/\s*[1-9][0-9]{0,3}\s*$"},
    "TrainSpec.schedule": {"enum": ["cosine", "one_cycle", "plateau"]},
    "AugmentSpec.spec_augment": {"type": "boolean"},
    "Settings.trackers": {"enum": ["tensorboard", "mlflow", "wandb"]},
}
"""What a validator takes for a key before its type is looked at, by class and field."""


def json_schema() -> Schema:
    """The JSON Schema (2020-12) of a specification as it is written, search spaces included."""
    sections = {
        "features": TypeAdapter(FeatureSpec),
        "model": TypeAdapter(ModelSpec),
        "train": TypeAdapter(TrainSpec),
        "": TypeAdapter(Settings),
    }
    inputs = [(name, "validation", adapter) for name, adapter in sections.items()]
    found, defined = TypeAdapter.json_schemas(inputs, schema_generator=_Generator)  # type: ignore[arg-type]
    schemas = {name: schema for (name, _), schema in found.items()}
    spaces = _Spaces(defined["$defs"])
    settings = spaces.defs.pop("Settings")
    properties = {"format_version": {"const": FORMAT_VERSION}} | settings["properties"]
    properties |= {name: spaces.section(name, schemas[name]) for name in SPACE_SECTIONS}
    return {
        "$schema": _DIALECT,
        "title": "foldgrid specification",
        "type": "object",
        "additionalProperties": False,
        "required": ["data", "features", "model"],
        "properties": {name: properties[name] for name in SECTIONS},
        "$defs": dict(sorted(spaces.defs.items())),
    }


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, with each field's description from the docstring of its class."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        """The schema of a class."""
        cls = schema["cls"]
        made = super().model_schema(schema)
        made.pop("title", None)
        summary, descriptions = _documentation(cls)
        made["description"] = summary
        for name, field in cls.model_fields.items():
            value = made["properties"][field.alias or name]
            value.pop("title", None)
            if name in descriptions:
                value["description"] = descriptions[name]
            if (short := _SHORT_FORMS.get(f"{cls.__name__}.{name}")) is not None:
                _add(short, value)
        return made


def _documentation(cls: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """The first paragraphs of a class's docstring, and what it and its bases say of each field."""
    descriptions: dict[str, str] = {}
    summary = ""
    for base in reversed(cls.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        summary, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE):
            descriptions[name] = " ".join(text.split())
    return " ".join(summary.split()), descriptions


class _Spaces:
    """Lets a search space stand for every value of a section."""

    def __init__(self, defs: dict[str, Schema]) -> None:
        self.defs = defs
        self._opened: set[str] = set()

    def section(self, name: str, schema: Schema) -> Schema:
        """A section, which may be a space as a whole."""
        return self._spaced(schema, name)

    def _spaced(self, schema: Schema, name: str) -> Schema:
        """The value or a space of such values, which may hold spaces again.

        Args:
            schema: of the value.
            name: of the definition that is made for it.
        """
        about = {key: schema[key] for key in ("description", "default") if key in schema}
        plain = self._open({k: v for k, v in schema.items() if k not in about}, name)
        reference = {"$ref": f"{_REF}{name}"}
        listed = {"type": "array", "minItems": 1, "items": reference}
        words: Schema = {"grid": listed | {"uniqueItems": True}, "choice": listed}
        kinds = _kinds(schema)
        if kinds & {"integer", "number"}:
            words["randint"] = _bounds({"type": "integer"})
        if "number" in kinds:
            words["uniform"] = _bounds({"type": "number"})
            words["loguniform"] = _bounds({"type": "number", "exclusiveMinimum": 0})
        space = {
            "type": "object",
            "description": "A search space.",
            "properties": words,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        self.defs[name] = {"anyOf": [plain, space]}
        return reference | about

    def _open(self, schema: Schema, name: str) -> Schema:
        """The schema with spaces wherever a value stands within it."""
        if "$ref" in schema:
            self._open_class(schema["$ref"].removeprefix(_REF))
            return schema
        options = [s for word in ("oneOf", "anyOf") for s in schema.get(word, [])]
        classes = [option for option in options if "$ref" in option]
        if len(classes) > 1:
            others = [self._open(option, name) for option in options if option not in classes]
            tagged = self._tagged([c["$ref"].removeprefix(_REF) for c in classes], name)
            return {"anyOf": [*others, tagged]} if others else tagged
        if options:
            return {"anyOf": [self._open(option, name) for option in options]}
        if "items" in schema:
            schema["items"] = self._spaced(schema["items"], f"{name}.items")
        return schema

    def _open_class(self, name: str, keep: str = "") -> None:
        if name in self._opened:
            return
        self._opened.add(name)
        properties = self.defs[name]["properties"]
        for key in properties.keys() - {keep}:
            properties[key] = self._spaced(properties[key], f"{name}.{key}")

    def _tagged(self, names: list[str], place: str) -> Schema:
        """A mapping of one of several classes, told apart by a key of theirs.

        Where a space stands for that key, each other one need only be of any class.
        """
        tag = "kind" if "kind" in self.defs[names[0]]["properties"] else "name"
        tags = [self.defs[name]["properties"][tag] for name in names]
        tags = [{k: v for k, v in t.items() if k in ("const", "pattern", "type")} for t in tags]
        for name in names:
            self._open_class(name, keep=tag)
        fields: Schema = {}
        for name in names:
            for key, value in self.defs[name]["properties"].items():
                # What it may hold is checked below; here it is for the editor to offer.
                fields.setdefault(key, {k: v for k, v in value.items() if k == "description"})
        fields[tag] = self._spaced({"anyOf": tags}, f"{place}.{tag}")
        chain: Schema = {}
        for name, value in reversed(list(zip(names, tags, strict=True))):
            chosen = {"$ref": f"{_REF}{name}"}
            chain = {"if": {"properties": {tag: value}}, "then": chosen, "else": chain}
        # Only an optimizer has a class of its own where none is named: the first one.
        required = {} if place.endswith(".optimizer") else {"required": [tag]}
        mapping = {"type": "object", "properties": fields, "additionalProperties": False}
        whole: Schema = mapping | required | chain
        return whole


def _add(short: Schema, schema: Schema) -> None:
    """Allow a value, or the members of a list, to be written in short."""
    if "items" in schema:
        schema["items"] = {"anyOf": [short, schema["items"]]}
    else:
        schema["anyOf"] = [short, *schema["anyOf"]]


def _kinds(schema: Schema) -> set[str]:
    """The JSON types that a value may have."""
    options = [s for word in ("oneOf", "anyOf") for s in schema.get(word, [])]
    return {str(schema.get("type"))}.union(*map(_kinds, options))


def _bounds(number: Schema) -> Schema:
    return {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
