"""The first problem of a body, as the caller reads it."""

import pytest
from pydantic import BaseModel, ValidationError

from meshhost.validation import first_problem, invalid_request


class _Item(BaseModel):
    size: int


class _Body(BaseModel):
    items: list[_Item]


def _error(value: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        _Body.model_validate(value)
    return caught.value


def test_the_first_problem_is_named_by_its_path() -> None:
    assert first_problem(_error({"items": [{"size": 1}, {}]})) == ("items.1.size", "Field required")


def test_a_name_that_is_not_known_is_said_to_be_that() -> None:
    class Strict(BaseModel, extra="forbid"):
        delay: float = 0

    with pytest.raises(ValidationError) as caught:
        Strict.model_validate({"dealy": 1})
    assert first_problem(caught.value) == ("dealy", "not a name that is known here")


def test_a_list_where_an_object_belongs_is_told_without_the_names_of_our_classes() -> None:
    assert first_problem(_error([1])) == ("", "Input should be an object (in TOML a table)")
    assert first_problem(_error({"items": [1]})) == ("items.0", "Input should be an object (in TOML a table)")


def test_it_becomes_an_invalid_request_without_the_input() -> None:
    error = invalid_request(_error({"items": [{"size": "secret"}]}), prefix="data")
    assert error.field == "data.items.0.size"
    assert "secret" not in str(error)
    assert str(error).startswith("data.items.0.size: ")


def test_a_body_that_is_wrong_as_a_whole_has_no_field() -> None:
    assert invalid_request(_error("text")).field == ""
    assert invalid_request(_error("text"), prefix="data").field == "data"
