"""Errors that came over the wire."""

import pytest

from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidRequestError,
    LeaseLostError,
    NotFoundError,
    RequestTimeoutError,
    RoomError,
)
from meshhost.protocol.messages import ErrorResponse
from meshhost.room.replies import error_from


@pytest.mark.parametrize(
    "error",
    [
        AccessDeniedError("queues.send", "jobs"),
        AccessDeniedError("queues.list"),
        AlreadyExistsError("there"),
        InvalidRequestError("", "wrong"),
        LeaseLostError("lost"),
        NotFoundError("none"),
        RequestTimeoutError("late"),
        RoomError("plain"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error}",
)
def test_an_error_arrives_as_what_it_was(error: RoomError) -> None:
    arrived = error_from(ErrorResponse(text=str(error), code=error.code))
    assert (type(arrived), str(arrived)) == (type(error), str(error))


def test_a_denial_still_names_its_operation_and_subject() -> None:
    denied = error_from(ErrorResponse(text="permission denied: queues.send my jobs", code=1001))
    assert isinstance(denied, AccessDeniedError)
    assert (denied.operation, denied.subject) == ("queues.send", "my jobs")


@pytest.mark.parametrize("code", [None, 0, 9999])
def test_an_error_without_a_known_code_is_plain(code: int | None) -> None:
    error = error_from(ErrorResponse(text="x", code=code))
    assert (type(error), str(error)) == (RoomError, "x")
