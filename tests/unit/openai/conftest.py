"""A model gateway without a socket: it speaks Responses SSE bytes through the HTTP library's mock transport."""

import importlib
import itertools
import json
from types import SimpleNamespace

import openai
import pytest

from meshhost.openai import OpenAIResponsesAdapter
from meshhost.openai.tools.retry import RetryPolicy

# httpx or httpx2, whichever this openai is built on.
httpx = importlib.import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__)


class FakeClock:
    def __init__(self):
        self.sleeps = []

    def monotonic(self):
        return 0.0

    def time(self):
        return 1_000_000_000.0

    async def sleep(self, seconds):
        self.sleeps.append(seconds)


class Gateway:
    """Answers each request with the next step; `requests` are the bodies it got."""

    def __init__(self):
        self.steps, self.requests, self._ids = [], [], itertools.count(1)

    # What the model does -------------------------------------------------------------------------
    def text(self, text, **more):
        self.output([message({"type": "output_text", "text": text, "annotations": []})], **more)

    def refuse(self, reason):
        self.output([message({"type": "refusal", "refusal": reason})])

    def call(self, *calls, **more):
        """Calls are (name, arguments) with arguments as dict or raw text; ids are call_1, call_2, … per turn."""
        self.output([call_item(n, *call) for n, call in enumerate(calls, 1)], **more)

    def output(self, items, *, tokens=(10, 2), status="completed", **more):
        response = {
            "id": f"resp_{next(self._ids)}", "object": "response", "created_at": 0, "model": "m", "output": items,
            "status": status, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "usage": tokens and {
                "input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens),
                "input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 1},
            }, **more,
        }  # fmt: skip
        opening = {"type": "response.created", "response": {**response, "output": [], "usage": None}}
        self.events(opening, {"type": f"response.{status}", "response": response})

    # What the line does --------------------------------------------------------------------------
    def events(self, *events, then=b""):
        body = b"".join(sse(n, event) for n, event in enumerate(events)) + then
        self.steps.append(lambda: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body))

    def body(self, text, content_type):
        """Answer with status 200 and this body, whatever was asked for."""
        self.steps.append(lambda: httpx.Response(200, headers={"content-type": content_type}, content=text.encode()))

    def cut(self, error=None, *, then=b""):
        """Begin an answer, then end the connection: quietly or with a transport error."""

        async def body():
            yield sse(0, {"type": "response.output_text.delta", "delta": "Hel", "item_id": "m", "output_index": 0})
            yield then
            if error:
                raise error

        self.steps.append(lambda: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body()))

    def fail(self, status, headers=None, **error):
        self.steps.append(lambda: httpx.Response(status, headers=headers or {}, json={"error": error}))

    def unreachable(self):
        def step():
            raise httpx.ConnectError("no route")

        self.steps.append(step)

    def handle(self, request):
        self.requests.append(json.loads(request.content))
        return self.steps.pop(0)()


def sse(number, event):
    return f"event: {event['type']}\ndata: {json.dumps({'sequence_number': number, **event})}\n\n".encode()


def message(part):
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def call_item(number, name, arguments):
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {
        "type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": name,
        "arguments": arguments, "status": "completed",
    }  # fmt: skip


@pytest.fixture
def gateway():
    return Gateway()


@pytest.fixture
def httpx_library():
    return httpx


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def client(gateway):
    transport = httpx.MockTransport(gateway.handle)
    async with openai.AsyncOpenAI(
        base_url="http://gateway/v1", api_key="k", max_retries=0, http_client=httpx.AsyncClient(transport=transport)
    ) as client:
        yield client


@pytest.fixture
def room():
    logged = []
    return SimpleNamespace(
        room_name="r",
        room_url="wss://mesh.example/rooms/r",
        protocol=SimpleNamespace(token="secret-token"),
        local_participant="me",
        developer=SimpleNamespace(log_nowait=lambda **entry: logged.append(entry), logged=logged),
    )


@pytest.fixture
def adapter(client, clock):
    def adapter(**options):
        policy = RetryPolicy(clock=clock, random=lambda: 1.0)
        return OpenAIResponsesAdapter(**({"model": "m", "client": client, "retry": policy} | options))

    return adapter


@pytest.fixture
def ask(adapter, room):
    """`await ask(context, *tools, **options)` with the default adapter."""

    async def ask(context, *toolkits, **options):
        return await adapter().next(context=context, room=room, toolkits=list(toolkits), **options)

    return ask


@pytest.fixture
def context():
    context = OpenAIResponsesAdapter(model="m").create_chat_context()
    context.append_user_message("hi")
    return context
