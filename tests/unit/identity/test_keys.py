"""The text form of API keys."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidApiKeyError
from meshhost.identity.keys import ApiKey, encode_api_key, new_api_key, parse_api_key

# The example of room-protocol §7.3.
KEY = ApiKey(
    id="66666666-7777-8888-9999-aaaaaaaaaaaa",
    project_id="11111111-2222-3333-4444-555555555555",
    secret="a-b-c",
)
TEXT = "ma-ZmZmZnd3iIiZmaqqqqqqqg-ERERESIiMzNERFVVVVVVVQ-a-b-c"


def test_the_example_of_the_protocol_reads_and_writes() -> None:
    assert encode_api_key(KEY) == TEXT
    assert parse_api_key(TEXT) == KEY


@given(key_id=st.uuids(), project_id=st.uuids(), secret=st.text(min_size=1))
def test_any_key_survives_its_text(key_id: uuid.UUID, project_id: uuid.UUID, secret: str) -> None:
    key = ApiKey(id=str(key_id), project_id=str(project_id), secret=secret)

    assert parse_api_key(encode_api_key(key)) == key


def test_a_new_key_is_fresh_and_has_256_bits() -> None:
    keys = [new_api_key(KEY.project_id) for _ in range(2)]

    assert {key.project_id for key in keys} == {KEY.project_id}
    assert len({key.id for key in keys}) == len({key.secret for key in keys}) == 2
    assert [len(bytes.fromhex(key.secret)) for key in keys] == [32, 32]
    assert parse_api_key(encode_api_key(keys[0])) == keys[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-hidden",
        TEXT.removeprefix("ma-"),
        "xx-" + TEXT.removeprefix("ma-"),
        "ma-",
        "ma-ZmZmZnd3iIiZmaqqqqqqqg",
        "ma-ZmZmZnd3iIiZmaqqqqqqqg-ERERESIiMzNERFVVVVVVVQ",
        "ma-ZmZmZnd3iIiZmaqqqqqqqg-ERERESIiMzNERFVVVVVVVQ-",
        "ma-short-ERERESIiMzNERFVVVVVVVQ-hidden",
        "ma-ZmZmZnd3iIiZmaqqqqqqqg-ERERESIiMzNERFVVVVVVVQlonger-hidden",
        "ma-ZmZmZnd3iIiZmaqqqqqq!!-ERERESIiMzNERFVVVVVVVQ-hidden",
        "ma-ZmZmZnd3iIiZmaqqqqqqqé-ERERESIiMzNERFVVVVVVVQ-hidden",
        "ma-ZmZmZnd3iIiZmaqqqqqq==-ERERESIiMzNERFVVVVVVVQ-hidden",
    ],
)
def test_what_is_not_a_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidApiKeyError, match="not an API key") as caught:
        parse_api_key(text)

    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text())
def test_any_text_is_a_key_or_refused(text: str) -> None:
    with pytest.raises(InvalidApiKeyError):
        parse_api_key(f"ma-{text}")


def test_the_secret_is_not_in_the_repr() -> None:
    key = ApiKey(id=KEY.id, project_id=KEY.project_id, secret="very-hidden")

    assert "hidden" not in repr(key) + str(key)
    assert KEY.id in repr(key)
