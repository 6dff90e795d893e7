"""Errors carry their facts, and compose their texts from them."""

import inspect
import re

import pytest

from meshhost import errors

CLASSES = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}


def test_every_error_is_public_and_nothing_else() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    assert set(errors.__all__) == set(CLASSES)


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_every_error_is_ours_and_says_what_it_means(cls: type[Exception]) -> None:
    assert issubclass(cls, errors.MeshhostError)
    assert cls.__name__.endswith("Error")
    assert "__doc__" in vars(cls)
    assert (cls.__doc__ or "").strip()


def test_every_room_error_has_a_number() -> None:
    room_errors = [cls for cls in CLASSES.values() if issubclass(cls, errors.RoomError)]

    assert len(room_errors) > 1
    assert all(type(cls.code) is int for cls in room_errors)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if (match := re.match(r" {4}((?:│   |    )*(?:├── |└── )?)(\w+Error)\b", line)) is not None:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            drawn[match[2]] = above[depth - 1] if depth else "Exception"

    assert drawn == {name: cls.__mro__[1].__name__ for name, cls in CLASSES.items()}


def test_a_violation_of_the_protocol_says_how_to_close() -> None:
    assert errors.RemoteProtocolError("broken").close_code == 1002
    assert errors.RemoteProtocolError("too large", close_code=1009).close_code == 1009


def test_a_refused_call_says_whether_another_try_makes_sense() -> None:
    error = errors.CallRefusedError("busy", status=429, retry_after=2.5)

    assert (str(error), error.status, error.retry_after) == ("busy", 429, 2.5)
    assert errors.CallRefusedError("no", status=403).retry_after is None


def test_an_error_of_the_model_has_the_status_when_there_was_one() -> None:
    assert errors.LLMError("slow").status is None
    assert errors.LLMRefusalError("I will not", status=200).status == 200


def test_a_denial_names_operation_and_subject() -> None:
    assert str(errors.AccessDeniedError("queues.list")) == "permission denied: queues.list"

    error = errors.AccessDeniedError("queues.send", "jobs")
    assert str(error) == "permission denied: queues.send jobs"
    assert (error.operation, error.subject) == ("queues.send", "jobs")


def test_a_bad_request_names_its_field() -> None:
    assert str(errors.InvalidRequestError("name", "expected a text")) == "name: expected a text"
    assert str(errors.InvalidRequestError("", "expected an object")) == "expected an object"
    assert errors.InvalidRequestError("name", "x").field == "name"


def test_a_lost_connection_says_how_it_ended() -> None:
    error = errors.ConnectionLostError()
    assert (str(error), error.clean, error.close_code) == ("the connection to the room was lost", False, None)

    error = errors.ConnectionLostError("closed", clean=True, close_code=1000)
    assert (str(error), error.clean, error.close_code) == ("closed", True, 1000)


def test_a_refused_connection_has_the_status() -> None:
    error = errors.RoomRefusedError("unknown room", status=404)

    assert (str(error), error.status) == ("unknown room", 404)
