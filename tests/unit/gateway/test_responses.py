"""Reading requests of the Responses API."""

from typing import Any

import pytest

from meshhost.errors import InvalidRequestError
from meshhost.gateway.responses import read_request
from meshhost.llm.builder import ResponseBuilder

TOOL = {"type": "function", "name": "ring", "description": "Rings", "parameters": {"type": "object"}}


def test_the_newest_user_message_and_the_results_after_it_are_what_counts() -> None:
    asked = read_request(
        {
            "model": "m",
            "instructions": "Be brief.",
            "stream": True,
            "max_output_tokens": 9,
            "input": [
                {"role": "developer", "content": "Be kind."},
                {"role": "user", "content": "first"},
                {"type": "function_call_output", "call_id": "1", "output": "old"},
                {"role": "user", "content": [{"type": "input_text", "text": "second"}, {"type": "input_image"}]},
                {"type": "function_call", "call_id": "2", "name": "ring", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "new"}]},
                {"type": "function_call_output", "call_id": "3", "output": None},
            ],
            "tools": [TOOL, {"type": "web_search"}],
        }
    )
    assert (asked.instructions, asked.user, asked.results) == ("Be brief.\nBe kind.", "second", ("new", ""))
    assert [tool.name for tool in asked.tools] == ["ring"]
    assert (asked.stream, asked.max_output_tokens, asked.tool_choice) == (True, 9, "auto")


def test_a_plain_text_is_the_user_message() -> None:
    asked = read_request({"input": "hi", "tools": [TOOL], "tool_choice": {"type": "function", "name": "ring"}})
    assert (asked.user, asked.tool_choice, asked.text_schema) == ("hi", "ring", None)


def test_a_wanted_form_of_the_text_is_kept() -> None:
    schema = {"type": "object", "properties": {}}
    json_schema = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    assert read_request({"input": "hi", "text": json_schema}).text_schema == schema
    assert read_request({"input": "hi", "text": {"format": {"type": "json_object"}}}).text_schema == {"type": "object"}


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("input", {}),
        ("input", {"input": [3]}),
        ("tools", {"input": "x", "tools": "ring"}),
        ("tools", {"input": "x", "tools": [{"type": "function"}]}),
        ("tool_choice", {"input": "x", "tool_choice": "ring"}),
        ("previous_response_id", {"input": "x", "previous_response_id": "resp_1"}),
    ],
)
def test_a_wrong_field_is_named(field: str, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_request(body)
    assert caught.value.field == field


def test_a_failed_answer_says_why() -> None:
    out = ResponseBuilder("m")
    [event] = out.fail("it broke")
    assert event["response"]["error"] == {"code": "server_error", "message": "it broke"}
