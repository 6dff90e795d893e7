import asyncio
import threading
from types import SimpleNamespace

import pytest
from jsonschema import Draft202012Validator

from meshhost.errors import InvalidRequestError, NotFoundError, RoomError, ToolError
from meshhost.guard import EscapedError
from meshhost.protocol.messages import EmptyResponse, JsonResponse, TextResponse
from meshhost.tools import BaseTool, Tool, ToolContext, Toolkit

SCHEMA = {"type": "object", "properties": {"text": {"$ref": "#/$defs/text"}}, "required": ["text"]}


class Echo(Tool):
    def __init__(self, answer=str, **options):
        options = {"name": "echo", "input_schema": SCHEMA, "defs": {"text": {"type": "string"}}} | options
        super().__init__(**options)
        self.answer = answer

    async def execute(self, *, context, text, **extra):
        self.context, self.extra = context, extra
        return self.answer(text)


class Plain(Tool):
    async def execute(self, *, context, text):
        return text


@pytest.fixture
def context():
    return ToolContext(room=SimpleNamespace(), caller="ada", on_behalf_of="bob", caller_context={"chat": []})


async def run(context, tool, **arguments):
    return await Toolkit(name="kit", tools=[tool]).execute(context=context, name=tool.name, arguments=arguments)


@pytest.mark.parametrize(
    ("value", "response"),
    [("a", TextResponse("a")), ({"a": 1}, JsonResponse({"a": 1})), (None, EmptyResponse())],
)
async def test_what_a_tool_returns_becomes_a_response(context, value, response):
    assert await run(context, Echo(lambda _: value), text="x") == response


async def test_a_tool_that_returns_something_odd_is_told(context):
    with pytest.raises(RoomError, match="must return"):
        await run(context, Echo(lambda _: 1), text="x")


async def test_arguments_are_checked_against_schema_and_defs(context):
    with pytest.raises(InvalidRequestError, match="text: expected string"):
        await run(context, Echo(), text=1)
    with pytest.raises(InvalidRequestError, match="text: is required"):
        await run(context, Echo())


async def test_a_schema_is_compiled_once_and_again_when_it_is_replaced(context, monkeypatch):
    checked = []
    check_schema = Draft202012Validator.check_schema
    monkeypatch.setattr(Draft202012Validator, "check_schema", lambda schema: (checked.append(1), check_schema(schema)))
    tool = Echo()
    for text in ("a", "b"):
        await run(context, tool, text=text)
    assert len(checked) == 1

    tool.defs = {"text": {"type": "integer"}}
    with pytest.raises(InvalidRequestError, match="text: expected integer"):
        await run(context, tool, text="a")
    assert await run(context, tool, text=1) == TextResponse("1")
    assert len(checked) == 2

    tool.input_schema = {"type": "object", "required": ["size"]}
    with pytest.raises(InvalidRequestError, match="size: is required"):
        await run(context, tool, text=1)
    assert len(checked) == 3


async def test_a_wrong_schema_is_reported_at_every_call(context):
    tool = Echo(input_schema={"type": "nonsense"}, defs=None)
    for _ in range(2):
        with pytest.raises(ToolError, match="schema is wrong at type"):
            await run(context, tool, text="a")


async def test_the_context_cannot_be_an_argument(context):
    with pytest.raises(InvalidRequestError, match="reserved"):
        await Toolkit(name="kit", tools=[Echo()]).execute(
            context=context, name="echo", arguments={"text": "a", "context": "b"}
        )


async def test_the_tool_is_told_the_circumstances(context):
    tool = Echo()
    await run(context, tool, text="a")
    assert tool.context is context
    assert (context.caller, context.on_behalf_of, context.caller_context) == ("ada", "bob", {"chat": []})
    assert context.room is not None


async def test_an_unknown_tool_is_not_found(context):
    with pytest.raises(NotFoundError, match="no tool 'b'"):
        await Toolkit(name="kit", tools=[]).execute(context=context, name="b", arguments={})


async def test_a_tool_without_arguments_cannot_be_called(context):
    with pytest.raises(ToolError):
        await run(context, BaseTool(name="builtin"))


async def test_an_attachment_reaches_a_tool_that_takes_one(context):
    tool = Echo()
    kit = Toolkit(name="kit", tools=[tool, Plain(name="plain", input_schema={"type": "object"})])
    await kit.execute(context=context, name="echo", arguments={"text": "a"}, attachment=b"x")
    assert tool.extra == {"attachment": b"x"}
    with pytest.raises(InvalidRequestError, match="attachment"):
        await kit.execute(context=context, name="plain", arguments={"text": "a"}, attachment=b"x")


def test_titles_and_descriptions_have_defaults():
    kit = Toolkit(name="kit", tools=[Echo()], rules=["be kind"])
    assert (kit.title, kit.description, kit.rules) == ("kit", "", ["be kind"])
    tool = kit.get_tool("echo")
    assert (tool.title, tool.description, tool.rules, tool.supports_context) == ("echo", "", [], False)
    assert "echo" in repr(kit)
    assert "echo" in repr(tool)


def test_a_tool_needs_a_name():
    with pytest.raises(InvalidRequestError):
        BaseTool(name="")


@pytest.mark.parametrize("error", [SystemExit(2), BaseException("a panic"), asyncio.CancelledError()])
async def test_what_is_no_exception_becomes_one(error: BaseException) -> None:
    class Exits(Tool):
        async def execute(self, *, context: ToolContext) -> None:
            raise error

    toolkit = Toolkit(name="kit", tools=[Exits(name="exits", input_schema={"type": "object"})])
    with pytest.raises(EscapedError) as caught:
        await toolkit.execute(context=ToolContext(room=None, caller=None), name="exits", arguments={})  # type: ignore[arg-type]
    assert caught.value.__cause__ is error


async def test_a_plain_tool_runs_in_a_thread() -> None:
    class Plain(Tool):
        def execute(self, *, context: ToolContext, n: int) -> str:  # type: ignore[override]
            return f"{n} in {threading.current_thread() is threading.main_thread()}"

    toolkit = Toolkit(name="kit", tools=[Plain(name="plain", input_schema={"type": "object"})])
    context = ToolContext(room=None, caller=None)  # type: ignore[arg-type]
    assert await toolkit.execute(context=context, name="plain", arguments={"n": 1}) == TextResponse(text="1 in False")
