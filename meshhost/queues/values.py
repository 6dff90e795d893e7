"""The size of what a row keeps beside its message: its progress, and a result. Larger results are objects (`bodies.py`)."""

from meshhost.errors import InvalidRequestError

__all__ = ["MAX_VALUE_BYTES", "check_size", "size_of"]

# A result, and a report of progress, as JSON text.
MAX_VALUE_BYTES = 64 * 1024


def size_of(text: str) -> int:
    """Return the size of a JSON text in bytes."""
    return len(text.encode(errors="surrogatepass"))


def check_size(field: str, text: str | None) -> None:
    """Raise InvalidRequestError when a report of progress is too large."""
    if text is not None and (size := size_of(text)) > MAX_VALUE_BYTES:
        raise InvalidRequestError(field, f"expected at most {MAX_VALUE_BYTES} bytes of JSON, got {size}")
