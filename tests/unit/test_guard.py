"""What a program's code may raise, and what becomes of it."""

import asyncio
import sys
import threading
from collections.abc import Awaitable

import pytest

from meshhost.guard import EscapedError, call, guarded, guarding


class Panic(BaseException):
    """As extensions written in Rust raise it."""


async def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Panic("at the disco"), "Panic: at the disco"),
        (asyncio.CancelledError(), "cancelled by its own code"),
    ],
)
async def test_what_is_no_exception_becomes_one(error: BaseException, text: str) -> None:
    with pytest.raises(EscapedError) as caught:
        await guarded(_raise(error))
    assert (str(caught.value), caught.value.__cause__) == (text, error)


async def test_an_exception_passes_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await guarded(_raise(ZeroDivisionError()))


async def test_a_result_passes() -> None:
    async def answer() -> int:
        return 1

    assert await guarded(answer()) == 1


async def test_our_own_cancellation_passes() -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(guarded(asyncio.Event().wait()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def test_an_exit_does_not_end_the_loop_when_the_code_runs_as_a_task() -> None:
    async def run(code: Awaitable[None]) -> str:
        try:
            await guarded(code)
        except EscapedError as error:
            return str(error)
        return "returned"

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run(_raise(SystemExit(1))))
    assert task.result() == "SystemExit: 1"


def test_code_without_a_loop_is_guarded_too() -> None:
    with pytest.raises(EscapedError), guarding():
        raise SystemExit


def test_a_generator_that_is_closed_is_let_go() -> None:
    def numbers() -> object:
        with guarding():
            yield 1

    iterator = numbers()
    assert next(iterator) == 1  # type: ignore[call-overload]
    iterator.close()  # type: ignore[attr-defined]


async def test_plain_code_runs_in_a_thread_and_async_code_in_the_loop() -> None:
    def plain(*, x: int) -> tuple[int, int]:
        return x, threading.get_ident()

    async def coroutine(*, x: int) -> tuple[int, int]:
        return x, threading.get_ident()

    def wrapped(*, x: int) -> Awaitable[tuple[int, int]]:
        return coroutine(x=x)

    own = threading.get_ident()
    x, thread = await call(plain, x=1)
    assert (x, thread != own) == (1, True)
    assert await call(coroutine, x=2) == (2, own)
    assert await call(wrapped, x=3) == (3, own)


async def test_plain_code_that_exits_fails_its_caller_only() -> None:
    with pytest.raises(EscapedError, match="SystemExit: 4"):
        await guarded(call(lambda: sys.exit(4)))
