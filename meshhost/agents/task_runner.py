"""`TaskRunner`: an agent that is asked and answers; and `RunTaskTool`, a tool that asks one.

A task runner registers itself in the room (`room.agents.register_agent`), again after each reconnect. The room client calls
`_on_ask` for each ask that arrives, on its read loop; that starts a task, and so asks run side by side, at most
`max_concurrent` of them past the semaphore. The room client cancels the task when nobody waits for its answer any more.

Invariant: every ask whose asker still waits is answered, also when the task fails, is cancelled from inside, or when the
agent stops. Only an ask whose asker has left ends without an answer.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, ValidationError

from meshhost.agents.base import SingleRoomAgent
from meshhost.agents.context import AgentCallContext, AgentChatContext
from meshhost.agents.room_tools import toolkit_of_room
from meshhost.errors import ConnectionLostError, InvalidRequestError, NotFoundError, RoomError, ToolError
from meshhost.guard import EscapedError, call, guarding
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import Header, JsonResponse, Response, TextResponse
from meshhost.room.participants import Participant
from meshhost.room.requirements import RequiredToolkit, Requirement
from meshhost.room.services.agents import AgentDescription, ToolDescription, ToolkitDescription
from meshhost.tasks import TaskOwner
from meshhost.tools.schema import CompiledSchema, Schema, check_schema
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["RunTaskTool", "TaskRunner", "make_run_task_tool"]

logger = logging.getLogger(__name__)

MAX_CONCURRENT = 64

# A JSON schema, or a pydantic model: with a model, `ask` gets the arguments as an instance of it.
SchemaOrModel: TypeAlias = Schema | type[BaseModel]

# Of an agent that is asked without arguments.
NOTHING_SCHEMA: Schema = {"type": "object", "additionalProperties": False, "required": [], "properties": {}}


class TaskRunner(SingleRoomAgent):
    """Answers asks: override `ask`. Up to `max_concurrent` asks run side by side, further ones wait.

    `input_schema` and `output_schema` are JSON schemas or pydantic models; arguments and answers are checked against them,
    and the asker is told which field is wrong. Without an `input_schema` it takes no arguments. Every ask gets `toolkits` and
    the toolkits of the room that `requires` names; with `supports_tools` the asker may add some. When nobody waits for an ask
    any more, it is cancelled. If several agents of one name are registered, the newest is asked.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        supports_tools: bool | None = None,
        input_schema: SchemaOrModel | None = None,
        output_schema: SchemaOrModel | None = None,
        labels: Sequence[str] | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        max_concurrent: int = MAX_CONCURRENT,
    ) -> None:
        super().__init__(name=name, title=title, description=description, requires=requires, labels=labels)
        input_form = NOTHING_SCHEMA if input_schema is None else input_schema
        self._input = _Form(input_form, f"input_schema of agent {self.name!r}")
        self._output = None if output_schema is None else _Form(output_schema, f"output_schema of agent {self.name!r}")
        self._supports_tools = bool(supports_tools)
        self._toolkits = list(toolkits or ())
        self._slots = asyncio.Semaphore(max_concurrent)
        self._asks = TaskOwner(f"task runner {name}")
        # When each unanswered ask began (monotonic seconds), by the id() of its message; the oldest is first.
        self._began: dict[int, float] = {}
        self._registration: str | None = None
        self._is_ending = False

    @property
    def activity(self) -> str | None:
        """The asks in progress, as a number and the age of the oldest."""
        if not self._began:
            return None
        seconds = time.monotonic() - next(iter(self._began.values()))
        if len(self._began) == 1:
            return f"a task for {seconds:.0f} s"
        return f"{len(self._began)} tasks, the oldest for {seconds:.0f} s"

    @property
    def supports_tools(self) -> bool:
        """Whether the asker may add toolkits."""
        return self._supports_tools

    @property
    def input_schema(self) -> Schema:
        """The JSON schema of arguments."""
        return self._input.json_schema

    @property
    def output_schema(self) -> Schema | None:
        """The JSON schema of answers, or None: any JSON value."""
        return None if self._output is None else self._output.json_schema

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        """Do the task and return its answer: a JSON value or a pydantic model. A plain `def` runs in a thread.

        The asker sees the text of a RoomError; of any other error it only learns that the agent failed.
        """
        raise NotImplementedError

    async def init_chat_context(self) -> AgentChatContext:
        """Return an empty conversation for one ask."""
        return AgentChatContext()

    async def validate_arguments(self, arguments: Any) -> Any:
        """Return the arguments as `ask` gets them. Raises InvalidRequestError that names the wrong field."""
        return self._input.parse(arguments)

    async def validate_response(self, response: Any) -> Any:
        """Return the answer as JSON. Raises ToolError, since a wrong answer is not the asker's fault."""
        value = _dumped(response)
        if self._output is None:
            return value
        try:
            return _dumped(self._output.parse(value))
        except InvalidRequestError as error:
            raise ToolError(f"agent {self.name!r} gave an answer that breaks its own schema: {error}") from None

    async def start(self, *, room: "RoomClient") -> None:
        """Register, and answer asks from now on, also after a reconnect."""
        await super().start(room=room)
        self._is_ending = False
        try:
            await self._register()
        except BaseException:
            await super().stop()
            raise
        room.add_restorer(self._register)

    async def drain(self) -> None:
        """Accept no further ask, and return when those in progress are answered. The caller must set a timeout."""
        await self._unregister()
        await self._asks.wait()

    async def stop(self) -> None:
        """Cancel the asks in progress and tell their askers that the agent was stopped. Idempotent."""
        if self._room is None:
            return
        await self._unregister()
        if await self._asks.stop(timeout=self.stop_seconds):
            logger.warning("asks did not end in time", extra={"agent": self.name})
        await super().stop()

    def to_json(self) -> dict[str, Any]:
        """Return the wire form of the registration."""
        return self._registered_as().to_json()

    def _registered_as(self) -> AgentDescription:
        return AgentDescription(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.input_schema,
            output_schema=self.output_schema,
            requires=self.requires,
            supports_tools=self.supports_tools,
            labels=self.labels,
        )

    async def _register(self) -> None:
        self._registration = await self.room.agents.register_agent(self._registered_as(), self._on_ask)

    async def _unregister(self) -> None:
        self._is_ending = True
        registration, self._registration = self._registration, None
        if registration is None or self._room is None:
            return
        self._room.remove_restorer(self._register)
        if self._room.is_open:
            # When the connection is lost, the registration has ended with it.
            with contextlib.suppress(ConnectionLostError):
                await self._room.agents.unregister_agent(registration)

    def _on_ask(self, message: MessageReceived) -> asyncio.Task[None]:
        return self._asks.spawn(self._answer(self.room, message), name="ask")

    async def _answer(self, room: "RoomClient", message: MessageReceived) -> None:
        self._began[id(message)] = time.monotonic()
        try:
            await self._try_to_answer(room, message)
        finally:
            del self._began[id(message)]

    async def _try_to_answer(self, room: "RoomClient", message: MessageReceived) -> None:
        try:
            async with self._slots:
                with guarding():
                    answer = await self._run(room, message)
        except RoomError as error:
            answer = error
        except asyncio.CancelledError:
            if self._is_ending and room.is_open:  # the agent is stopping: the asker still waits
                await room.agents.answer_ask(message, ToolError(f"agent {self.name!r} was stopped"))
            raise
        except Exception as error:
            # The task is the user's code: its traceback belongs in our log and must not reach another participant.
            logger.exception("task failed", extra={"agent": self.name})
            is_cancellation = isinstance(error, EscapedError) and error.is_cancellation
            answer = ToolError(
                f"agent {self.name!r} {'was stopped' if is_cancellation else 'failed; its log says why'}"
            )
        await room.agents.answer_ask(message, answer)

    async def _run(self, room: "RoomClient", message: MessageReceived) -> Any:
        header = message.header
        arguments = await self.validate_arguments(header.get("arguments"))
        caller = room.participant(header.get("caller_id"))
        on_behalf_of = room.participant(header.get("on_behalf_of_id"))
        context = AgentCallContext(
            chat=await self.init_chat_context(),
            room=room,
            toolkits=await self._toolkits_for(room, header, caller, on_behalf_of),
            caller=caller,
            on_behalf_of=on_behalf_of,
        )
        return await self.validate_response(await call(self.ask, context=context, arguments=arguments))

    async def _toolkits_for(
        self, room: "RoomClient", header: Header, caller: Participant | None, on_behalf_of: Participant | None
    ) -> list[Toolkit]:
        # As the asker sees them: a private toolkit of the asker hides a public one of the same name.
        context = ToolContext(room=room, caller=caller or room.local_participant, on_behalf_of=on_behalf_of)
        toolkits = [*self._toolkits, *await self.get_required_toolkits(context)]
        return toolkits + _toolkits_of_ask(header.get("toolkits"), caller) if self.supports_tools else toolkits


class RunTaskTool(Tool):
    """A tool that asks an agent of the room and returns its answer."""

    def __init__(
        self,
        *,
        name: str,
        agent_name: str,
        input_schema: Schema,
        rules: list[str] | None = None,
        thumbnail_url: str | None = None,
        title: str | None = None,
        description: str | None = None,
    ) -> None:
        super().__init__(
            name=name,
            input_schema=input_schema,
            title=title,
            description=description,
            rules=rules,
            thumbnail_url=thumbnail_url,
        )
        self._agent_name = agent_name

    async def execute(self, context: ToolContext, **kwargs: Any) -> Response:
        """Ask the agent and return its answer: a text as TextResponse, else JSON. Raises RoomError with the agent's error."""
        answer = await context.room.agents.ask(
            agent=self._agent_name, arguments=kwargs, on_behalf_of=context.on_behalf_of or context.caller
        )
        return TextResponse(text=answer) if isinstance(answer, str) else JsonResponse(json=answer)


async def make_run_task_tool(context: ToolContext, toolkit: RequiredToolkit) -> Toolkit:
    """Return a toolkit with a tool for each agent that `toolkit.tools` names. Raises NotFoundError."""
    agents = {agent.name: agent for agent in await context.room.agents.list_agents()}
    tools = []
    for name in toolkit.tools or agents:
        agent = agents.get(name)
        if agent is None:
            raise NotFoundError(f"no agent {name!r} in this room")
        tools.append(
            RunTaskTool(
                name=f"run_{name}",
                agent_name=name,
                input_schema=agent.input_schema or NOTHING_SCHEMA,
                title=agent.title,
                description=agent.description,
            )
        )
    return Toolkit(name="agents", tools=tools)


class _Form:
    """What arguments or answers must look like: a JSON schema, compiled at its first use, or a pydantic model."""

    __slots__ = ("_compiled", "_schema")

    def __init__(self, schema: SchemaOrModel, what: str) -> None:
        self._schema = schema
        self._compiled: CompiledSchema | None = None
        if isinstance(schema, dict):  # pydantic has checked a model when its class was made
            try:
                check_schema(schema)
            except InvalidRequestError as error:
                raise InvalidRequestError(what, str(error)) from None

    @property
    def json_schema(self) -> Schema:
        return self._schema if isinstance(self._schema, dict) else self._schema.model_json_schema()

    def parse(self, value: Any) -> Any:
        """Return the value, or an instance of the model. Raises InvalidRequestError that names the wrong field."""
        if isinstance(self._schema, dict):
            if self._compiled is None:
                self._compiled = CompiledSchema(self._schema)
            self._compiled.check(value)
            return value
        try:
            return self._schema.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            raise InvalidRequestError(".".join(map(str, first["loc"])), first["msg"]) from None


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value


def _toolkits_of_ask(toolkits: Any, caller: Participant | None) -> list[Toolkit]:
    """Return the toolkits that the asker added (room-protocol §11.5: lists, not objects), invoked on its behalf."""
    try:
        descriptions = [
            ToolkitDescription(
                name=toolkit["name"],
                title=toolkit.get("title") or toolkit["name"],
                description=toolkit.get("description") or "",
                tools=[
                    ToolDescription(
                        name=tool["name"],
                        title=tool.get("title") or tool["name"],
                        description=tool.get("description") or "",
                        input_schema=tool.get("input_schema"),
                        defs=tool.get("defs"),
                    )
                    for tool in toolkit["tools"]
                ],
            )
            for toolkit in toolkits or ()
        ]
    except (KeyError, TypeError, AttributeError):
        raise InvalidRequestError("toolkits", "expected a list of toolkits with their tools") from None
    participant_id = None if caller is None else caller.id
    return [toolkit_of_room(description, description.tools, participant_id) for description in descriptions]
