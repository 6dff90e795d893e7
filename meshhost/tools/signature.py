"""Reads the signature of a function that becomes a tool: its schema, what it needs, and how a call's arguments are handed over.

`plan_of` is called when a function is decorated (`function.py`) and finds everything that a model would not accept, with the
name of the argument. Pydantic makes the schema from the annotations and checks each call against the same types. It is imported
here only, so that programs without such tools do without it.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import SchemaError, to_jsonable_python

from meshhost.errors import InvalidRequestError, ToolError
from meshhost.tools.schema import Schema
from meshhost.tools.tool import ToolContext
from meshhost.validation import first_problem

__all__ = ["Plan", "as_json", "plan_of"]

# What the APIs of models accept of an argument: Anthropic's rule, which is the strictest.
_ARGUMENT = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_ATTACHMENT = "attachment"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a function is called: `model` checks the arguments, `context` is the name of the argument for the context."""

    model: type[BaseModel]
    schema: Schema
    description: str
    context: str | None
    takes_attachment: bool
    is_method: bool

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check arguments and return them as the types that the function declares."""
        attached = {}
        if _ATTACHMENT in arguments and _ATTACHMENT not in self.model.model_fields:
            if not self.takes_attachment:
                raise InvalidRequestError(_ATTACHMENT, "the tool takes none")
            attached = {_ATTACHMENT: arguments[_ATTACHMENT]}
        try:
            read = self.model.model_validate({name: arguments[name] for name in arguments if name not in attached})
        except ValidationError as error:
            raise InvalidRequestError(*first_problem(error)) from None
        # Only what was given: the function has its own defaults.
        return {name: getattr(read, name) for name in read.model_fields_set} | attached


def plan_of(name: str, function: Callable[..., Any]) -> Plan:
    """Return how the function is called as the tool `name`. Raises InvalidRequestError that names what a model would not
    accept."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InvalidRequestError(
            "function", f"tool {name!r} has an annotation with an unknown name: {error}"
        ) from None
    parameters = list(inspect.signature(function).parameters.values())
    is_method = bool(parameters) and parameters[0].name == "self" and not inspect.ismethod(function)
    documented = docstring_parser.parse(inspect.getdoc(function) or "")
    texts = {each.arg_name: each.description or "" for each in documented.params}
    fields: dict[str, Any] = {}
    context: str | None = None
    takes_attachment = False
    for parameter in parameters[1:] if is_method else parameters:
        annotation = _annotation(name, parameter, hints)
        if _is_context(annotation):
            context = parameter.name
        elif parameter.name == _ATTACHMENT and annotation is bytes:
            takes_attachment = True
        else:
            fields[parameter.name] = _field(parameter, annotation, texts.get(parameter.name))
    model, schema = _model(name, fields)
    about = "\n\n".join(filter(None, (documented.short_description, documented.long_description)))
    return Plan(model, schema, about, context, takes_attachment, is_method)


def _annotation(name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    where = f"argument {parameter.name!r} of tool {name!r}"
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else "*"
        raise InvalidRequestError(
            f"{stars}{parameter.name}", f"{where}: a model has to be told each argument by its name"
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise InvalidRequestError(parameter.name, f"{where} is positional only: arguments are passed by name")
    if parameter.name not in hints:
        hint = ": ToolContext" if parameter.name == "context" else ": str"
        raise InvalidRequestError(parameter.name, f"{where} has no type: write {parameter.name}{hint}")
    annotation = hints[parameter.name]
    if _ARGUMENT.fullmatch(parameter.name) is None or parameter.name.startswith("_"):
        raise InvalidRequestError(
            parameter.name, f"{where}: expected up to 64 ASCII letters, digits and _, no _ in front"
        )
    if parameter.name == "context" and not _is_context(annotation):
        raise InvalidRequestError(parameter.name, f"{where}: this name is for the ToolContext")
    return annotation


def _is_context(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    candidates = [annotation, *get_args(annotation)]
    return any(isinstance(each, type) and issubclass(each, ToolContext) for each in candidates)


def _field(parameter: inspect.Parameter, annotation: Any, text: str | None) -> tuple[Any, Any]:
    """The field of an argument; a description in its annotation or default wins over the docstring's."""
    default = ... if parameter.default is parameter.empty else parameter.default
    if isinstance(default, FieldInfo) or not text or _is_described(annotation):
        return annotation, default
    return Annotated[annotation, Field(description=" ".join(text.split()))], default


def _is_described(annotation: Any) -> bool:
    notes = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return any(isinstance(note, FieldInfo) and note.description for note in notes)


def _model(name: str, fields: dict[str, Any]) -> tuple[type[BaseModel], Schema]:
    for argument, field in fields.items():
        _build(name, {argument: field}, f"argument {argument!r}")
    return _build(name, fields, "the arguments")


def _build(name: str, fields: dict[str, Any], what: str) -> tuple[type[BaseModel], Schema]:
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False, protected_namespaces=())
    try:
        model = create_model(f"{name}_arguments", __config__=config, **fields)
        schema = model.model_json_schema()
    except (
        PydanticUserError,
        PydanticInvalidForJsonSchema,
        SchemaError,
        NameError,
        TypeError,
        RecursionError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise InvalidRequestError(
            "function", f"{what} of tool {name!r} has a type that JSON has no form for: {reason}"
        ) from error
    return model, _without_titles(schema)


def _without_titles(schema: Any) -> Any:
    """Leave out the titles that pydantic makes of names: they cost tokens and say nothing."""
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    named = ("properties", "$defs")
    return {
        key: {name: _without_titles(each) for name, each in value.items()}
        if key in named and isinstance(value, dict)
        else value
        if key in ("default", "enum", "const", "examples")
        else _without_titles(value)
        for key, value in found.items()
    }


def as_json(result: Any) -> Any:
    """Return what a function returned as a JSON value. Raises ToolError for what JSON has no form for."""
    try:
        return to_jsonable_python(result)
    except ValueError as error:
        raise ToolError(f"the tool returned what JSON has no form for: {type(result).__name__}") from error
