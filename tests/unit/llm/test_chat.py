"""Chat completions: requests as they are written, answers as they are read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.llm.chat_answer import ChatAnswerReader
from meshhost.llm.chat_request import chat_request

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
TOOL = {"type": "function", "name": "ring", "description": "Rings", "parameters": SCHEMA, "strict": True}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "ring", "arguments": '{"x":1}'}


def chunk(delta: Any = None, reason: str | None = None, **more: Any) -> bytes:
    value = {"choices": [{"index": 0, "delta": {} if delta is None else delta, "finish_reason": reason}], **more}
    return f"data: {json.dumps(value)}\n\n".encode()


def piece(index: int | None, arguments: Any = "", name: str | None = None, **fields: Any) -> bytes:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    at = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**at, **fields, "function": function}]})


DONE = b"data: [DONE]\n\n"


def read(*data: bytes, **request: Any) -> ChatAnswerReader:
    reader = ChatAnswerReader({"model": "m", **request})
    for each in data:
        reader.feed(each)
    reader.end()
    return reader


def calls(reader: ChatAnswerReader) -> list[tuple[str, str]]:
    return [(item["name"], item["arguments"]) for item in reader.body["output"] if item["type"] == "function_call"]


# Requests ---------------------------------------------------------------------------------------------------------------


def test_a_request_has_what_it_needs_and_nothing_else() -> None:
    written = chat_request(
        {
            "model": "m",
            "instructions": "Be brief.",
            "input": [
                {"role": "developer", "content": "Be kind."},
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            ],
            "store": True,
            "include": ["reasoning.encrypted_content"],
            "truncation": "auto",
            "max_output_tokens": 9,
            "temperature": 0,
            "stream": True,
        }
    )
    assert written == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief.\n\nBe kind."}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_reasoning_models_get_the_name_that_they_know() -> None:
    written = chat_request({"model": "m", "input": "hi", "max_output_tokens": 9, "reasoning": {"effort": "low"}})
    assert (written["reasoning_effort"], written["max_completion_tokens"]) == ("low", 9)
    assert "max_tokens" not in written


def test_calls_of_a_turn_are_one_message_with_what_was_said_before() -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "wait"}]}
    other = {**CALL, "call_id": "c2", "arguments": ""}
    results = [{"type": "function_call_output", "call_id": each, "output": each} for each in ("c1", "c2")]
    sent = [{"role": "user", "content": "hi"}, said, {"type": "reasoning", "id": "rs_1"}, CALL, other, *results]
    function = {"name": "ring", "arguments": '{"x":1}'}
    assert chat_request({"input": sent})["messages"][1:] == [
        {
            "role": "assistant",
            "content": "wait",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": {**function, "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "c1"},
        {"role": "tool", "tool_call_id": "c2", "content": "c2"},
    ]


def test_pictures_of_tools_follow_in_a_message_of_the_user() -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"}
    results = [{"type": "function_call_output", "call_id": each, "output": [picture]} for each in ("c1", "c2")]
    *_, one, two, shown = chat_request({"input": [CALL, {**CALL, "call_id": "c2"}, *results]})["messages"]
    assert [one["role"], two["role"], shown["role"]] == ["tool", "tool", "user"]
    assert [part["image_url"]["url"] for part in shown["content"]] == ["data:image/png;base64,AA=="] * 2


def test_messages_of_the_chat_api_are_understood() -> None:
    function = {"name": "ring", "arguments": "{}"}
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]
    assert chat_request({"input": messages})["messages"] == messages


def test_tools_and_the_form_of_the_answer_are_translated() -> None:
    form = {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}
    written = chat_request(
        {
            "input": "x",
            "tools": [TOOL, {**TOOL, "name": "sing", "strict": False}],
            "tool_choice": {"type": "function", "name": "ring"},
            "parallel_tool_calls": False,
            "text": {"format": form},
        }
    )
    about = {"name": "ring", "description": "Rings", "parameters": SCHEMA}
    assert written["tools"][0] == {"type": "function", "function": {**about, "strict": True}}
    assert written["tools"][1] == {"type": "function", "function": {**about, "name": "sing"}}
    assert written["tool_choice"] == {"type": "function", "function": {"name": "ring"}}
    assert written["parallel_tool_calls"] is False
    assert written["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": SCHEMA, "strict": True},
    }


def test_files_and_sounds_are_sent_by_their_content() -> None:
    parts = [
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
    ]
    [message] = chat_request({"input": [{"role": "user", "content": parts}]})["messages"]
    assert message["content"] == [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "image_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "file_data"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}]}, "file_url"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "hologram"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "web_search"),
        ({"input": "x", "tools": "all"}, "tools"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "x", "tool_choice": "perhaps"}, "tool_choice"),
        ({"input": "x", "tool_choice": {"type": "function", "name": "unknown"}}, "tool_choice"),
        ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
    ],
)
def test_what_has_no_form_in_the_other_api_is_named(body: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        chat_request(body)
    assert field in str(caught.value)


def test_a_stored_response_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        chat_request({"input": "x", "previous_response_id": "resp_1"})


def test_allowed_tools_bound_what_is_offered() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "sing"}]}
    written = chat_request({"input": "x", "tools": [TOOL, {**TOOL, "name": "sing"}], "tool_choice": choice})
    assert [tool["function"]["name"] for tool in written["tools"]] == ["sing"]
    assert written["tool_choice"] == "required"


# Answers ----------------------------------------------------------------------------------------------------------------


def test_pieces_of_several_calls_may_come_in_turns() -> None:
    reader = read(
        piece(0, "", "a", id="c0"), piece(1, "", "b", id="c1"), piece(0, '{"x"'), piece(1, '{"y"'), piece(0, ":1}"),
        piece(1, ":2}"), chunk(reason="tool_calls"), DONE,
    )  # fmt: skip
    assert calls(reader) == [("a", '{"x":1}'), ("b", '{"y":2}')]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([piece(None, '{"x":1}', "a"), piece(None, '{"y":2}', "b")], id="no index, no id"),
        pytest.param([piece(None, '{"x"', "a"), piece(None, ":1}"), piece(None, '{"y":2}', "b")], id="no index"),
        pytest.param([piece(0, '{"x":1}', "a", id="1"), piece(0, '{"y":2}', "b", id="2")], id="one index for all"),
        pytest.param(
            [piece(0, '{"x":1}', "a", id="1"), piece(0, '{"y"', "b", id="2"), piece(0, ":2}")], id="one index, pieces"
        ),
        pytest.param([piece(0, '{"x":1}', "a", id="1"), piece(1, '{"y":2}', "b", id="1")], id="one id for all"),
        pytest.param([piece(0, '{"x"', "a"), piece(0, ":1}", "a"), piece(1, '{"y":2}', "b")], id="the name again"),
        pytest.param([piece(0, {"x": 1}, "a"), piece(1, {"y": 2}, "b")], id="objects"),
        pytest.param([piece(0, '{"x"'), piece(0, ":1}", "a"), piece(1, '{"y":2}', "b")], id="the name later"),
        pytest.param(
            [
                chunk({"tool_calls": {"id": "1", "function": {"name": "a", "arguments": '{"x":1}'}}}),
                piece(1, '{"y":2}', "b"),
            ],
            id="no list",
        ),
    ],
)
def test_calls_are_told_apart_however_they_are_numbered(pieces: list[bytes]) -> None:
    reader = read(*pieces, chunk(reason="tool_calls"), DONE)
    assert [(name, json.loads(text)) for name, text in calls(reader)] == [("a", {"x": 1}), ("b", {"y": 2})]
    ids = [item["call_id"] for item in reader.body["output"]]
    assert len(set(ids)) == 2
    assert all(ids)


@pytest.mark.parametrize("index", [[], {}, 1.5, None])
def test_an_index_of_any_kind_is_read(index: Any) -> None:
    call = {"index": index, "id": "c", "function": {"name": "a", "arguments": "{}"}}
    assert calls(read(chunk({"tool_calls": [call]}), chunk(reason="tool_calls"), DONE)) == [("a", "{}")]


def test_the_older_function_call_is_a_call() -> None:
    old = [chunk({"function_call": {"name": "a", "arguments": "{"}}), chunk({"function_call": {"arguments": "}"}})]
    assert calls(read(*old, chunk(reason="function_call"), DONE)) == [("a", "{}")]


@pytest.mark.parametrize(
    ("end", "status", "is_cut"),
    [
        ([chunk(reason="stop"), DONE], "completed", False),
        ([chunk(reason="stop")], "completed", False),
        ([DONE], "completed", False),
        ([], "in_progress", True),
        ([chunk(reason="length"), DONE], "incomplete", False),
        ([chunk(reason="content_filter"), DONE], "incomplete", False),
        ([chunk(reason="error")], "failed", False),
        ([b'data: {"error": {"code": 429, "message": "slow"}}\n\n'], "failed", False),
        ([b'data: {"error": "slow"}\n\n'], "failed", False),
        ([b'data: {"object": "error", "message": "slow"}\n\n'], "failed", False),
    ],
)
def test_an_answer_is_complete_when_it_says_so(end: list[bytes], status: str, is_cut: bool) -> None:
    reader = read(chunk({"content": "hi"}), *end)
    assert (reader.body["status"], reader.is_cut) == (status, is_cut)


def test_usage_may_come_with_each_chunk_or_after_the_last() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 2}}
    early = read(
        chunk({"content": "a"}, usage={**usage, "completion_tokens": 1}), chunk(reason="stop", usage=usage), DONE
    )
    late = read(
        chunk({"content": "a"}),
        chunk(reason="stop"),
        b'data: {"choices": [], "usage": ' + json.dumps(usage).encode() + b"}\n\n",
        DONE,
    )
    assert early.body["usage"] == late.body["usage"]
    assert late.body["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    assert (late.body["usage"]["input_tokens"], late.body["usage"]["output_tokens"]) == (5, 3)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_was_thought_is_reasoning(name: str) -> None:
    reader = read(chunk({name: "h"}), chunk({name: "m"}), chunk({"content": "hi"}), chunk(reason="stop"), DONE)
    thought, message = reader.body["output"]
    assert (thought["type"], thought["summary"][0]["text"]) == ("reasoning", "hm")
    assert message["content"][0]["text"] == "hi"


def test_thoughts_may_be_parts_of_a_content() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}]
    reader = read(chunk({"content": parts}), chunk(reason="stop"), DONE)
    assert [item["type"] for item in reader.body["output"]] == ["reasoning", "message"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments", "usage", "index",
                     "id", "error", "finish_reason", "prompt_tokens", "reasoning", "type", "text"]), inner)))  # fmt: skip
def test_any_json_can_be_read(value: Any) -> None:
    reader = ChatAnswerReader({})
    reader.feed(f"data: {json.dumps(value)}\n\n".encode())
    reader.feed(f"data: {json.dumps({'choices': [{'delta': value}]})}\n\n".encode())
    reader.feed(DONE)
    if isinstance(value, dict):
        ChatAnswerReader({}).whole(value)


# The law: whatever is said comes out in order and whole, for any cut of the bytes --------------------------------------------

ACTS = st.lists(
    st.tuples(st.sampled_from(["content", "reasoning_content", "refusal"]), st.text(min_size=1))
    | st.tuples(st.just("call"), st.integers(0, 3), st.text(max_size=9)),
    max_size=12,
)


@given(ACTS, st.lists(st.integers(1, 40), min_size=1))
def test_what_goes_in_comes_out_whole_and_in_order_for_any_chunking(acts: list[Any], sizes: list[int]) -> None:
    data, arguments, texts = b"", dict[int, str](), dict[str, str]()
    for act in acts:
        if act[0] == "call":
            _, index, text = act
            data += piece(index, text, None if index in arguments else f"f{index}", id=f"c{index}")
            arguments[index] = arguments.get(index, "") + text
        else:
            data += chunk({act[0]: act[1]})
            texts[act[0]] = texts.get(act[0], "") + act[1]
    data += chunk(reason="stop") + DONE
    reader, events, at = ChatAnswerReader({"model": "m"}), [], 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        events += reader.feed(data[at : at + size])
        at += size
    events += reader.end()

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert {
        item["call_id"]: item["arguments"] for item in reader.body["output"] if item["type"] == "function_call"
    } == {f"c{index}": text for index, text in arguments.items()}
    spoken = {
        "content": "response.output_text",
        "refusal": "response.refusal",
        "reasoning_content": "response.reasoning_summary_text",
    }
    for kind, name in spoken.items():
        assert "".join(e["delta"] for e in events if e["type"] == f"{name}.delta") == texts.get(kind, "")
    # Every item is opened once, closed once, and grows in between only.
    is_open: dict[int, bool] = {}
    for event in events:
        place = event.get("output_index")
        if event["type"] == "response.output_item.added":
            assert place not in is_open
            is_open[place] = True
        elif event["type"] == "response.output_item.done":
            assert is_open[place]
            is_open[place] = False
        elif place is not None:
            assert is_open[place]
    assert not any(is_open.values())
