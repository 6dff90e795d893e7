import asyncio
import base64
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import SettingsError
from meshhost.openai import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter
from meshhost.openai.proxy import get_client
from meshhost.openai.tools.tool_bundle import ToolBundle
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    RawOutputs,
    TextResponse,
)
from meshhost.tools import BaseTool, Tool, ToolContext, Toolkit


class Named(Tool):
    def __init__(self, name):
        super().__init__(name=name, input_schema={"type": "object"}, title="The title", defs={"a": {"type": "null"}})

    async def execute(self, *, context):
        return self.name


@given(st.lists(st.tuples(st.text(max_size=70), st.lists(st.text(min_size=1, max_size=70), max_size=4)), max_size=4))
def test_names_are_valid_and_unique_whatever_tools_are_called(kits):
    bundle = ToolBundle([Toolkit(name=kit, tools=[Named(name) for name in names]) for kit, names in kits])
    assert len(bundle.names) == sum(len(names) for _, names in kits)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in bundle.names)


async def test_tools_of_the_same_name_are_told_apart():
    one, two = (Toolkit(name=name, tools=[Named("read it")]) for name in ("one", "two"))
    bundle = ToolBundle([one, two, two, Toolkit(name="x", tools=[BaseTool(name="builtin")])])
    assert bundle.names == ["read_it", "two_read_it", "two_read_it_2"]
    answer = await bundle.execute(context=ToolContext(room=None, caller=None), name="two_read_it", arguments="{}")
    assert answer == TextResponse("read it")
    assert "two_read_it" in repr(bundle)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), ValueError("odd")])
async def test_what_an_override_of_a_toolkit_raises_fails_that_call_only(error):
    class Wrapping(Toolkit):
        async def execute(self, **_):
            raise error

    bundle = ToolBundle([Wrapping(name="k", tools=[Named("a")])])
    answer = await bundle.execute(context=ToolContext(room=None, caller=None), name="a", arguments="{}")
    assert isinstance(answer, ErrorResponse)


def test_a_definition_holds_defs_and_some_description():
    (definition,) = ToolBundle([Toolkit(name="k", tools=[Named("a")])]).to_json()
    assert definition["parameters"] == {"type": "object", "$defs": {"a": {"type": "null"}}}
    assert definition["description"] == "The title"


def file(data, mime_type):
    return FileResponse(data=data, name="f", mime_type=mime_type)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (TextResponse("a"), "a"),
        (JsonResponse({"ä": 1}), '{"ä": 1}'),
        (LinkResponse(name="n", url="u"), '{"name": "n", "url": "u"}'),
        (EmptyResponse(), "done"),
        (ErrorResponse("bad"), "error: bad"),
        (RawOutputs([1]), "[1]"),
        (file(b"abc", "text/plain"), "abc"),
        (file(b"{}", "application/json"), "{}"),
        (file(b"\xff", "text/plain"), "file f (text/plain, 1 bytes)"),
        (file(b"abc", "application/pdf"), "file f (application/pdf, 3 bytes)"),
        (file(b"a" * 300_000, "text/plain"), "file f (text/plain, 300000 bytes)"),
    ],
)
async def test_every_response_has_a_text(response, text):
    adapter = OpenAIResponsesToolResponseAdapter()
    assert await adapter.to_plain_text(room=None, response=response) == text


async def messages(response):
    call = SimpleNamespace(call_id="call_1")
    return await OpenAIResponsesToolResponseAdapter().create_messages(
        context=None, tool_call=call, room=None, response=response
    )


async def test_a_picture_is_shown_as_a_picture():
    (message,) = await messages(file(b"png", "image/png"))
    assert message["call_id"] == "call_1"
    assert message["output"][0]["image_url"] == f"data:image/png;base64,{base64.b64encode(b'png').decode()}"
    (message,) = await messages(file(b"x" * (8 * 1024 * 1024 + 1), "image/png"))
    assert message["output"].startswith("file f")


async def test_raw_outputs_pass_and_the_call_is_answered():
    said = {"role": "user", "content": "look"}
    answer = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    assert await messages(RawOutputs([said])) == [{**answer, "output": "done"}, said]
    assert await messages(RawOutputs([answer, said])) == [answer, said]


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("ws://127.0.0.1:8080/rooms/a", "http://127.0.0.1:8080/rooms/a/v1/"),
        ("wss://mesh.example/rooms/a%20b/?x=1", "https://mesh.example/rooms/a%20b/v1/"),
    ],
)
async def test_the_gateway_is_under_the_rooms_address(room, url, base):
    room.room_url = url
    async with get_client(room=room) as client:
        assert str(client.base_url) == base
        assert client.api_key == "secret-token"
        assert client.max_retries == 0


def test_an_address_of_another_kind_is_refused(room):
    room.room_url = "file:///etc"
    with pytest.raises(SettingsError):
        get_client(room=room)


async def test_without_a_client_the_rooms_gateway_is_asked_and_the_client_closed(
    monkeypatch, client, gateway, room, context
):
    monkeypatch.setattr("meshhost.openai.tools.responses_adapter.get_client", lambda *, room: client)
    gateway.text("a")
    assert await OpenAIResponsesAdapter(model="m").next(context=context, room=room, toolkits=[]) == "a"
    assert client.is_closed()
