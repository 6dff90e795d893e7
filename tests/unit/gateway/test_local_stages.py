"""The stages in which a small model is led to a tool call."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from meshhost.errors import LLMError
from meshhost.gateway.local.stages import answer, mentioned_files, shortlist, subject
from meshhost.gateway.responses import AskedResponse, FunctionTool
from meshhost.llm.builder import ResponseBuilder

STRING = {"type": "string"}


def tool(name: str, description: str, **properties: Any) -> FunctionTool:
    return FunctionTool(name, description, {"type": "object", "required": list(properties), "properties": properties})


OVERWRITE = {"type": "boolean", "description": "true to replace a file that is there already"}
TOOLS = (
    tool("read_file", "Returns the content of a text file in the room", path=STRING),
    tool("list_files_in_room", "Lists the files and folders in one folder of the room", path=STRING),
    tool("save_file_from_url", "Downloads a file from a public web address and saves it", url=STRING, path=STRING),
    tool("delete_file", "Deletes a file from the room for good", path=STRING),
    tool("write_file", "Saves a text as a file in the room", path=STRING, text=STRING, overwrite=OVERWRITE),
    tool("set_colour", "Paints the lamp", colour={"enum": ["red", "blue"]}, reason=STRING),
)


class FakeModel:
    """Takes the first value a schema allows, says `text` otherwise; records what it was asked."""

    def __init__(self, text: str = "  Roses\n are red. ") -> None:
        self.text = text
        self.asked: list[tuple[str, int, Mapping[str, Any] | None]] = []

    async def generate(
        self, system: str, prompt: str, *, max_tokens: int, schema: Mapping[str, Any] | None = None
    ) -> AsyncIterator[str]:
        self.asked.append((prompt, max_tokens, schema))
        value = self.text if schema is None else json.dumps(_first(schema))
        for character in value:
            yield character


def _first(schema: Mapping[str, Any]) -> Any:
    return (
        schema["enum"][0] if "enum" in schema else schema.get("const", schema.get("type") == "boolean" or "some text")
    )


def asked(instructions: str, **fields: Any) -> AskedResponse:
    return AskedResponse(model="m", instructions=instructions, **{"user": "", "tools": TOOLS, **fields})


async def run(request: AskedResponse, model: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    out = ResponseBuilder("m")
    events = [*out.begin(), *[event async for event in answer(request, model, out)], *out.complete()]
    return out.body["output"][0], events


@pytest.mark.parametrize(
    ("request_text", "name"),
    [
        ("save a poem about ai to poem.txt", "write_file"),
        ("please read notes.txt", "read_file"),
        ("remove the file x.txt", "delete_file"),
        ("list the files in docs", "list_files_in_room"),
        ("save https://example.org/a.png to a.png", "save_file_from_url"),
        ("paint it in a nice colour", "set_colour"),
    ],
)
def test_the_tool_that_shares_the_words_leads_the_shortlist(request_text: str, name: str) -> None:
    assert shortlist(asked(request_text))[0].name == name


def test_the_tool_choice_of_the_caller_counts() -> None:
    assert shortlist(asked("save it to a.txt", tool_choice="none")) == []
    assert [found.name for found in shortlist(asked("hello", tool_choice="delete_file"))] == ["delete_file"]
    assert shortlist(asked("hello")) == []
    assert len(shortlist(asked("hello", tool_choice="required"))) == 3


def test_files_are_found_but_not_in_addresses() -> None:
    text = "Save https://x.org/a.html as docs/a-b.md, then poem.txt (and docs/a-b.md). Version 1.5 of v2."
    assert mentioned_files(text) == ["docs/a-b.md", "poem.txt"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("save a poem about ai to poem.txt", "a poem about ai"),
        ("Be brief.\nWrite a short poem about the sea and save it as sea.txt\ngo", "a short poem about the sea"),
        ('store the story of a dog in a file named "dog.md"', "the story of a dog"),
        ("read notes.txt", "read notes.txt"),
        ("hello", "hello"),
    ],
)
def test_the_subject_is_what_is_to_be_written(text: str, what: str) -> None:
    assert subject(text) == what


async def test_a_poem_is_written_into_the_file_that_was_named() -> None:
    model = FakeModel()
    item, events = await run(asked("save a poem about ai to poem.txt"), model)

    assert (item["type"], item["name"], item["status"]) == ("function_call", "write_file", "completed")
    assert json.loads(item["arguments"]) == {"path": "poem.txt", "text": "Roses\n are red.", "overwrite": False}
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(deltas) == item["arguments"]
    assert any("Write a short poem about ai." in prompt for prompt, _, schema in model.asked if schema is None)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_a_flag_is_the_models_when_the_request_speaks_of_it() -> None:
    item, _ = await run(asked("save a poem to poem.txt and replace it"), FakeModel())
    assert json.loads(item["arguments"])["overwrite"] is True


async def test_other_arguments_keep_their_schema_and_texts_are_bounded() -> None:
    model = FakeModel()
    item, _ = await run(asked("paint the lamp"), model)

    assert json.loads(item["arguments"]) == {"colour": "red", "reason": "some text"}
    assert {"type": "string", "maxLength": 120} in [schema for _, _, schema in model.asked]


async def test_paths_and_addresses_come_from_the_request() -> None:
    item, _ = await run(asked("save https://x.org/a.png to a.png", tool_choice="save_file_from_url"), FakeModel())
    assert json.loads(item["arguments"]) == {"url": "https://x.org/a.png", "path": "a.png"}

    item, _ = await run(asked("list the files in docs/old"), FakeModel())
    assert json.loads(item["arguments"]) == {"path": "docs/old"}

    item, _ = await run(asked("list the files in the room"), FakeModel())
    assert json.loads(item["arguments"]) == {"path": ""}


async def test_a_tool_without_arguments_is_called_with_none() -> None:
    item, _ = await run(asked("ring", tools=(FunctionTool("ring", "Rings", {}),)), FakeModel())
    assert item["arguments"] == "{}"


async def test_after_a_result_comes_a_short_text_and_no_call() -> None:
    model = FakeModel("Done. ")
    item, _ = await run(asked("save a poem to poem.txt", results=("the file was saved",)), model)

    assert item["content"][0]["text"] == "Done."
    [(prompt, tokens, _)] = model.asked
    assert "the file was saved" in prompt
    assert tokens == 40


async def test_without_a_fitting_tool_the_model_answers_in_words_within_the_callers_limit() -> None:
    model = FakeModel("Hi")
    item, _ = await run(asked("Be kind.", user="hello", max_output_tokens=5), model)

    assert item["content"][0]["text"] == "Hi"
    assert model.asked == [("hello", 5, None)]


async def test_a_value_the_model_did_not_finish_is_an_error() -> None:
    class Cut(FakeModel):
        async def generate(self, *_: Any, **__: Any) -> AsyncIterator[str]:
            yield '"wri'

    with pytest.raises(LLMError, match="choice of a tool"):
        await run(asked("save a poem to poem.txt"), Cut())
