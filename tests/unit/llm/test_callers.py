"""Callers of chat completions and of the Messages API whose provider speaks another API."""

import json
from typing import Any

import pytest
from doubles.model_services import VOICES
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError
from meshhost.llm.caller_forms import CHAT_CALLER, FORMS, MESSAGES_CALLER, CallerForm
from meshhost.llm.dialects import CHAT, MESSAGES
from meshhost.llm.responses_answer import ResponsesAnswerReader

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
ACTS = [("thought", "hm"), ("text", "see"), ("call", "ring", {"x": 1}), ("call", "ring", {"x": 2})]


def test_a_chat_request_says_the_same_after_two_translations() -> None:
    function = {"name": "ring", "description": "Rings", "parameters": SCHEMA}
    called = {"id": "c", "type": "function", "function": {"name": "ring", "arguments": "{}"}}
    request = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://x"}}],
            },
            {"role": "assistant", "content": "wait", "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "ring"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        "max_tokens": 5,
        "temperature": 0,
        "stream": True,
    }
    written = CHAT.write(CHAT_CALLER.read(request))
    image = written["messages"][1]["content"][1]["image_url"]
    assert image.pop("detail") == "auto"
    assert written == {**request, "stream_options": {"include_usage": True}}


def test_a_message_request_says_the_same_after_two_translations() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    document = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
        "title": "a.pdf",
    }
    request = {
        "model": "claude-opus-4-6",
        "system": "Be brief.",
        "max_tokens": 5,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, image, document]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "hidden"},
                    {"type": "tool_use", "id": "t", "name": "ring", "input": {"x": 1}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "ok"}]}],
            },
        ],
        "tools": [{"name": "ring", "description": "Rings", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}},
    }
    assert MESSAGES.write(MESSAGES_CALLER.read(request)) == {**request, "thinking": {"type": "adaptive"}}


def test_texts_and_system_blocks_of_a_message_request_are_read() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "ok"}
    source = {"type": "text", "media_type": "text/plain", "data": "plain"}
    message = {"role": "user", "content": [result, {"type": "document", "source": source}]}
    read = MESSAGES_CALLER.read(
        {"system": [{"type": "text", "text": "a"}], "messages": [{"role": "user", "content": "hi"}, message]}
    )
    assert read["instructions"] == "a"
    assert [item["type"] for item in read["input"]] == ["message", "function_call_output", "message"]


@pytest.mark.parametrize(
    ("form", "body", "field"),
    [
        (CHAT_CALLER, {}, "messages"),
        (CHAT_CALLER, {"messages": [], "n": 2}, "n"),
        (CHAT_CALLER, {"messages": [], "tools": [{"type": "custom"}]}, "tools[0]"),
        (MESSAGES_CALLER, {}, "messages"),
        (MESSAGES_CALLER, {"messages": [3]}, "messages[0].role"),
        (MESSAGES_CALLER, {"messages": [{"role": "user", "content": [3]}]}, "messages[0].content[0]"),
        (MESSAGES_CALLER, {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "video"),
        (MESSAGES_CALLER, {"messages": [], "tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
    ],
)
def test_what_cannot_be_read_is_named(form: CallerForm, body: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        form.read(body)
    assert field in str(caught.value)


def retold(form: CallerForm, acts: list[Any], *, stop: str = "end", step: int = 5) -> tuple[Any, Any]:
    """What an answer of the Responses API says in the caller's form, read back: streamed, and as a whole."""
    reader, writer = ResponsesAnswerReader({}), form.writer({"stream_options": {"include_usage": True}})
    data, written = VOICES["responses"].stream(acts, stop=stop), b""
    for at in range(0, len(data), step):
        written += b"".join(map(writer.write, reader.feed(data[at : at + step])))
    dialect = {CHAT_CALLER.path: CHAT, MESSAGES_CALLER.path: MESSAGES}[form.path]
    streamed, whole = dialect.reader({}), dialect.reader({})
    streamed.feed(written + writer.end())
    streamed.end()
    whole.whole(form.writer({}).whole(VOICES["responses"].whole(acts, stop=stop)))
    return streamed.body, whole.body


def said(body: Any) -> list[Any]:
    found: list[Any] = []
    for item in body["output"]:
        match item["type"]:
            case "message":
                found.append(("text", "".join(part.get("text", part.get("refusal", "")) for part in item["content"])))
            case "function_call":
                found.append(("call", item["name"], json.loads(item["arguments"])))
            case "reasoning":
                found.append(("thought", "".join(part["text"] for part in item["summary"])))
    return found


@pytest.mark.parametrize("form", [CHAT_CALLER, MESSAGES_CALLER], ids=lambda form: form.path)
@pytest.mark.parametrize(("stop", "status"), [("end", "completed"), ("length", "incomplete")])
def test_an_answer_says_the_same_after_two_translations(form: CallerForm, stop: str, status: str) -> None:
    for body in retold(form, ACTS, stop=stop):
        assert said(body) == [(kind, *rest) for kind, *rest in ACTS]
        assert body["status"] == status
        assert (body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (11, 7)
        assert body["usage"]["input_tokens_details"] == {"cached_tokens": 3}


def test_a_refusal_is_one_where_the_api_has_that() -> None:
    for body in retold(CHAT_CALLER, [("refusal", "no")]):
        assert body["output"][0]["content"][0]["type"] == "refusal"
    for body in retold(MESSAGES_CALLER, [("refusal", "no")]):
        assert said(body) == [("text", "no")]


SAID = st.tuples(st.sampled_from(["text", "thought"]), st.text(min_size=1))
CALLED = st.tuples(st.just("call"), st.just("f"), st.dictionaries(st.text(), st.text(), min_size=1))


@given(st.lists(SAID | CALLED, max_size=5), st.integers(1, 60))
def test_whatever_is_said_is_retold_whole_for_any_chunking(acts: list[Any], step: int) -> None:
    for form in (CHAT_CALLER, MESSAGES_CALLER):
        streamed, whole = retold(form, acts, step=step)
        for kind in ("text", "thought", "call"):
            expected = [each[1:] for each in acts if each[0] == kind]
            if kind == "call":
                assert [each[1:] for each in said(streamed) if each[0] == kind] == expected
                assert [each[1:] for each in said(whole) if each[0] == kind] == expected
            else:
                for body in (streamed, whole):
                    assert "".join(each[1] for each in said(body) if each[0] == kind) == "".join(
                        each[0] for each in expected
                    )


def test_an_error_inside_an_answer_is_one_in_the_callers_form() -> None:
    event = b'data: {"type": "error", "code": "overloaded_error", "message": "slow"}\n\n'
    for form, dialect in ((CHAT_CALLER, CHAT), (MESSAGES_CALLER, MESSAGES)):
        writer, reader = form.writer({}), dialect.reader({})
        reader.feed(b"".join(map(writer.write, ResponsesAnswerReader({}).feed(event))) + writer.end())
        assert (reader.body["status"], reader.body["error"]["code"]) == ("failed", "overloaded_error")


def test_answers_of_odd_shapes_are_set_right() -> None:
    odd = [
        None,
        3,
        "a",
        {"role": "assistant", "content": ["b", None, {"text": "c"}]},
        {"type": "function_call", "arguments": None},
    ]
    reader = ResponsesAnswerReader({})
    events = reader.whole({"output": odd, "status": "completed"})
    assert [part["text"] for item in reader.body["output"][:2] for part in item["content"]] == ["a", "b", "c"]
    assert reader.body["output"][2]["arguments"] == "{}"
    for form in FORMS.values():
        writer = form.writer({})
        assert b"".join(map(writer.write, events))
        assert writer.whole(reader.body)
