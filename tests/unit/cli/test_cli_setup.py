"""`meshhost setup` beside a room server that knows its key, one that does not, and none."""

from typing import Any

import pytest

from meshhost.cli.main import run
from meshhost.errors import ConnectionLostError, RoomRefusedError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "next: `meshhost room serve`"),
        (ConnectionLostError(), "next: `meshhost room serve`"),
        (RoomRefusedError("x", status=404), "next: `meshhost room serve`"),
        (RoomRefusedError("x", status=401), "does not know this key (401): start it with the same MESHHOST_CONFIG_DIR"),
    ],
)
def test_a_server_that_does_not_know_the_key_is_named(
    error: Exception | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def get_json(*_: Any, **__: Any) -> Any:
        if error is not None:
            raise error
        return {"rooms": []}

    monkeypatch.setattr("meshhost.cli.connect.get_json", get_json)

    assert run(["setup"]) == 0

    captured = capsys.readouterr()
    assert said in captured.out + captured.err
