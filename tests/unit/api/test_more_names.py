"""Names of MeshAgent that stand on parts of ours: what they do, and what the ones say that stay out."""

import json
from typing import Any

import pytest

from meshhost.api import messaging, schema_util
from meshhost.elsewhere import names_elsewhere
from meshhost.errors import RoomError
from meshhost.room.services.answers import answer_of


def test_contents_and_chunks_are_the_bodies_of_before() -> None:
    assert messaging.JsonContent is messaging.JsonChunk is messaging.JsonRequest is messaging.JsonResponse
    assert messaging.TextContent(text="a") == messaging.TextResponse(text="a")


def test_schemas_of_arguments_are_objects_that_forbid_more() -> None:
    prompt = schema_util.prompt_schema("a question")
    merged = schema_util.merge(schema=prompt, additional_properties={"path": {"type": "string"}})
    assert (prompt["required"], merged["required"]) == (["prompt"], ["prompt", "path"])
    assert schema_util.no_arguments_schema() == {
        "type": "object",
        "required": [],
        "additionalProperties": False,
        "properties": {},
    }
    assert schema_util.validation_schema("a verdict")["required"] == ["is_valid", "message"]
    assert schema_util.merge(schema={"type": "object"}, additional_properties={})["required"] == []


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        ("meshhost.computers", "Operator", "meshhost.mcp"),
        ("meshhost.computers", "BrowserbaseBrowser", "meshhost.mcp"),
        ("meshhost.commoncrawl", "import_domain_from_commoncrawl", "SiteIndexer"),
        ("meshhost.openai.tools.responses_adapter", "LocalShellTool", "a tool that calls your own service"),
        ("meshhost.agents", "run_external_channel", "ChatBot"),
        ("meshhost.api.client", "ServiceAccount", "token"),
        ("meshhost.agents.chat", "ChatBotThreadLocalShellTool", "a tool that calls your own service"),
        ("meshhost.tools.storage", "StorageToolLocalMount", "StorageToolRoomMount"),
    ],
)
def test_what_stays_out_is_refused_at_the_import_by_name(module: str, name: str, instead: str) -> None:
    with pytest.raises(ImportError, match=rf"meshhost does not have {module}\.{name}: .*{instead}"):
        exec(f"from {module} import {name}", {})


def test_names_of_a_higher_layer_are_found_where_meshagent_has_them() -> None:
    from meshhost.agents import RemoteTaskRunnerServer
    from meshhost.agents.chat import ChatBotThreadOpenAIImageGenerationTool
    from meshhost.agents.hosting import RemoteAgentServer
    from meshhost.tools import RemoteToolkitServer, ToolkitBuilder
    from meshhost.tools.storage import StorageToolkitBuilder

    assert issubclass(RemoteTaskRunnerServer, RemoteAgentServer)
    assert issubclass(StorageToolkitBuilder, ToolkitBuilder)
    assert RemoteToolkitServer.__module__ == "meshhost.hosting.single"
    assert ChatBotThreadOpenAIImageGenerationTool.__module__ == "meshhost.openai.tools.thread_images"


def test_what_nobody_knows_is_an_attribute_error() -> None:
    find = names_elsewhere("a.module", {}, {"*": "nothing"})
    with pytest.raises(AttributeError):
        find("__path__")
    with pytest.raises(ImportError):
        find("anything")
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        names_elsewhere("a.module", {}, {})("x")


@pytest.mark.parametrize("value", [{"a": [1]}, [1, "b"], "text"])
def test_an_answer_is_read_as_a_value_and_as_a_body(value: Any) -> None:
    answer = answer_of(value)
    assert answer == value
    assert answer.json == value
    assert json.dumps(answer) == json.dumps(value)


def test_other_answers_are_plain() -> None:
    assert [answer_of(value) for value in (None, 1, True)] == [None, 1, True]


async def test_what_only_the_hosted_service_has_is_refused_before_it_is_asked() -> None:
    from meshhost.api import Meshagent

    async with Meshagent(base_url="http://127.0.0.1:1", token="t") as client:
        with pytest.raises(RoomError, match="get_balance: meshhost does not have billing"):
            await client.get_balance("p")
        with pytest.raises(AttributeError):
            client.nothing  # noqa: B018
