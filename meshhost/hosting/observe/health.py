"""What a host tells of its health, also while its event loop is held: is it alive, does it take calls, what does it wait for.

`Health` is the one place that decides whether the loop is alive. `HealthServer` answers from a thread of its own, so that a
loop that is held is told with who holds it. `StartUp` waits for the first process of the pool.
"""

import asyncio
import contextlib
import json
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from meshhost.errors import CallRefusedError, MeshhostError, SettingsError
from meshhost.hosting.observe.watchdog import Block, LoopWatchdog
from meshhost.hosting.processes.pool import ProcessPool

__all__ = ["Health", "HealthAnswer", "HealthServer", "StartUp", "error_line"]

logger = logging.getLogger(__name__)

BLOCKED = "event loop blocked"
MAX_REQUESTS = 8
"""How many requests a health server answers at once; a further one ends the one that takes longest."""
REQUEST_SECONDS = 3.0
"""How long a request may take to be read and answered."""

RETRY_AFTER_SECONDS = 5.0
_POLL_SECONDS = 0.1
_MAX_TEXT = 300
_MAX_PAUSE = 3600.0
# Who may ask for health may not see a database's password that an error quotes.
_URL_USER = re.compile(r"://[^/\s@]*@")


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """An HTTP status, and the JSON object that goes with it."""

    status: int
    body: Mapping[str, Any]


class Health:
    """Tells whether a host is alive. `live` and `last_ready` may be asked from any thread, `remember` is for the loop's.

    The host is dead when its loop has not turned for more than `live_seconds`. `is_path` says whether a path is one of the
    host's, `vitals` what is told besides.
    """

    def __init__(
        self,
        watchdog: LoopWatchdog,
        *,
        live_seconds: float,
        is_path: Callable[[str], bool],
        vitals: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._watchdog = watchdog
        self._live_seconds = live_seconds
        self._is_path = is_path
        self._vitals = vitals
        self._ready = HealthAnswer(503, {"ok": False, "reason": "starting", "reasons": ["starting"]})

    def __repr__(self) -> str:
        return f"<Health live_seconds={self._live_seconds:g} ready={self._ready.status}>"

    def live(self) -> HealthAnswer:
        """200 while the loop turns, or was held for a short time only; else 503 with who holds it."""
        held, block = self._watchdog.held_seconds(), self._watchdog.block
        holder = {"seconds": round(held, 3), "agent": self._agent(block)}
        if held > self._live_seconds:
            return HealthAnswer(503, {"ok": False, "reason": BLOCKED, **holder})
        lag = round(max(held, self._watchdog.last_lag), 3)
        now = {} if block is None else {"block": holder}
        return HealthAnswer(200, {"ok": True, "lag_seconds": lag, **now, **self._vitals()})

    def remember(self, ready: HealthAnswer) -> None:
        """What /readyz would answer now."""
        self._ready = ready

    def last_ready(self) -> HealthAnswer:
        """What was remembered last; 503 in any case while the loop is held."""
        if self._watchdog.loop_ok():
            return self._ready
        reasons = [BLOCKED, *self._ready.body.get("reasons", [])]
        return HealthAnswer(503, {**self._ready.body, "ok": False, "reason": BLOCKED, "reasons": reasons})

    def _agent(self, block: Block | None) -> str | None:
        # The path only, and only one of ours: whoever asks is nobody we know.
        path = "" if block is None else str(block.fields.get("path", ""))
        return path if self._is_path(path) else None


class HealthServer:
    """Answers GET /livez and /readyz from threads of its own, at most MAX_REQUESTS at once."""

    def __init__(self, health: Health, *, host: str, port: int) -> None:
        self._health = health
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<HealthServer {self._host}:{self._port} running={self._server is not None}>"

    def start(self) -> None:
        """Listen. Again is no news. Raises SettingsError when the address cannot be listened on."""
        if self._server is not None:
            return
        try:
            family, *_, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            self._server = _server_of(family)(address, self._health)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            reason = error.strerror or error
            raise SettingsError(
                f"cannot listen on {where} for health: {reason}; choose another MESHHOST_HEALTH_PORT"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="meshhost health", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End within moments, with all that is asked now. Without effect when it does not run."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.shutdown()
        self._thread.join()
        server.server_close()
        server.end_requests()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, address: Any, health: Health) -> None:
        self.health = health
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_REQUESTS)
        self._requests: dict[socket.socket, tuple[float, threading.Thread]] = {}
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not that of HTTPServer, which asks the DNS for our name.
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self._end_oldest()
            if not self._slots.acquire(timeout=_POLL_SECONDS):
                self.shutdown_request(request)
                return
        thread = threading.Thread(
            target=self._answer, args=(request, client_address), name="meshhost health request", daemon=True
        )
        with self._lock:
            self._requests[request] = time.monotonic(), thread
        thread.start()

    def service_actions(self) -> None:
        """Called about each _POLL_SECONDS: end what takes too long, however alive it keeps itself."""
        with self._lock:
            too_old = time.monotonic() - REQUEST_SECONDS
            for request in [request for request, (began, _) in self._requests.items() if began < too_old]:
                _hang_up(request)

    def end_requests(self) -> None:
        with self._lock:
            threads = [thread for _, thread in self._requests.values()]
            for request in self._requests:
                _hang_up(request)
        for thread in threads:
            thread.join(REQUEST_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("health request failed", extra={"reason": type(sys.exception()).__name__})

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._lock:
                del self._requests[request]
            self._slots.release()

    def _end_oldest(self) -> None:
        with self._lock:
            oldest = next(iter(self._requests), None)
            if oldest is not None:
                _hang_up(oldest)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    error_content_type = "application/json"
    error_message_format = '{"error": "%(code)d"}'

    def do_GET(self) -> None:
        questions = {"/livez": self.server.health.live, "/readyz": self.server.health.last_ready}
        question = questions.get(self.path.partition("?")[0])
        answer = HealthAnswer(404, {"error": "expected /livez or /readyz"}) if question is None else question()
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "meshhost"

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are no news."""


class StartUp:
    """What a host waits for after it listens: the first process of its pool, when it keeps some warm.

    That has `seconds` to come up; then the log says what is missing, again after twice the time, and so on.
    """

    def __init__(self, pool: ProcessPool, *, seconds: float) -> None:
        self._pool = pool
        self._seconds = seconds
        self._needs_pool = False

    def __repr__(self) -> str:
        return f"<StartUp missing={list(self.missing)}>"

    def need_pool(self) -> None:
        """There are paths whose agents have processes. A pool that keeps none warm is not waited for."""
        self._needs_pool = self._pool.options.size > 0

    @property
    def missing(self) -> tuple[str, ...]:
        """What is waited for, or why it did not come up, for people; nothing secret. Empty when all is there."""
        if not self._needs_pool or self._pool.has_booted:
            return ()
        error = self._pool.boot_error
        return ("process pool starting" if error is None else f"process pool: {error_line(error)}",)

    def check(self) -> None:
        """Raises CallRefusedError (503) while the agents that have processes cannot start."""
        if missing := self.missing:
            text = f"this host is not ready: {missing[0]}"
            raise CallRefusedError(text, status=503, retry_after=RETRY_AFTER_SECONDS)

    async def wait(self) -> None:
        """Return when nothing is missing, be it never: whoever waits cancels this."""
        began, pause = time.monotonic(), self._seconds
        while self.missing:
            try:
                async with asyncio.timeout(pause):
                    await self._pool.wait_booted()
            except TimeoutError:
                waited = pause = time.monotonic() - began
                pause = min(pause, _MAX_PAUSE)
                fields = {"missing": list(self.missing), "waited_seconds": round(waited, 1)}
                # Not an exception's traceback: that of the deadline tells nobody anything.
                logger.error("host is not ready yet", extra=fields)  # noqa: TRY400 - see above


def error_line(error: BaseException) -> str:
    """`ImportError: no module named x`: the error's type and its text's first line, shortened, without passwords of URLs."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "").rstrip(": ")
    text = _URL_USER.sub("://…@", text)
    text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    if type(error) is MeshhostError and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _server_of(family: int) -> type[_Server]:
    return _Server6 if family == socket.AF_INET6 else _Server


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
