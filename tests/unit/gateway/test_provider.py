"""Picking a provider, checking a path, and noticing that a caller left."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError, LLMError, NotFoundError, SettingsError
from meshhost.gateway.http import check_path, ends_with_caller, error_response, json_object, observe, observed
from meshhost.gateway.provider import Caller, ProviderTable


class FakeProvider:
    """Counts its starts and stops; `trouble` is raised by the next start."""

    def __init__(self, name: str, *, trouble: Exception | None = None, deaf: bool = False) -> None:
        self.name = name
        self.starts = 0
        self.stops = 0
        self.trouble = trouble
        self.deaf = deaf

    async def start(self) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.starts += 1

    async def stop(self) -> None:
        self.stops += 1
        if self.deaf:
            raise RuntimeError("will not stop")

    async def models(self) -> list[str]:
        if self.deaf:
            raise LLMError("no list")
        return [f"{self.name}-b", f"{self.name}-a"]

    async def handle(self, request: web.Request, path: str, caller: Caller) -> web.StreamResponse:
        raise NotImplementedError


async def test_exact_names_win_over_prefixes_and_longer_prefixes_over_shorter() -> None:
    exact, long, short, default = (FakeProvider(name) for name in ("exact", "long", "short", "default"))
    table = ProviderTable({"*": default, "gpt-*": short, "gpt-5*": long, "gpt-5-mini": exact})

    assert await table.pick("gpt-5-mini") is exact
    assert await table.pick("gpt-5-nano") is long
    assert await table.pick("gpt-4") is short
    assert await table.pick("") is default


async def test_a_model_nobody_has_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="gpt-4"):
        await ProviderTable({"local": FakeProvider("local")}).pick("gpt-4")


@pytest.mark.parametrize("pattern", ["", "g*t", "**"])
def test_a_star_stands_only_at_the_end_of_a_pattern(pattern: str) -> None:
    with pytest.raises(SettingsError):
        ProviderTable({pattern: FakeProvider("x")})


async def test_a_provider_starts_at_its_first_use_only_and_all_started_are_stopped() -> None:
    used, unused = FakeProvider("used"), FakeProvider("unused")
    table = ProviderTable({"a*": used, "b": used, "c": unused})

    await asyncio.gather(table.pick("a1"), table.pick("b"), table.pick("a2"))
    await table.stop()

    assert (used.starts, used.stops) == (1, 1)
    assert (unused.starts, unused.stops) == (0, 0)


async def test_a_failed_start_is_tried_again() -> None:
    provider = FakeProvider("x", trouble=SettingsError("no weights"))
    table = ProviderTable({"*": provider})
    with pytest.raises(SettingsError):
        await table.pick("m")

    provider.trouble = None
    await table.pick("m")

    assert provider.starts == 1


async def test_one_bad_provider_hides_neither_the_models_nor_the_stop_of_the_others() -> None:
    bad, good = FakeProvider("bad", deaf=True), FakeProvider("good")
    table = ProviderTable({"bad": bad, "good": good})

    assert await table.models() == ["good-a", "good-b"]
    await table.stop()
    assert (bad.stops, good.stops) == (1, 1)


async def test_models_that_cannot_be_listed_are_logged_once_per_change(caplog: pytest.LogCaptureFixture) -> None:
    provider = FakeProvider("local", trouble=SettingsError("no model is installed"))
    table = ProviderTable({"*": provider})

    def logged() -> list[tuple[str, bool]]:
        found = [(record.__dict__["error"], record.exc_info is not None) for record in caplog.records]
        caplog.clear()
        return found

    for _ in range(3):
        assert await table.models() == []
    assert logged() == [("SettingsError: no model is installed", False)]

    provider.trouble = KeyError("a bug")
    await table.models()
    assert logged() == [("KeyError: 'a bug'", True)]

    provider.trouble = None
    await table.models()
    provider.deaf = True
    for _ in range(2):
        await table.models()
    assert logged() == [("LLMError: no list", False)]

    provider.deaf = False
    await table.models()
    provider.deaf = True
    await table.models()
    assert logged() == [("LLMError: no list", False)]


@pytest.mark.parametrize(
    "path", ["responses", "chat/completions", "responses/resp_1/input_items", "models/gpt-4.1:ft~x@y"]
)
def test_plain_paths_pass(path: str) -> None:
    assert check_path(path) == path


@given(st.text())
def test_a_path_that_passes_cannot_leave_its_place(path: str) -> None:
    try:
        check_path(path)
    except InvalidRequestError:
        return
    assert not set(path) & set("%?#\\ \n\r\0")
    assert all(segment not in {"", ".", ".."} for segment in path.split("/"))


@pytest.mark.parametrize("path", ["", "/", "../x", "a/../b", "a//b", "a/", "a%2f", "a?b", "a/./b", "é", "a\n"])
def test_paths_that_might_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_path(path)


@pytest.mark.parametrize(
    ("body", "found"), [(b'{"a": 1}', {"a": 1}), (b"[1]", None), (b"{", None), (b"\xff", None), (b"", None)]
)
def test_only_a_json_object_is_one(body: bytes, found: Any) -> None:
    assert json_object(body) == found


def test_an_error_has_openais_form() -> None:
    response = error_response(503, "not now", type="provider_not_ready", retry_after=0.2)

    assert response.headers["Retry-After"] == "1"
    assert json_object(response.body) == {  # type: ignore[arg-type]
        "error": {"message": "not now", "type": "provider_not_ready", "code": "provider_not_ready", "param": None}
    }


def test_an_observer_sees_the_bytes_and_its_absence_does_no_harm() -> None:
    seen: list[bytes] = []
    observe(b"before")
    with observed(seen.append):
        observe(b"seen")
    observe(b"after")

    assert seen == [b"seen"]


async def test_the_block_is_cancelled_when_the_caller_leaves() -> None:
    request = make_mocked_request("GET", "/")
    request.transport.is_closing.return_value = False  # type: ignore[union-attr]
    entered = asyncio.Event()

    async def serve() -> None:
        async with ends_with_caller(request, every=0.001):
            entered.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(_expect_reset(serve()))
        await entered.wait()
        request.transport.is_closing.return_value = True  # type: ignore[union-attr]
    assert task.result()


async def test_a_timeout_inside_the_block_stays_a_timeout() -> None:
    request = make_mocked_request("GET", "/")
    request.transport.is_closing.return_value = False  # type: ignore[union-attr]
    with pytest.raises(TimeoutError):
        async with ends_with_caller(request):
            raise TimeoutError


async def _expect_reset(work: Any) -> bool:
    with pytest.raises(ConnectionResetError):
        await work
    return True
