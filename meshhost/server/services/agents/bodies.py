"""The shapes of the requests of the agents service (room-protocol §11).

Registrations keep members that the server does not know, because other clients may read them; but what is listed must be
readable for every client, so the members that clients do read have fixed types.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from meshhost.identity.grants import ApiScope
from meshhost.server.core.requests import Body

__all__ = [
    "MAX_NAME",
    "Abandon",
    "Agent",
    "Ask",
    "AskAnswer",
    "CallAgent",
    "InvokeTool",
    "ListAgents",
    "ListCallable",
    "ListToolkits",
    "Registration",
    "RequestChunk",
    "ResponseChunk",
    "ToolAnswer",
    "ToolProgress",
    "Toolkit",
    "Unregister",
]

MAX_NAME = 128


class Registration(Body):
    """What toolkits and agents have in common."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(min_length=1, max_length=MAX_NAME)


class _Tool(Body):
    model_config = ConfigDict(extra="allow", frozen=True)
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    thumbnail_url: str | None = None
    defs: dict[str, dict[str, Any] | bool] | None = None


class Toolkit(Registration):
    """`agent.register_toolkit`."""

    title: str | None = None
    description: str | None = None
    thumbnail_url: str | None = None
    public: bool = False
    tools: dict[str, _Tool]


def _check_requirement(requirement: dict[str, Any]) -> dict[str, Any]:
    name = requirement.get("toolkit", requirement.get("schema"))
    tools = requirement.get("tools")
    if not isinstance(name, str) or not (tools is None or isinstance(tools, list)):
        raise ValueError("expected a toolkit (with a list of tools, or null) or a schema")
    return requirement if "schema" in requirement else {**requirement, "tools": tools}


_Requirement = Annotated[dict[str, Any], AfterValidator(_check_requirement)]


class Agent(Registration):
    """`agent.register_agent`."""

    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    requires: list[_Requirement] | None = None
    supports_tools: bool | None = None
    labels: list[str] | None = None


class Unregister(Body):
    """`agent.unregister_toolkit`, `agent.unregister_agent`: `id` is what registering answered."""

    id: str


class ListToolkits(Body):
    """`agent.list_toolkits`: with a participant's id, its private toolkits are listed too."""

    participant_id: str | None = None


class ListCallable(Body):
    """`agent.list_callable`: toolkits, and agents as toolkits; the private ones of a participant too, by its id or name."""

    participant_id: str | None = None
    participant_name: str | None = None


class ListAgents(Body):
    """`agent.list_agents`."""


class InvokeTool(Body):
    """`agent.invoke_tool`. `call` is a key of the caller's choice for `agent.abandon`.

    `content` takes the place of the arguments when these are no JSON object; `stream` is the caller's name of the call in the
    chunks of its contents. Both are for clients with `Capability.CONTENTS`.
    """

    toolkit: str
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    participant_id: str | None = None
    on_behalf_of_id: str | None = None
    caller_context: dict[str, Any] | None = None
    content: dict[str, Any] | None = None
    stream: str | None = Field(default=None, min_length=1, max_length=MAX_NAME)
    call: str | None = Field(default=None, max_length=MAX_NAME)


class ToolAnswer(Body):
    """`agent.tool_call_response`: the members of a response, under the message id of the call."""

    model_config = ConfigDict(extra="allow", frozen=True)


class RequestChunk(Body):
    """`agent.tool_call_request_chunk`: the next chunk of what a call is given, from its caller."""

    stream: str
    # Checked by the stream, which has to end when it is wrong.
    chunk: Any = None


class ResponseChunk(Body):
    """`agent.tool_call_response_chunk`: the next chunk of the answer to a call, from its provider."""

    tool_call_id: str
    chunk: Any = None


class ToolProgress(Body):
    """`agent.tool_call_progress`: how far the call with this message id got, of `total` if that is known."""

    id: int
    progress: float = Field(ge=0, allow_inf_nan=False)
    total: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    message: str | None = Field(default=None, max_length=1000)


class Ask(Body):
    """`agent.ask`. `call` is a key of the caller's choice for `agent.abandon`."""

    agent: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    on_behalf_of_id: str | None = None
    requires: list[_Requirement] | None = None
    call: str | None = Field(default=None, max_length=MAX_NAME)


class AskAnswer(Body):
    """`agent.ask_response`: `answer`, or `error` and perhaps `code`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    task_id: str


class Abandon(Body):
    """`agent.abandon`: the caller no longer waits for the call with this key."""

    call: str


class CallAgent(Body):
    """`agent.call`: call an agent into the room at a URL."""

    name: str = Field(min_length=1, max_length=MAX_NAME)
    url: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    api: ApiScope | None = None
