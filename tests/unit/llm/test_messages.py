"""Anthropic's Messages API: requests as they are written, answers as they are read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError
from meshhost.llm.messages_answer import MessagesAnswerReader
from meshhost.llm.messages_request import messages_request

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
TOOL = {"type": "function", "name": "ring", "description": "Rings", "parameters": SCHEMA, "strict": True}
CALL = {"type": "function_call", "call_id": "c.1", "name": "ring", "arguments": '{"x":1}'}
RESULT = {"type": "function_call_output", "call_id": "c.1", "output": "ok"}
OLD, NEW = "claude-3-5-sonnet-latest", "claude-opus-4-6"


def form(schema: Any = SCHEMA, *, strict: bool = True) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "name": "a", "schema": schema, "strict": strict}}


def write(*items: Any, **more: Any) -> dict[str, Any]:
    return messages_request({"model": "m", "input": list(items) or "hi", **more})


def sse(*events: Any) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def read(*events: Any, **request: Any) -> MessagesAnswerReader:
    reader = MessagesAnswerReader({"model": "m", **request})
    reader.feed(sse(*events))
    reader.end()
    return reader


def begun(at: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": at, "content_block": block}


def grown(at: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": at, "delta": delta}


def stopped(reason: str) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 7}}


STOP = {"type": "message_stop"}


def test_roles_alternate_and_results_come_first() -> None:
    spoken = {"role": "user", "content": [{"type": "input_text", "text": "and?"}]}
    written = write({"role": "user", "content": "hi"}, CALL, spoken, RESULT, {"role": "user", "content": "so"})
    assert [message["role"] for message in written["messages"]] == ["user", "assistant", "user"]
    assert written["messages"][1]["content"] == [{"type": "tool_use", "id": "c_1", "name": "ring", "input": {"x": 1}}]
    assert written["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c_1", "content": [{"type": "text", "text": "ok"}]},
        {"type": "text", "text": "and?"},
        {"type": "text", "text": "so"},
    ]


def test_a_conversation_begins_with_the_user() -> None:
    assert write({"role": "assistant", "content": "hello"})["messages"][0]["role"] == "user"


def test_the_system_text_and_a_bound_are_members() -> None:
    written = write(instructions="Be brief.", user="u1", stream=True)
    assert (written["system"], written["metadata"], written["stream"]) == ("Be brief.", {"user_id": "u1"}, True)
    assert written["max_tokens"] == 16_384
    assert write(max_output_tokens=5)["max_tokens"] == 5
    assert messages_request({"model": "claude-3-haiku-1", "input": "x"})["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("none", False, {"type": "none"}),
        ({"type": "function", "name": "ring"}, None, {"type": "tool", "name": "ring"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
    ],
)
def test_the_choice_of_a_tool_is_translated(choice: Any, parallel: Any, sent: Any) -> None:
    written = write(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel)
    assert written.get("tool_choice") == sent
    assert written["tools"] == [{"name": "ring", "description": "Rings", "input_schema": SCHEMA}]


@pytest.mark.parametrize("more", [{}, {"model": "claude-sonnet-4-0", "reasoning": {"effort": "low"}}])
def test_one_call_at_a_time_is_kept_beside_a_tool_that_stands_for_the_answer(more: dict[str, Any]) -> None:
    written = write(tools=[TOOL], parallel_tool_calls=False, text=form(strict=False), **more)
    assert len(written["tools"]) == 2
    assert written["tool_choice"]["disable_parallel_tool_use"] is True


def test_pictures_and_documents_are_sources() -> None:
    parts = [
        {"type": "input_image", "image_url": "data:image/jpeg;base64,AA=="},
        {"type": "input_image", "image_url": "https://x/a.png"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="},
        {"type": "input_file", "file_url": "https://x/a.pdf"},
    ]
    [message] = write({"role": "user", "content": parts})["messages"]
    assert [block["source"] for block in message["content"]] == [
        {"type": "base64", "media_type": "image/jpeg", "data": "AA=="},
        {"type": "url", "url": "https://x/a.png"},
        {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
        {"type": "text", "media_type": "text/plain", "data": "hi"},
        {"type": "url", "url": "https://x/a.pdf"},
    ]


@pytest.mark.parametrize(
    ("parts", "tools", "text"),
    [
        ([{"type": "input_audio", "input_audio": {"data": "AA=="}}], [], "input_audio"),
        ([{"type": "input_file", "file_data": "data:text/plain;base64,A"}], [], "base64"),
        ([], [{"type": "code_interpreter"}], "code_interpreter"),
    ],
)
def test_what_the_api_does_not_take_is_named(parts: Any, tools: Any, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        write({"role": "user", "content": parts}, tools=tools)


def test_a_schema_is_native_where_the_model_has_that_and_a_tool_elsewhere() -> None:
    native = messages_request({"model": NEW, "input": "x", "text": form()})
    assert native["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert "tools" not in native
    for written in (
        messages_request({"model": OLD, "input": "x", "text": form()}),
        messages_request({"model": NEW, "input": "x", "text": form(strict=False)}),
        messages_request({"model": "other", "input": "x", "text": form()}),
    ):
        assert written["tools"][0]["input_schema"] == SCHEMA
        assert written["tool_choice"] == {"type": "tool", "name": "final_answer"}
    several = messages_request({"model": OLD, "input": "x", "text": form(), "tools": [TOOL]})
    assert several["tool_choice"] == {"type": "any"}


def test_an_answer_that_is_no_object_is_wrapped_and_unwrapped() -> None:
    text = form({"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"type": "integer"}}})
    schema = write(text=text)["tools"][0]["input_schema"]
    assert schema["properties"]["value"] == {"type": "array", "items": {"$ref": "#/$defs/A"}}
    assert schema["$defs"] == {"A": {"type": "integer"}}
    use = begun(0, type="tool_use", id="t", name="final_answer", input={})
    reader = read(
        use, grown(0, type="input_json_delta", partial_json='{"value": [1]}'), stopped("tool_use"), STOP, text=text
    )
    assert reader.body["output"][0]["content"][0]["text"] == "[1]"


def test_effort_is_adaptive_or_a_budget() -> None:
    new = messages_request({"model": NEW, "input": "x", "reasoning": {"effort": "high"}, "temperature": 0})
    assert (new["thinking"], new["output_config"]) == ({"type": "adaptive"}, {"effort": "high"})
    assert "temperature" not in new
    old = messages_request(
        {"model": "claude-sonnet-4-5", "input": "x", "reasoning": {"effort": "low"}, "max_output_tokens": 9}
    )
    assert (old["thinking"], old["max_tokens"]) == ({"type": "enabled", "budget_tokens": 2048}, 2057)
    assert "thinking" not in messages_request({"model": NEW, "input": "x", "reasoning": {"effort": "none"}})


@pytest.mark.parametrize(
    ("model", "is_sent"),
    [("m", True), (OLD, True), ("claude-opus-4-6", True), ("claude-opus-4-7", False), ("claude-sonnet-5", False)],
)
def test_sampling_is_sent_to_models_that_take_it(model: str, is_sent: bool) -> None:
    written = messages_request({"model": model, "input": "x", "temperature": 0.5, "top_p": 0.5})
    assert written.get("temperature") == (0.5 if is_sent else None)
    assert "top_p" not in written


def test_a_tool_that_stands_for_the_answer_is_not_forced_while_the_model_thinks() -> None:
    written = write(text=form(), reasoning={"effort": "low"})
    assert written["tool_choice"] == {"type": "auto"}
    assert "final_answer" in written["system"]


def test_thoughts_go_back_with_their_proof_or_not_at_all() -> None:
    signed = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "anthropic:sig",
    }
    hidden = {"type": "reasoning", "summary": [], "encrypted_content": "anthropic-hidden:data"}
    foreign = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "no"}], "encrypted_content": "gAAA"}
    user = {"role": "user", "content": "hi"}
    blocks = write(user, signed, hidden, foreign, CALL, RESULT)["messages"][1]["content"]
    assert blocks[:2] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "data"},
    ]
    assert [block["type"] for block in blocks[2:]] == ["tool_use"]
    # A turn that began without thoughts, with another provider, cannot go on with them.
    effort = {"effort": "low"}
    assert "thinking" not in write(user, foreign, CALL, RESULT, reasoning=effort)
    assert "thinking" in write(user, signed, CALL, RESULT, reasoning=effort)


def test_arguments_that_are_no_object_are_kept_for_the_model() -> None:
    written = write({**CALL, "arguments": "{broken"}, {**RESULT, "output": ""})
    assert written["messages"][1]["content"][0]["input"] == {"arguments": "{broken"}
    assert "content" not in written["messages"][2]["content"][0]


def test_a_thought_keeps_its_signature() -> None:
    reader = read(
        begun(0, type="thinking", thinking="", signature=""),
        grown(0, type="thinking_delta", thinking="hm"),
        grown(0, type="signature_delta", signature="si"),
        grown(0, type="signature_delta", signature="g"),
        {"type": "content_block_stop", "index": 0},
        begun(1, type="redacted_thinking", data="secret"),
        {"type": "content_block_stop", "index": 1},
        begun(2, type="text", text=""),
        grown(2, type="text_delta", text="hi"),
        stopped("end_turn"),
        STOP,
    )
    signed, hidden, message = reader.body["output"]
    assert (signed["encrypted_content"], signed["summary"][0]["text"]) == ("anthropic:sig", "hm")
    assert (hidden["encrypted_content"], hidden["summary"]) == ("anthropic-hidden:secret", [])
    assert message["content"][0]["text"] == "hi"


@pytest.mark.parametrize(
    ("events", "status", "is_cut"),
    [
        ([stopped("end_turn"), STOP], "completed", False),
        ([stopped("end_turn")], "completed", False),
        ([stopped("stop_sequence"), STOP], "completed", False),
        ([STOP], "completed", False),
        ([], "in_progress", True),
        ([stopped("max_tokens"), STOP], "incomplete", False),
        ([stopped("pause_turn"), STOP], "incomplete", False),
        ([stopped("model_context_window_exceeded"), STOP], "incomplete", False),
        ([{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, STOP], "failed", False),
        ([{"type": "other", "error": {"type": "api_error"}}], "failed", False),
    ],
)
def test_an_answer_is_complete_when_it_says_so(events: list[Any], status: str, is_cut: bool) -> None:
    reader = read(begun(0, type="text", text="hi"), *events)
    assert (reader.body["status"], reader.is_cut) == (status, is_cut)


@pytest.mark.parametrize("index", [[], {}, None, 0])
def test_a_block_that_is_begun_twice_is_two(index: Any) -> None:
    use = {**begun(0, type="tool_use", id="t", name="f", input={"x": 1}), "index": index}
    reader = read(use, {**use, "content_block": {**use["content_block"], "id": "u"}}, STOP)
    assert [(item["call_id"], item["arguments"]) for item in reader.body["output"]] == [
        ("t", '{"x": 1}'),
        ("u", '{"x": 1}'),
    ]
    assert {item["status"] for item in reader.body["output"]} == {"completed"}


def test_searches_of_the_provider_are_shown_as_its_calls() -> None:
    reader = read(begun(0, type="server_tool_use", id="s", name="web_search"), begun(1, type="text", text="hi"), STOP)
    assert [item["type"] for item in reader.body["output"]] == ["web_search_call", "message"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["type", "index", "content_block", "delta", "message", "usage", "content", "input", "name", "id", "text",
                     "error", "stop_reason", "thinking", "signature"]), inner)))  # fmt: skip
def test_any_json_can_be_read(value: Any) -> None:
    reader = MessagesAnswerReader({})
    for kind in ("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"):
        for block in ("text", "thinking", "tool_use", value):
            inner = {**value, "type": block} if isinstance(value, dict) else value
            event = {"type": kind, "index": 0, "content_block": inner, "delta": inner, "message": inner, "usage": value}
            reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    reader.end()
    if isinstance(value, dict):
        MessagesAnswerReader({}).whole(value)


@given(
    st.lists(
        st.tuples(st.sampled_from(["text", "thinking", "tool_use"]), st.lists(st.text(min_size=1), max_size=4)),
        max_size=5,
    ),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_what_goes_in_comes_out_whole_and_in_order_for_any_chunking(blocks: list[Any], sizes: list[int]) -> None:
    deltas = {
        "text": ("text_delta", "text"),
        "thinking": ("thinking_delta", "thinking"),
        "tool_use": ("input_json_delta", "partial_json"),
    }
    events: list[Any] = []
    for at, (kind, pieces) in enumerate(blocks):
        events.append(begun(at, type=kind, id=f"t{at}", name="f"))
        events += [grown(at, type=deltas[kind][0], **{deltas[kind][1]: piece}) for piece in pieces]
        events.append({"type": "content_block_stop", "index": at})
    data = sse(*events, stopped("end_turn"), STOP)
    reader, found, at = MessagesAnswerReader({}), [], 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        found += reader.feed(data[at : at + size])
        at += size
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed"
    names = {
        "text": "response.output_text",
        "thinking": "response.reasoning_summary_text",
        "tool_use": "response.function_call_arguments",
    }
    for kind, name in names.items():
        said = "".join(piece for each, pieces in blocks for piece in pieces if each == kind)
        assert "".join(event["delta"] for event in found if event["type"] == f"{name}.delta") == said
    assert all(item["status"] == "completed" for item in reader.body["output"])
