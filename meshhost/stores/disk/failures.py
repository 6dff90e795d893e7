"""What participants are told when the store of files fails.

Texts of the library and of the system hold local paths, so errors are translated here, once, where the library is called.
"""

import contextlib
import logging
from collections.abc import Iterator

from obstore.exceptions import BaseError

from meshhost.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, RoomError
from meshhost.stores.disk.space import storage_full

__all__ = ["errors_of", "exists", "failure_of", "in_the_way", "is_below_a_file", "missing"]

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def errors_of(path: str) -> Iterator[None]:
    """Translate what the library and the system raise about this path."""
    try:
        yield
    except FileNotFoundError:  # deleted since it was found
        raise missing(path) from None
    except (BaseError, OSError) as error:
        raise failure_of(error) from None


def missing(path: str) -> NotFoundError:
    """Return the error for a path where no file is."""
    return NotFoundError(f"no file {path!r} in this room")


def exists(path: str) -> AlreadyExistsError:
    """Return the error for a path where a file is already."""
    return AlreadyExistsError(f"{path!r} exists: overwrite it, or take another path")


def in_the_way() -> InvalidRequestError:
    """Return the error for a path of which a part is a file, or which is a folder."""
    return InvalidRequestError("path", "a file stands where the path has a folder, or the reverse")


def is_below_a_file(error: Exception) -> bool:
    """Return whether the error says that a part of the path is a file."""
    return "Not a directory" in str(error)


def failure_of(error: Exception) -> RoomError:
    """Return what participants see of an error of the library or the system; its text is logged."""
    # The library's text holds a dump of the error with local paths: participants get its class only.
    if is_below_a_file(error) or "Is a directory" in str(error):
        return in_the_way()
    if "No space left" in str(error) or "Disk quota exceeded" in str(error):
        return storage_full()
    logger.error("the object store failed", exc_info=error)
    return RoomError(f"the room's storage failed ({type(error).__name__}); the room server's log says why")
