import asyncio
import email.utils

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import LLMError
from meshhost.openai.tools.retry import RetryPolicy, explain


async def test_a_rate_limit_is_waited_out_as_long_as_asked(gateway, ask, context, clock):
    gateway.fail(429, {"retry-after": "7"}, code="rate_limit_exceeded")
    gateway.fail(429, {"retry-after-ms": "1500"})
    gateway.fail(429, {"retry-after": email.utils.formatdate(clock.time() + 9, usegmt=True)})
    gateway.fail(429, {"retry-after": "3600"})
    gateway.fail(429, {"retry-after": "soon"})
    gateway.text("a")
    assert await ask(context) == "a"
    assert clock.sleeps == [7, 1.5, 9, 60, 8]


async def test_an_empty_account_is_not_waited_for(gateway, ask, context, clock):
    gateway.fail(429, code="insufficient_quota")
    with pytest.raises(LLMError, match="insufficient_quota") as caught:
        await ask(context)
    assert (caught.value.status, clock.sleeps) == (429, [])


async def test_server_errors_and_lost_connections_are_tried_again_ever_slower(gateway, ask, context, clock):
    gateway.fail(500)
    gateway.unreachable()
    gateway.fail(503)
    gateway.text("a")
    assert await ask(context) == "a"
    assert clock.sleeps == [0.5, 1, 2]


async def test_the_tries_come_to_an_end(gateway, ask, context, clock):
    for _ in range(6):
        gateway.fail(502)
    with pytest.raises(LLMError, match=r"gateway failed \(status 502\) \(6 tries\)") as caught:
        await ask(context)
    assert caught.value.status == 502
    assert len(clock.sleeps) == 5


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "did not understand"), (401, "check the room token"), (403, "may not use"), (404, "OPENAI_MODEL"),
        (413, "shorten"), (422, "refused the request"),
    ],
)  # fmt: skip
async def test_our_own_mistakes_are_not_repeated(gateway, ask, context, clock, status, advice):
    gateway.fail(status, code="a_code", param="tools[0]", message="your key sk-123 is wrong")
    with pytest.raises(LLMError, match=advice) as caught:
        await ask(context)
    assert caught.value.status == status
    assert "a_code, tools[0]" in str(caught.value)
    assert "sk-123" not in str(caught.value)
    assert clock.sleeps == []


async def test_a_stream_that_is_cut_is_asked_for_again_as_a_whole(gateway, ask, context, clock, httpx_library):
    events = []
    gateway.cut()
    gateway.cut(httpx_library.ReadError("gone"))
    gateway.cut(httpx_library.ReadTimeout("silence"))
    gateway.cut(then=b'event: response.completed\ndata: {"type": "resp\n\n')
    gateway.text("hello")
    assert await ask(context, event_handler=events.append) == "hello"
    assert len(clock.sleeps) == 4
    kinds = [event["type"] for event in events]
    assert kinds[:4] == ["response.output_text.delta", "meshhost.turn.retried"] * 2
    assert kinds[-1] == "response.completed"
    assert gateway.requests[0] == gateway.requests[-1]


async def test_a_failure_before_any_event_takes_nothing_back(gateway, ask, context):
    events = []
    gateway.fail(500)
    gateway.text("a")
    await ask(context, event_handler=events.append)
    assert "meshhost.turn.retried" not in [event["type"] for event in events]


@pytest.mark.parametrize("nested", [True, False])
async def test_a_temporary_error_inside_the_stream_is_tried_again(gateway, ask, context, clock, nested):
    error = {"code": "server_error", "message": "oops", "param": None}
    gateway.events({"type": "error", "error": error} if nested else {"type": "error", **error})
    gateway.text("a", status="failed", error={"code": "rate_limit_exceeded", "message": ""})
    gateway.text("a")
    assert await ask(context) == "a"
    assert len(clock.sleeps) == 2


async def test_another_error_inside_the_stream_is_raised(gateway, ask, context):
    gateway.events({"type": "error", "code": "invalid_prompt", "message": "secret", "param": None})
    with pytest.raises(LLMError, match=r"^the model failed: invalid_prompt$"):
        await ask(context)


async def test_an_answer_has_to_end(gateway, adapter, room, context, httpx_library):
    async def body():
        yield b": alive\n\n"
        await asyncio.Event().wait()

    gateway.steps.append(lambda: httpx_library.Response(200, content=body()))
    with pytest.raises(LLMError, match=r"did not finish its answer within 0\.05 s"):
        await adapter(answer_timeout=0.05).next(context=context, room=room, toolkits=[])


def test_errors_that_are_none_of_the_model_are_not_explained():
    assert explain(KeyError("x"), 0.0) is None


def test_transport_errors_of_any_http_library_are_explained(httpx_library):
    assert explain(httpx_library.ReadError("x"), 0.0).is_temporary
    assert explain(openai.APITimeoutError(request=None), 0.0).is_temporary


@given(tried=st.integers(1, 10_000), luck=st.floats(0, 1), asked=st.none() | st.floats(-1e9, 1e9))
def test_a_delay_is_never_negative_nor_over_the_cap(tried, luck, asked):
    assert 0 <= RetryPolicy(random=lambda: luck).delay(tried, asked) <= 60
