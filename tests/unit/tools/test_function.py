"""Tools from plain functions."""

import asyncio
import datetime
import enum
import subprocess
import sys
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from meshhost.errors import InvalidRequestError, ToolError
from meshhost.protocol.messages import EmptyResponse, JsonResponse, LinkResponse, TextResponse
from meshhost.tools import CallableTool, ToolContext, Toolkit, tool, toolkit_of, tools_of
from meshhost.tools.schema import is_strict

CONTEXT = ToolContext(room=SimpleNamespace(), caller="ann")


class Unit(enum.Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


class Place(BaseModel):
    """A place on earth."""

    city: str
    title: str = ""


@tool
async def forecast(place: Place, day: datetime.date, unit: Unit = Unit.CELSIUS) -> dict[str, Any]:
    """Says what the weather will be.

    Only for the next week.

    Args:
        place: where it is,
            as exactly as you know
        day: the day of the
            weather
    """
    return {"city": place.city, "day": day, "unit": unit}


@tool
def count_words(text: str) -> int:
    """Counts the words of a text"""
    return len(text.split())


async def called(made: Any, **arguments: Any) -> Any:
    return await Toolkit(name="kit", tools=[made]).execute(context=CONTEXT, name=made.name, arguments=arguments)


def test_the_schema_is_the_signature_and_the_texts_are_the_docstrings() -> None:
    assert (forecast.name, forecast.description) == (
        "forecast",
        "Says what the weather will be.\n\nOnly for the next week.",
    )
    schema = forecast.input_schema
    assert schema["required"] == ["place", "day"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["day"] == {"description": "the day of the weather", "format": "date", "type": "string"}
    assert schema["properties"]["place"]["description"] == "where it is, as exactly as you know"
    # `title` is a member of Place, and no title that pydantic made.
    assert set(schema["$defs"]["Place"]["properties"]) == {"city", "title"}
    assert "title" not in schema["properties"]["day"]


def test_a_schema_without_defaults_is_strict() -> None:
    assert is_strict(count_words.input_schema)


@pytest.mark.parametrize(
    "docstring",
    [
        "Adds.\n\n:param a: the first\n:param b: the second",
        "Adds.\n\nParameters\n----------\na : int\n    the first\nb : int\n    the second",
        "Adds.\n\nArgs:\n    a (int): the first\n    b: the second",
    ],
)
def test_docstrings_of_each_style_are_read(docstring: str) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    add.__doc__ = docstring
    made = tool(add)
    assert made.description == "Adds."
    assert [each["description"] for each in made.input_schema["properties"].values()] == ["the first", "the second"]


def test_an_annotation_may_describe_and_bound_an_argument() -> None:
    @tool(name="pick", title="Pick", description="Picks", rules=["be quick"])
    def chosen(n: Annotated[int, Field(description="how many", ge=1)], kind: Literal["a", "b"] = "a") -> None:
        """Not this.

        Args:
            n: not this
        """

    assert (chosen.name, chosen.title, chosen.description, chosen.rules) == ("pick", "Pick", "Picks", ["be quick"])
    assert chosen.input_schema["properties"]["n"] == {"description": "how many", "minimum": 1, "type": "integer"}
    assert chosen.input_schema["properties"]["kind"]["enum"] == ["a", "b"]


async def test_the_function_gets_the_types_that_it_declares() -> None:
    response = await called(forecast, place={"city": "Bern"}, day="2026-12-01", unit="F")
    assert response == JsonResponse(json={"city": "Bern", "day": "2026-12-01", "unit": "F"})


async def test_a_default_is_the_functions_own() -> None:
    assert (await called(forecast, place={"city": "Bern"}, day="2026-12-01")).json["unit"] == "C"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"place": {"city": "Bern"}}, "day"),
        ({"place": {"city": 3}, "day": "2026-12-01"}, "place.city"),
        ({"place": {"city": "Bern"}, "day": "tomorrow"}, "day"),
        ({"place": {"city": "Bern"}, "day": "2026-12-01", "more": 1}, "more"),
        ({"place": {"city": "Bern"}, "day": "2026-12-01", "unit": "K"}, "unit"),
    ],
)
async def test_an_argument_that_does_not_fit_is_named(arguments: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=field):
        await called(forecast, **arguments)


async def test_a_plain_function_runs_in_a_thread_and_an_async_one_in_the_loop() -> None:
    @tool
    def sync() -> str:
        return threading.current_thread().name

    @tool
    async def in_loop() -> str:
        return threading.current_thread().name

    main = threading.current_thread().name
    assert (await called(sync)).text != main
    assert (await called(in_loop)).text == main


async def test_an_async_function_is_cancelled_with_its_call() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(called(slow))
        await begun.wait()
        task.cancel()
    assert ended.is_set()


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("result", "response"),
    [
        (None, EmptyResponse()),
        ("a", TextResponse(text="a")),
        ({"a": 1}, JsonResponse(json={"a": 1})),
        (Place(city="Bern"), JsonResponse(json={"city": "Bern", "title": ""})),
        (Point(1), JsonResponse(json={"x": 1})),
        ([1, "ü"], TextResponse(text='[1, "ü"]')),
        (3, TextResponse(text="3")),
        (LinkResponse(name="a", url="b"), LinkResponse(name="a", url="b")),
    ],
)
async def test_what_is_returned_becomes_a_response(result: Any, response: Any) -> None:
    @tool
    def give() -> Any:
        return result

    assert await called(give) == response


async def test_what_json_has_no_form_for_is_an_error() -> None:
    @tool
    def give() -> Any:
        return object()

    with pytest.raises(ToolError, match="object"):
        await called(give)


@pytest.mark.parametrize("annotation", [ToolContext, ToolContext | None, Annotated[ToolContext, "the call"]])
async def test_the_context_is_given_and_is_no_argument(annotation: Any) -> None:
    def who(ctx, text):  # type: ignore[no-untyped-def]
        return f"{ctx.caller}: {text}"

    who.__annotations__ = {"ctx": annotation, "text": str}
    made = tool(who)
    assert list(made.input_schema["properties"]) == ["text"]
    assert (await called(made, text="hi")).text == "ann: hi"


async def test_an_attachment_is_given_to_who_takes_one() -> None:
    @tool
    def size(name: str, attachment: bytes) -> str:
        return f"{name} {len(attachment)}"

    kit = Toolkit(name="kit", tools=[size, count_words])
    assert list(size.input_schema["properties"]) == ["name"]
    response = await kit.execute(context=CONTEXT, name="size", arguments={"name": "a"}, attachment=b"12")
    assert response == TextResponse(text="a 2")
    with pytest.raises(InvalidRequestError, match="attachment"):
        await kit.execute(context=CONTEXT, name="count_words", arguments={"text": "a"}, attachment=b"12")


def test_the_function_can_still_be_called() -> None:
    assert count_words("a b c") == 3
    assert count_words.__doc__ == "Counts the words of a text"


SIGNATURES = {
    "**options: str": r"\*\*options.*by its name",
    "*texts: str": r"\*texts.*by its name",
    "text: str, /": "'text'.*positional only",
    "text": "'text' of tool 'made' has no type: write text: str",
    "context": "write context: ToolContext",
    "context: str": "'context'.*is for the ToolContext",
    "_x: int": "'_x'.*no _ in front",
    "größe: int": "'größe'.*ASCII",
    "where: threading.Lock": "'where' of tool 'made' has a type",
    "then: 'Nothing'": "Nothing",
}


@pytest.mark.parametrize(("signature", "text"), SIGNATURES.items())
def test_an_argument_that_a_model_cannot_be_told_of_is_named(signature: str, text: str) -> None:
    space: dict[str, Any] = {"threading": threading}
    exec(f"def made({signature}): ...", space)
    with pytest.raises(InvalidRequestError, match=text):
        tool(space["made"])


@pytest.mark.parametrize("name", ["", "with space", "dots.in.it", "x" * 65, "größe"])
def test_a_name_that_a_model_cannot_call_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="name"):
        tool(name=name)(lambda: None)


def test_only_functions_become_tools() -> None:
    async def stream() -> Any:
        yield 1

    for wrong, text in (
        (Place, "expected a function"),
        (3, "expected a function"),
        (stream, "generator"),
        (lambda: 0, "name"),
    ):
        with pytest.raises(InvalidRequestError, match=text):
            tool(wrong)  # type: ignore[call-overload]


def test_a_description_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="1024 characters, not 1025"):
        tool(name="a", description="x" * 1025)(lambda: None)


class WordTools:
    """Works on texts."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    @tool
    async def shout(self, text: str) -> str:
        """Says it loudly"""
        return text.upper() + self.mark

    @tool
    def count(self, text: str) -> int:
        return len(text.split())

    @staticmethod
    @tool
    def version() -> str:
        return "1"

    @property
    def broken(self) -> str:
        raise RuntimeError("read by nobody")

    def helper(self) -> None: ...


async def test_methods_become_a_toolkit_bound_to_their_object() -> None:
    kits = [toolkit_of(WordTools(mark)) for mark in "!?"]
    assert (kits[0].name, kits[0].description) == ("word-tools", "Works on texts.")
    assert [each.name for each in kits[0].tools] == ["shout", "count", "version"]
    assert list(kits[0].tools[0].input_schema["properties"]) == ["text"]  # type: ignore[attr-defined]
    said = [await kit.execute(context=CONTEXT, name="shout", arguments={"text": "a"}) for kit in kits]
    assert [each.text for each in said] == ["A!", "A?"]  # type: ignore[union-attr]
    assert (await kits[0].execute(context=CONTEXT, name="count", arguments={"text": "a b"})) == TextResponse(text="2")
    assert WordTools("!").count("a b") == 2


async def test_a_subclass_has_its_own_and_may_override() -> None:
    class More(WordTools):
        @tool
        def count(self, text: str) -> int:
            return 7

        @tool
        def last(self) -> str:
            return "z"

    assert [each.name for each in tools_of(More("!"))] == ["shout", "count", "version", "last"]
    assert (await called(More("!").count, text="")) == TextResponse(text="7")
    assert toolkit_of(More("!"), name="mine", rules=["r"]).name == "mine"


async def test_a_method_without_its_object_is_refused_when_called() -> None:
    assert isinstance(WordTools.shout, CallableTool)
    with pytest.raises(ToolError, match="toolkit_of"):
        await called(WordTools.shout, text="a")


def test_an_object_without_tools_is_no_toolkit() -> None:
    with pytest.raises(InvalidRequestError, match="SimpleNamespace has no method"):
        toolkit_of(SimpleNamespace())


def test_programs_without_such_tools_do_not_load_pydantic() -> None:
    code = "import sys, meshhost.tools; assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
