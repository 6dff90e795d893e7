"""The spans of requests to the model gateway that belong to a recorded trace, as their headers say.

Anybody in a room may send such headers: what is kept of it is bounded by the recorder and the store, and a request without them
costs a look.
"""

import time
from collections.abc import Callable

from aiohttp import web

from meshhost.gateway.provider import Caller
from meshhost.gateway.tokens import Tokens
from meshhost.server.traces.recorder import TraceRecorder
from meshhost.traces.context import TRACESTATE, context_of, is_marked, new_span_id
from meshhost.traces.span import MAX_TEXT, Span, Value, bounded

__all__ = ["GatewayTraces"]


class GatewayTraces:
    """Makes the spans; a `CallTracer` of the gateway."""

    def __init__(self, recorder: TraceRecorder) -> None:
        self._recorder = recorder

    def begin(
        self, request: web.Request, caller: Caller, model: str
    ) -> Callable[[int | None, Tokens | None], None] | None:
        """See CallTracer."""
        if not self._recorder.is_recording or not is_marked(request.headers.get(TRACESTATE, "")):
            return None
        context = context_of(request.headers)
        if context is None:
            return None
        begin, started = time.time(), time.perf_counter()
        trace, parent, path = context.trace, context.span, request.match_info["path"]

        def end(status: int | None, tokens: Tokens | None) -> None:
            told: dict[str, Value] = {
                "http.request.method": request.method,
                "url.path": path,
                "gen_ai.request.model": model,
            }
            if status is not None:
                told["http.response.status_code"] = status
            if tokens is not None:
                told |= {"llm.input_tokens": tokens.input, "llm.output_tokens": tokens.output}
            error = "the request was broken off" if status is None else f"status {status}" if status >= 400 else ""
            seconds = time.perf_counter() - started
            span = Span(
                trace,
                new_span_id(),
                parent,
                "model gateway",
                begin,
                seconds,
                error,
                caller.identity[:MAX_TEXT],
                bounded(told),
            )
            self._recorder.add(caller.room, [span])

        return end
