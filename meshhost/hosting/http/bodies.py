"""Reads the body of a request to a host; what is wrong with it is refused with a `CallRefusedError`."""

from aiohttp import web

from meshhost.edge.bodies import MAX_BODY_BYTES, RETRY_SECONDS, BodyDisplacedError, read_body
from meshhost.errors import CallRefusedError, TooLargeError

__all__ = ["BROKEN_BODY", "MAX_BODY_BYTES", "body_of"]

BROKEN_BODY = "body: it broke off, or is not encoded as its headers say"


async def body_of(request: web.Request) -> bytes:
    """The body. Raises CallRefusedError: 400 for one that broke off, 413 for a large one, 503 when others need the memory."""
    try:
        return await read_body(request)
    except TooLargeError:
        raise CallRefusedError(f"body: at most {MAX_BODY_BYTES} bytes", status=413) from None
    except BodyDisplacedError as error:
        raise CallRefusedError(str(error), status=503, retry_after=RETRY_SECONDS) from None
    except (ConnectionError, web.RequestPayloadError):
        raise CallRefusedError(BROKEN_BODY, status=400) from None
