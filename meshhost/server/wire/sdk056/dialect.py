"""Recognises clients of SDK 0.30 to 0.56, and makes their translators."""

from http import HTTPStatus

from meshhost.protocol.connection import RESUME_HEADER
from meshhost.server.core.requests import Operations
from meshhost.server.wire.dialect import Handshake
from meshhost.server.wire.sdk056.asking import Ask
from meshhost.server.wire.sdk056.streams import BuiltInStreams
from meshhost.server.wire.sdk056.translator import Translator056
from meshhost.server.wire.sdk06 import SDK_06

__all__ = ["SDK_056", "Sdk056"]


class Sdk056:
    """See `Dialect`.

    The Python client shows its version and has the token in a header; that of SDK 0.6 has it in the query. The client in
    JavaScript shows no version. Ours says that it can resume.
    """

    name = "sdk-0.56"

    def matches(self, handshake: Handshake) -> bool:
        """See Dialect."""
        if RESUME_HEADER in handshake.headers or "resume" in handshake.query:
            return False
        return _is_python(handshake) or ("token" in handshake.query and "v" not in handshake.query)

    def resume_token(self, handshake: Handshake) -> str | None:
        """See Dialect. These clients come back as new participants."""
        return None

    def refusal_status(self, status: int) -> int:
        """See Dialect. A client that gets 401 tries again for ever, one that gets 403 ends."""
        return HTTPStatus.FORBIDDEN if status == HTTPStatus.UNAUTHORIZED else status

    def operations(self, shared: Operations) -> Operations:
        """See Dialect."""
        ask = Ask(shared)
        return {**shared, **BuiltInStreams(ask, other_tools="agent.tool_call_request_chunk").operations()}

    def translator(self, handshake: Handshake) -> Translator056:
        """See Dialect."""
        return Translator056(SDK_06.translator(handshake), is_python=_is_python(handshake))


def _is_python(handshake: Handshake) -> bool:
    return "Authorization" in handshake.headers and "v" in handshake.query


SDK_056 = Sdk056()
