"""Translates the messages of one connection of SDK 0.56.

A request for a built-in tool becomes the operation that it stands for; the answer is put into the form that the client accepts.
Streams are remembered by the id of their call, so that chunks find them, and events about a document or the log that the
client reads by a stream become chunks of it. All other types pass as the dialect of SDK 0.6 has them: clients of one generation
of JavaScript cannot be told from another by their handshake, and use either.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from meshhost.errors import InvalidRequestError, LimitExceededError, NotFoundError
from meshhost.protocol import contents as bodies
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.json_values import dump_json
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, Header, JsonResponse, Response, TextResponse
from meshhost.server.core.peer import Capability, CloseReason, Event
from meshhost.server.wire.dialect import Translator, Welcome, WireEvent
from meshhost.server.wire.sdk056 import contents, names, streams
from meshhost.server.wire.sdk056.streams import Stream

__all__ = ["MAX_STREAMS", "Translator056"]

MAX_STREAMS = 256
"""Streams that one connection may have open."""

_OPERATIONS = {
    "room.call": "agent.call",
    "room.unregister_toolkit": "agent.unregister_toolkit",
    "room.tool_call_response": "agent.tool_call_response",
    "room.tool_call_response_chunk": "agent.tool_call_response_chunk",
}
_NORMAL_CLOSE = 1000
_JAVASCRIPT = frozenset({Capability.CONTENTS, Capability.FILE_MOVES})
_PYTHON = _JAVASCRIPT | {Capability.TOOL_STREAMS}


class Translator056:
    """See `Translator`. `older` is that of SDK 0.6; `is_python` tells the Python client from the one in JavaScript."""

    def __init__(self, older: Translator, *, is_python: bool) -> None:
        self._older = older
        self._is_python = is_python
        self._is_new = is_python  # a client in JavaScript shows it by its first request
        self._streams: dict[str, Stream] = {}

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See Translator. The toolkits of the client in JavaScript take objects only."""
        if not self._is_new:
            return self._older.capabilities
        return self._older.capabilities | (_PYTHON if self._is_python else _JAVASCRIPT)

    def greeting(self, welcome: Welcome) -> Sequence[WireEvent]:
        """See Translator."""
        return self._older.greeting(welcome)

    # ---- requests -------------------------------------------------------------------------------------------------

    def request(self, message: MessageReceived) -> tuple[str, MessageReceived]:
        """See Translator."""
        if not message.type.startswith("room."):
            return self._older.request(message)
        match message.type:
            case "room.invoke_tool":
                self._is_new = True
                return self._invoke(message)
            case "room.list_toolkits":
                self._is_new = True
                return "agent.list_callable", message
            case "room.register_toolkit":
                self._is_new = True
                return "agent.register_toolkit", _with(message, _registration(message.header))
            case "room.tool_call_request_chunk":
                self._is_new = True
                return streams.ADD, _with(message, message.header | {"stream": self._stream(message.header)})
            case known if (operation := _OPERATIONS.get(known)) is not None:
                return operation, message
            case _:
                return self._older.request(message)

    def _invoke(self, message: MessageReceived) -> tuple[str, MessageReceived]:
        header = message.header
        if not header:  # it could not be read, and the dispatcher has the error
            return "agent.invoke_tool", message
        toolkit, tool, content = _text(header, "toolkit"), _text(header, "tool"), header.get("arguments")
        if toolkit in names.ABSENT:
            raise NotFoundError(f"this room server has no toolkit {toolkit!r}")
        tools = names.TOOLKITS.get(toolkit)
        if tools is None or (toolkit, tool) == names.MESSAGES:
            return self._invoke_of_participant(message, (toolkit, tool), content)
        if bodies.is_open(content):
            kind = names.STREAMED.get((toolkit, tool))
            if kind is None:
                raise InvalidRequestError("arguments", f"tool {tool!r} of toolkit {toolkit!r} takes no stream here")
            return streams.OPEN, _with(message, {"stream": self._open(header.get("tool_call_id"), kind)})
        if (toolkit, tool) in names.STREAMED:
            raise InvalidRequestError("arguments", f"tool {tool!r} of toolkit {toolkit!r} takes a stream: open one")
        operation = tools.get(tool)
        if operation is None:
            raise NotFoundError(f"toolkit {toolkit!r} of this room server has no tool {tool!r}")
        translated, payload = names.rewritten(tool, operation, contents.arguments_of(content), message.payload)
        return operation, _with(message, translated, payload)

    def _invoke_of_participant(
        self, message: MessageReceived, called: tuple[str, str], content: Any
    ) -> tuple[str, MessageReceived]:
        header = dict(message.header)
        # Its chunks will be found by this id: no other stream of the connection may have it.
        header["stream"] = call = header.pop("tool_call_id", None)
        if isinstance(call, str) and call in self._streams and not self._streams[call].is_ended:
            raise InvalidRequestError("tool_call_id", "expected one that names no other call")
        if bodies.is_open(content):
            if call is None:
                raise InvalidRequestError("tool_call_id", "expected a text: the chunks of a stream name it")
        elif called == names.MESSAGES:
            raise InvalidRequestError("arguments", "tool 'stream' of toolkit 'messaging' takes a stream: open one")
        if called == names.MESSAGES:
            return "messaging.stream", _with(message, header)
        if bodies.is_object(content):
            return "agent.invoke_tool", _with(message, header | {"arguments": contents.arguments_of(content)})
        return "agent.invoke_tool", _with(message, header | {"arguments": {}, "content": content})

    def _open(self, call: Any, kind: str) -> Stream:
        if not isinstance(call, str) or not 0 < len(call) <= 128:
            raise InvalidRequestError("tool_call_id", "expected a text of at most 128 characters")
        # One that has no peer was refused by the dispatcher, for the tenant's rate.
        self._streams = {
            name: each for name, each in self._streams.items() if each.peer is not None and not each.is_ended
        }
        if call in self._streams:
            raise InvalidRequestError("tool_call_id", "expected one that names no other call")
        if len(self._streams) >= MAX_STREAMS:
            raise LimitExceededError(f"over {MAX_STREAMS} streams are open: close some")
        stream = self._streams[call] = Stream(call, kind)
        return stream

    def _stream(self, header: Header) -> Stream | None:
        call = header.get("tool_call_id")
        stream = self._streams.get(call) if isinstance(call, str) else None
        return None if stream is None or stream.peer is None else stream

    # ---- answers and events ---------------------------------------------------------------------------------------

    def answer(self, operation: str, response: Response, extra: Header | None) -> tuple[Response, Header | None]:
        """See Translator."""
        if isinstance(response, ErrorResponse):
            return response, None
        if operation == "sync.open":
            self._keep_schema(response, extra or {})
            return EmptyResponse(), None
        if operation in names.EMPTY_ANSWERS:
            return EmptyResponse(), extra
        if operation == "queues.receive" and isinstance(response, TextResponse) and not self._is_python:
            return JsonResponse(json=response.text), extra  # it takes no text, and the message would be lost
        return response, extra

    def _keep_schema(self, response: Response, extra: Header) -> None:
        stream = self._document(extra.get("path"))
        if stream is not None and isinstance(response, JsonResponse):
            stream.schema = response.json["schema"]

    def event(self, event: Event) -> WireEvent:
        """See Translator."""
        if event.name in (contents.CHUNK, "agent.tool_call_response_chunk"):
            return contents.CHUNK, event.body, event.payload
        if event.name == "sync.update" and (stream := self._document(event.body.get("path"))) is not None:
            return self.event(_of_document(stream, event))
        if event.name == "developer.log" and (open_logs := self._logs()):
            content, data = bodies.binary(type=event.body.get("type")), dump_json(event.body.get("data")).encode()
            for stream in open_logs[1:]:
                if stream.peer is not None:
                    stream.peer.tell(contents.chunk(stream.call, content, data))
            return self.event(contents.chunk(open_logs[0].call, content, data))
        if event.name == "agent.tool_call" and self._is_new:
            return _tool_call(event)
        if event.name == "agent.tool_call_request_chunk":
            header = dict(event.body)
            return f"room.tool_call_request_chunk.{header.pop('toolkit')}", header, event.payload
        return self._older.event(event)

    def _document(self, path: Any) -> Stream | None:
        return next((each for each in self._streams.values() if each.path == path and _is_open(each, "document")), None)

    def _logs(self) -> list[Stream]:
        return [each for each in self._streams.values() if _is_open(each, "logs")]

    def close_code(self, reason: CloseReason) -> int | None:
        """See Translator.

        The Python client takes any close frame as final, and the one in JavaScript only 1000. A client that may come back is
        left without a close frame.
        """
        if not self._is_new:
            return self._older.close_code(reason)
        if reason in (CloseReason.SERVER_STOPPING, CloseReason.TOO_SLOW):
            return None
        return self._older.close_code(reason) if self._is_python else _NORMAL_CLOSE


def _is_open(stream: Stream, kind: str) -> bool:
    return stream.kind == kind and not stream.is_ended


def _of_document(stream: Stream, event: Event) -> Event:
    if stream.schema is None:
        return contents.chunk(stream.call, bodies.binary(kind="sync", path=stream.path), event.payload)
    schema, stream.schema = stream.schema, None
    content = bodies.binary(kind="state", path=stream.path, schema=schema)
    return contents.chunk(stream.call, content, event.payload)


def _tool_call(event: Event) -> WireEvent:
    header = dict(event.body)
    toolkit = header.pop("toolkit")
    header.pop("caller_context", None)
    if header.get("on_behalf_of_id") is None:
        header.pop("on_behalf_of_id", None)
    content = header.pop("content", None) or bodies.json_content(header["arguments"])
    header |= {"arguments": content, "tool_call_id": header.get("tool_call_id") or uuid.uuid4().hex}
    return f"room.tool_call.{toolkit}", header, event.payload


def _registration(header: Header) -> Header:
    """A toolkit whose tools have the members that other clients read."""
    tools = header.get("tools")
    if not isinstance(tools, dict):
        return header
    return header | {"tools": {name: _tool(tool) for name, tool in tools.items()}}


def _tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("input_schema") is not None:
        return tool
    spec = tool.get("input_spec")
    schema = spec.get("schema") if isinstance(spec, dict) else None
    return tool if schema is None else tool | {"input_schema": schema}


def _text(header: Header, member: str) -> str:
    value = header.get(member)
    if not isinstance(value, str):
        raise InvalidRequestError(member, "expected a text")
    return value


def _with(message: MessageReceived, header: Header, payload: bytes | None = None) -> MessageReceived:
    body = message.payload if payload is None else payload
    return MessageReceived(message.id, message.type, header, body, message.trace)
