"""Health of a host, answered also while its event loop is blocked.

An orchestrator restarts a container that does not answer its liveness probe, so the probe must be answered truly even when an
agent blocks the loop. `Health` decides whether the loop is alive; `http.routes` shows its answer at /livez. `HealthServer`
serves /livez and /readyz on a port of its own from threads, so that it can say which path's agent blocks the loop.

Threads: `remember` runs in the loop, the probes in threads of the server. They share whole values that are replaced, never
changed in place. The server bounds itself: MAX_REQUESTS at once, REQUEST_SECONDS each, because probes need no authentication.
"""

import contextlib
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from meshhost.errors import SettingsError
from meshhost.hosting.observe.watchdog import Block, LoopWatchdog

__all__ = ["Health", "HealthAnswer", "HealthServer"]

logger = logging.getLogger(__name__)

BLOCKED = "event loop blocked"
MAX_REQUESTS = 8
"""Requests that a health server answers at once; one more ends the oldest."""
REQUEST_SECONDS = 3.0
"""Seconds for a request to be read and answered."""

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """An HTTP status and the JSON object of its body."""

    status: int
    body: Mapping[str, Any]


class Health:
    """Says whether a host is alive and ready. `live` and `last_ready` may be called from any thread, `remember` in the loop.

    The host is dead when its loop has not run for more than `live_seconds`. `is_path` says whether a path is one of the host's.
    """

    def __init__(
        self,
        watchdog: LoopWatchdog,
        *,
        live_seconds: float,
        is_path: Callable[[str], bool],
    ) -> None:
        self._watchdog = watchdog
        self._live_seconds = live_seconds
        self._is_path = is_path
        self._ready = HealthAnswer(503, {"ok": False, "reason": "starting", "reasons": ["starting"]})

    def __repr__(self) -> str:
        return f"<Health live_seconds={self._live_seconds:g} ready={self._ready.status}>"

    def live(self) -> HealthAnswer:
        """200 while the loop runs, or is blocked for a short time; else 503 with the path that blocks it."""
        held, block = self._watchdog.held_seconds(), self._watchdog.block
        holder = {"seconds": round(held, 3), "agent": self._path(block)}
        if held > self._live_seconds:
            return HealthAnswer(503, {"ok": False, "reason": BLOCKED, **holder})
        lag = round(max(held, self._watchdog.last_lag), 3)
        now = {} if block is None else {"block": holder}
        return HealthAnswer(200, {"ok": True, "lag_seconds": lag, **now, **self._last_block()})

    def remember(self, ready: HealthAnswer) -> None:
        """Store what /readyz answers now."""
        self._ready = ready

    def last_ready(self) -> HealthAnswer:
        """The stored answer; always 503 while the loop is blocked."""
        if self._watchdog.loop_ok():
            return self._ready
        reasons = [BLOCKED, *self._ready.body.get("reasons", [])]
        return HealthAnswer(503, {**self._ready.body, "ok": False, "reason": BLOCKED, "reasons": reasons})

    def _path(self, block: Block | None) -> str | None:
        # Only the path, and no tenant or identity: probes are not authenticated.
        path = None if block is None or block.agent is None else block.agent.path
        return path if path is not None and self._is_path(path) else None

    def _last_block(self) -> dict[str, Any]:
        block = self._watchdog.last_block
        if block is None:
            return {}
        ago = time.monotonic() - block.began - block.seconds
        facts = {"path": self._path(block), "seconds": round(block.seconds, 3), "seconds_ago": round(ago, 3)}
        return {"last_block": facts}


class HealthServer:
    """Answers GET /livez and /readyz from threads of its own, at most MAX_REQUESTS at once, each within `request_seconds`."""

    def __init__(self, health: Health, *, host: str, port: int, request_seconds: float = REQUEST_SECONDS) -> None:
        self.health = health
        self._request_seconds = request_seconds
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<HealthServer {self._host}:{self._port} running={self._server is not None}>"

    def start(self) -> None:
        """Listen. Idempotent. Raises SettingsError when the address cannot be used."""
        if self._server is not None:
            return
        try:
            family, *_, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            self._server = _server_of(family)(address, self.health, self._request_seconds)
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
        """Stop listening and end the requests in progress. Idempotent."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.shutdown()
        self._thread.join()
        server.server_close()
        server.end_requests()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, address: Any, health: Health, request_seconds: float) -> None:
        self.health = health
        self.request_seconds = request_seconds
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_REQUESTS)
        self._requests: dict[socket.socket, tuple[float, threading.Thread]] = {}
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not the one of HTTPServer, which asks the DNS for our name.
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
        """Called every _POLL_SECONDS: end requests that take too long, even if they keep sending bytes."""
        with self._lock:
            too_old = time.monotonic() - self.request_seconds
            for request in [request for request, (began, _) in self._requests.items() if began < too_old]:
                _hang_up(request)

    def end_requests(self) -> None:
        with self._lock:
            threads = [thread for _, thread in self._requests.values()]
            for request in self._requests:
                _hang_up(request)
        for thread in threads:
            thread.join(self.request_seconds)

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
    error_content_type = "application/json"
    error_message_format = '{"error": "%(code)d"}'

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.request_seconds)

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
        """Probes are not logged."""


def _server_of(family: int) -> type[_Server]:
    return _Server6 if family == socket.AF_INET6 else _Server


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
