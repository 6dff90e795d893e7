"""Whether a program may be forked, and what a forked child does first and last; no process is forked here."""

import asyncio
import errno
import functools
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

import pytest

from meshhost.hosting.processes.child import fork, fork_safety
from meshhost.hosting.processes.child.fork_safety import descriptors, files_to_open_again, why_unforkable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forking needs Linux")


@pytest.fixture(autouse=True)
def only_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # Those of the test runner are not what these tests are about.
    names = fork_safety._thread_names()
    found = fork_safety._thread_names
    monkeypatch.setattr(fork_safety, "_thread_names", lambda: [name for name in found() if name not in names])
    monkeypatch.setattr(fork_safety, "_has_children", lambda: False)


def reason(**given: object) -> str | None:
    options = {"known": descriptors(), "ending_seconds": 0.01, **given}
    return why_unforkable(asyncio.get_running_loop(), (), **options)  # type: ignore[arg-type]


async def test_a_quiet_program_can_be_forked() -> None:
    assert reason() is None


async def test_threads_are_named_of_python_and_of_others_and_not_all_of_many() -> None:
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, name=f"sheep {number}") for number in range(7)]
    for thread in threads:
        thread.start()
    try:
        text = reason()
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert text is not None
    assert text.startswith("program started threads while it was imported: sheep")
    assert text.endswith(", …")
    assert text.count("sheep") == 5


async def test_who_waits_for_the_host_is_no_other_task_and_who_works_is() -> None:
    parked: set[asyncio.Task[None]] = set()

    async def work() -> None:
        await asyncio.Event().wait()

    async def host() -> str | None:
        await asyncio.sleep(0)
        return why_unforkable(asyncio.get_running_loop(), parked, descriptors())

    async def program() -> str | None:
        return (await asyncio.gather(host()))[0]

    async with asyncio.TaskGroup() as group:
        assert await group.create_task(program()) is None
        worker = group.create_task(work(), name="counts sheep")
        assert await group.create_task(program()) == "program has other tasks in its event loop: counts sheep"
        parked.add(worker)
        assert await group.create_task(program()) is None
        worker.cancel()


async def test_a_process_with_children_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_safety, "_has_children", lambda: True)
    assert reason() == "program started processes while it was imported"


async def test_what_is_open_may_be_shared_or_not(tmp_path: Path) -> None:
    known = descriptors()
    (tmp_path / "file").write_text("text")
    with (tmp_path / "file").open(), (tmp_path / "log").open("a"):
        others = [os.open(path, os.O_RDONLY) for path in (tmp_path, "/dev/urandom")]
        try:
            assert reason(known=known) is None
        finally:
            for descriptor in others:
                os.close(descriptor)
    with (tmp_path / "data").open("w"):
        assert reason(known=known) == f"program holds what cannot be shared: {tmp_path / 'data'}"
    with (tmp_path / "file").open("r+"):
        assert reason(known=known) == f"program holds what cannot be shared: {tmp_path / 'file'}"
    read, write = os.pipe()
    try:
        text = reason(known=known)
    finally:
        os.close(read)
        os.close(write)
    assert text is not None
    assert text.startswith("program holds what cannot be shared: pipe:[")


async def test_a_file_that_cannot_be_opened_again_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = descriptors()
    (tmp_path / "file").write_text("text")

    def refuse(*_: object) -> int:
        raise PermissionError

    with (tmp_path / "file").open():
        monkeypatch.setattr(fork_safety.os, "open", refuse)
        assert reason(known=known) == f"program holds what cannot be shared: {tmp_path / 'file'}"


async def test_a_loop_that_waits_for_a_signal_or_a_file_is_not_left_behind() -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, print)
    try:
        assert reason() == "program waits for files or signals in its event loop"
    finally:
        loop.remove_signal_handler(signal.SIGUSR2)
    assert reason() is None


def test_a_file_that_is_opened_again_is_read_from_the_same_place_on_and_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("0123456789")
    known = descriptors()
    with (tmp_path / "file").open("rb", buffering=0) as file, (tmp_path / "log").open("a"):
        assert file.read(3) == b"012"
        assert files_to_open_again(descriptors() - known) == [file.fileno()]
        other = os.dup(file.fileno())
        try:
            fork.open_again(file.fileno())
            assert file.read(3) == b"345"
            assert os.read(other, 3) == b"345"
            assert not os.get_inheritable(file.fileno())
        finally:
            os.close(other)


def test_other_random_numbers_are_seeded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = []
    for name, seeder in fork._SEEDERS.items():
        module = ModuleType(name)
        vars(module)[seeder] = functools.partial(seeded.append, name)
        monkeypatch.setitem(sys.modules, name, module)
    fork.seed_again()
    assert seeded == ["numpy.random", "torch"]


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (SystemExit(), 0, ""),
        (SystemExit(0), 0, ""),
        (SystemExit(7), 7, ""),
        (SystemExit(-1), 255, ""),
        (SystemExit("the weights are gone"), 1, "the weights are gone\n"),
        (KeyError("lost"), 1, "KeyError: 'lost'\n"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt\n"),
    ],
)
def test_an_error_gives_the_exit_code_that_it_gives_a_python(
    error: BaseException, code: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fork.exit_code_of(error) == code
    assert capsys.readouterr().err == shown


def test_a_stream_that_is_gone_is_no_error_when_it_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryFile("w") as closed:
        pass
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", None)
    fork.flush_streams()


def test_a_fork_that_fails_is_an_error_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    known = descriptors()
    monkeypatch.setattr(fork.os, "fork", refuse)
    with pytest.raises(OSError, match="temporarily unavailable"):
        fork.fork_orphan()
    # In the process between it is that one's end, and its parent reads nothing.
    ended: list[int] = []
    monkeypatch.setattr(fork.os, "_exit", ended.append)
    assert fork._fork_again(-1) == 0
    assert ended == [1]
    monkeypatch.setattr(fork.os, "fork", lambda: 4242)
    monkeypatch.setattr(fork.os, "waitpid", lambda _pid, _flags: (4242, 256))
    with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
        fork.fork_orphan()
    assert descriptors() == known
