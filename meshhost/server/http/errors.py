"""Errors as HTTP answers: which status an error has, and its body.

Every route of the server raises meshhost's errors; the middleware turns them into JSON, `{"error": text}`. An error without a
status of its own is a fault of the server: it is logged, and the client learns nothing of it. So is a store that fails
(OSError), but that may pass: 503, or 507 when its disk is full.
"""

import errno
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from meshhost.edge.bodies import RETRY_SECONDS, BodyDisplacedError
from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidRequestError,
    LimitExceededError,
    MeshhostError,
    NotFoundError,
    QuotaExceededError,
    SecretsLockedError,
    StorageFullError,
    TenantSuspendedError,
    TokenError,
    TooLargeError,
)
from meshhost.server.core.ownership import OwnedElsewhereError
from meshhost.stores.disk.space import storage_full

__all__ = ["RETRY_AFTER_SECONDS", "error_response", "errors_as_json", "http_logger", "status_of", "stopping_response"]

logger = logging.getLogger(__name__)

# When a client may try again at a server that stops: its successor listens by then, or another server does.
RETRY_AFTER_SECONDS = 1
# When the stores may work again: a database that was restarted needs some seconds.
STORE_RETRY_SECONDS = 5
# When another try makes sense for a tenant that has to free something first.
QUOTA_RETRY_SECONDS = 5.0
INTERNAL_ERROR = 500
_STATUS: dict[type[MeshhostError], int] = {
    TokenError: 401,
    AccessDeniedError: 403,
    TenantSuspendedError: 403,
    NotFoundError: 404,
    AlreadyExistsError: 409,
    OwnedElsewhereError: 421,  # Misdirected Request: right, but sent to the wrong server
    InvalidRequestError: 400,
    QuotaExceededError: 429,
    TooLargeError: 413,
    LimitExceededError: 429,
    StorageFullError: 507,
    BodyDisplacedError: 503,
    SecretsLockedError: 503,
}


def status_of(error: MeshhostError) -> int:
    """The HTTP status of an error; INTERNAL_ERROR for a fault of the server."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), INTERNAL_ERROR)


def error_response(error: MeshhostError, *, status: int) -> web.Response:
    """The answer to a request that failed with this error."""
    body: dict[str, Any] = {"error": str(error)}
    headers: dict[str, str] = {}
    if isinstance(error, OwnedElsewhereError):
        body["server_url"] = error.server_url
    if isinstance(error, QuotaExceededError):
        body |= {"code": error.code, "quota": error.quota}
        seconds = QUOTA_RETRY_SECONDS if error.retry_after is None else error.retry_after
        headers["Retry-After"] = str(max(math.ceil(seconds), 1))
    if isinstance(error, BodyDisplacedError):
        headers["Retry-After"] = str(math.ceil(RETRY_SECONDS))
    return web.json_response(body, status=status, headers=headers)


def stopping_response() -> web.Response:
    """The answer to a participant that wants to join a server that is stopping."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return web.Response(status=503, text="the room server is stopping", headers=headers)


def http_logger() -> logging.Logger:
    """The logger for aiohttp's server. Leaves out errors of senders, who could fill the log with tracebacks."""
    logger.addFilter(_is_fault_of_server)  # no effect when it is there already
    return logger


def _is_fault_of_server(record: logging.LogRecord) -> bool:
    error = None if record.exc_info is None else record.exc_info[1]
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn meshhost's errors into answers, and aiohttp's: refusals, and a body that broke off or is not as its headers say."""
    try:
        return await handler(request)
    except (ConnectionError, web.RequestPayloadError):
        return web.json_response({"error": "body: it broke off, or is not encoded as its headers say"}, status=400)
    except web.HTTPClientError as error:  # such as of a method that a path does not have, or of a broken upgrade
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.json_response({"error": error.text or error.reason}, status=error.status, headers=allow)
    except MeshhostError as error:
        status = status_of(error)
        if status == INTERNAL_ERROR:
            logger.exception("request failed", extra={"route": request.path.split("/")[1]})
            return web.json_response({"error": "the room server failed; its log says why"}, status=status)
        return error_response(error, status=status)
    except OSError as error:
        if isinstance(error, TimeoutError):  # no store raises it
            raise
        logger.exception("store failed", extra={"route": request.path.split("/")[1]})
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = storage_full()
            return error_response(full, status=status_of(full))
        text = "the room server cannot use its data now; its log says why"
        return web.json_response({"error": text}, status=503, headers={"Retry-After": str(STORE_RETRY_SECONDS)})
