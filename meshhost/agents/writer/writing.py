"""`Writer`: a task runner that writes into a document of the room; `SingleShotWriter` lets a model write all of it at once.

An ask names the `path` of a document. It is opened, created first unless `create` is false, handed to `write`, and closed when
the room server has taken what was written: an asker that has its answer finds the document written."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.context import AgentCallContext, AgentChatContext
from meshhost.agents.task_runner import NOTHING_SCHEMA, SchemaOrModel, TaskRunner
from meshhost.documents.document import MeshDocument
from meshhost.errors import InvalidRequestError
from meshhost.room.requirements import Requirement
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["SingleShotWriter", "Writer", "WriterContext"]

_WRITE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["prompt", "path"],
    "properties": {
        "prompt": {"type": "string", "description": "what to write"},
        "path": {"type": "string", "description": "the document to write into, for example notes.document"},
    },
}


class WriterContext:
    """One ask of a Writer: the room, the open document and its path, and the circumstances of the ask."""

    def __init__(self, room: "RoomClient", document: MeshDocument, call_context: AgentCallContext, path: str) -> None:
        self._room = room
        self._document = document
        self._call_context = call_context
        self._path = path

    @property
    def room(self) -> "RoomClient":
        """The room."""
        return self._room

    @property
    def document(self) -> MeshDocument:
        """The open document: what is changed in it is stored and shown to others."""
        return self._document

    @property
    def path(self) -> str:
        """The path of the document."""
        return self._path

    @property
    def call_context(self) -> AgentCallContext:
        """The conversation, the toolkits and the asker."""
        return self._call_context


class Writer(TaskRunner):
    """Override `write`. The `input_schema` has a property `path`; without `create` the document must be there already.

    Raises InvalidRequestError for a schema without `path`.
    """

    def __init__(
        self,
        name: str | None = None,
        input_schema: SchemaOrModel | None = None,
        output_schema: SchemaOrModel | None = None,
        create: bool = True,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        supports_tools: bool | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name=name,
            title=title,
            description=description,
            requires=requires,
            supports_tools=supports_tools,
            input_schema=_WRITE_SCHEMA if input_schema is None else input_schema,
            output_schema=output_schema,
            labels=labels,
            toolkits=toolkits,
        )
        self._create = create
        if "path" not in self.input_schema.get("properties", {}):
            raise InvalidRequestError(f"input_schema of agent {self.name!r}", "expected a property `path`")

    def pop_path(self, arguments: dict[str, Any]) -> str:
        """Take the path out of the arguments and return it."""
        return str(arguments.pop("path"))

    async def write(self, writer_context: WriterContext, arguments: Any) -> Any:
        """Write into the document, and return the answer to the ask."""
        raise NotImplementedError

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        """Open the document, let `write` change it, and close it when everything is stored."""
        path = str(arguments["path"] if isinstance(arguments, dict) else arguments.path)
        sync = context.room.sync
        document = await sync.open(path=path, create=self._create)
        try:
            answer = await self.write(WriterContext(context.room, document, context, path), arguments)
            await sync.flush(path)
            return answer
        finally:
            await sync.close(path=path)


class SingleShotWriter(Writer):
    """Asked with a `prompt` and a `path`, it lets the model write the whole content, in the form of the document's schema."""

    def __init__(
        self,
        name: str | None = None,
        llm_adapter: LLMAdapter[Any] | None = None,
        tool_adapter: ToolResponseAdapter | None = None,
        description: str | None = None,
        title: str | None = None,
        rules: Sequence[str] | None = None,
        requires: Sequence[Requirement] | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        supports_tools: bool | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        if llm_adapter is None:
            raise InvalidRequestError("llm_adapter", "expected the model that writes")
        super().__init__(
            name=name,
            title=title,
            description=description,
            requires=requires,
            supports_tools=supports_tools,
            output_schema=NOTHING_SCHEMA,
            toolkits=toolkits,
            labels=labels,
        )
        self._llm_adapter = llm_adapter
        self._tool_adapter = tool_adapter
        self._rules = list(rules or ())

    async def init_chat_context(self) -> AgentChatContext:
        """Return a conversation in the model adapter's form, with the rules."""
        context = self._llm_adapter.create_chat_context()
        context.append_rules(self._rules)
        return context

    async def write(self, writer_context: WriterContext, arguments: Any) -> dict[str, Any]:
        """Append what the model wrote to the document. Raises LLMError when it fails; then nothing is written."""
        context, document = writer_context.call_context, writer_context.document
        context.chat.append_user_message(arguments["prompt"])
        written = await self._llm_adapter.next(
            context=context.chat,
            room=writer_context.room,
            toolkits=context.toolkits,
            tool_adapter=self._tool_adapter,
            output_schema=document.schema.to_json(),
            on_behalf_of=context.on_behalf_of or context.caller,
        )
        _write(document, written)
        return {}


def _write(document: MeshDocument, written: dict[str, Any]) -> None:
    """Append the content, in the form of the document's schema. A document's root has no attributes to store."""
    root = document.schema.root
    if root.children is not None:
        for child in written[root.tag_name][root.children.name]:
            document.root.append_json(child)
