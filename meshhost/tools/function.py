"""Tools from plain functions: `@tool` on a typed function, and `toolkit_of` for the methods of an object.

The signature is the schema: pydantic makes it from the annotations, checks the arguments of a call against it, and hands the
function what it declares (a date, an enum, a model of its own). The docstring is what a model reads, its section on arguments
included. What a model would not accept is an error when the function is decorated, long before a model sees it, and the error
names the argument.

A plain `def` runs in a thread, an `async def` in the event loop. An argument annotated with ToolContext gets the context of the
call and is no part of the schema. The decorated function can still be called as it is, for instance in a test.
"""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, overload

from meshhost.errors import InvalidRequestError, ToolError
from meshhost.guard import call
from meshhost.protocol.messages import JsonResponse, Response, ensure_response
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = ["CallableTool", "tool", "toolkit_of", "tools_of"]

# What the APIs of models accept.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST_DESCRIPTION = 1024


class CallableTool(Tool):
    """A tool that calls a function. Made by `@tool`; in a class body it is bound like a method when it is read from an object.

    Raises InvalidRequestError that names what a model would not accept.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        rules: list[str] | None = None,
    ) -> None:
        # Here, so that a program without such tools does not load pydantic.
        from meshhost.tools.signature import plan_of

        given = _name_of(function, name)
        self._plan = plan_of(given, function)
        documented = self._plan.description if description is None else description
        if len(documented) > _MOST_DESCRIPTION:
            raise InvalidRequestError(
                "description", f"tool {given!r}: at most {_MOST_DESCRIPTION} characters, not {len(documented)}"
            )
        super().__init__(name=given, title=title, description=documented, rules=rules, input_schema=self._plan.schema)
        self._function = function
        self._is_bound = not self._plan.is_method
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> "CallableTool":
        """Return the tool bound to `instance`, as a method is."""
        if instance is None or self._is_bound:
            return self
        bound = CallableTool.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound._function = self._function.__get__(instance, owner)  # noqa: SLF001 - our own twin
        bound._is_bound = True  # noqa: SLF001
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, unchecked."""
        return self._function(*args, **kwargs)

    async def execute(self, context: ToolContext, **arguments: Any) -> Response:
        """Call the function with checked arguments. Raises InvalidRequestError that names one that does not fit."""
        if not self._is_bound:
            raise ToolError(f"tool {self.name!r} is a method: read it from an object, or use toolkit_of(object)")
        values = self._plan.values(arguments)
        if self._plan.context is not None:
            values[self._plan.context] = context
        return _response(await call(self._function, **values))


@overload
def tool(function: Callable[..., Any], /) -> CallableTool: ...


@overload
def tool(
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    rules: list[str] | None = None,
) -> Callable[[Callable[..., Any]], CallableTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    rules: list[str] | None = None,
) -> CallableTool | Callable[[Callable[..., Any]], CallableTool]:
    """Make a tool of a typed function: `@tool`, or `@tool(name=…, description=…)`.

    The name is the function's unless one is given, the description its docstring's. Raises InvalidRequestError for a function
    whose name, arguments or types no model accepts.
    """

    def decorate(found: Callable[..., Any]) -> CallableTool:
        return CallableTool(found, name=name, title=title, description=description, rules=rules)

    return decorate if function is None else decorate(function)


def tools_of(owner: object) -> list[CallableTool]:
    """Return the tools among the attributes of an object, bound to it, in the order of their definition."""
    names = [name for kind in reversed(type(owner).__mro__) for name in vars(kind)]
    return [
        getattr(owner, name) for name in dict.fromkeys(names) if _is_tool(inspect.getattr_static(owner, name, None))
    ]


def toolkit_of(
    owner: object,
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    rules: Sequence[str] = (),
) -> Toolkit:
    """Return a toolkit of the methods of `owner` that are tools. Its name is the class's in lower case, unless one is given.

    Raises InvalidRequestError when there are none.
    """
    kind = type(owner).__name__
    tools = tools_of(owner)
    if not tools:
        raise InvalidRequestError("owner", f"{kind} has no method with @tool")
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", kind).lower()
    documented = inspect.getdoc(type(owner)) if "__doc__" in vars(type(owner)) else None
    return Toolkit(
        name=name or words, tools=tools, title=title, description=description or documented or "", rules=rules
    )


def _is_tool(attribute: object) -> bool:
    # Looked at without reading it from the object: a property would run the program's code.
    return isinstance(attribute.__func__ if isinstance(attribute, staticmethod) else attribute, CallableTool)


def _name_of(function: Any, given: str | None) -> str:
    if isinstance(function, type) or not callable(function):
        raise InvalidRequestError("function", f"expected a function, got {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidRequestError("function", f"{function.__qualname__} is a generator: return its values as a list")
    name = given if given is not None else getattr(function, "__name__", "")
    if _NAME.fullmatch(name) is None:
        raise InvalidRequestError("name", f"tool {name[:80]!r}: expected 1 to 64 letters, digits, _ or -; pass name=…")
    return name


def _response(result: Any) -> Response:
    """What a function returned, as a response: texts and responses as they are, anything else as JSON."""
    if result is None or isinstance(result, str | Response):
        return ensure_response(result)
    # Pydantic was loaded when the function was decorated.
    from meshhost.tools.signature import as_json

    value = as_json(result)
    return (
        JsonResponse(json=value) if isinstance(value, dict) else ensure_response(json.dumps(value, ensure_ascii=False))
    )
