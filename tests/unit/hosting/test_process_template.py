"""The host's side of forking, against a template that is only a socket."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from meshhost.errors import MeshhostError, RemoteProtocolError
from meshhost.hosting.processes import linux
from meshhost.hosting.processes import template as process_template
from meshhost.hosting.processes.linux import Adoption
from meshhost.hosting.processes.messages import ForkReply, fork_request, number_of_request
from meshhost.hosting.processes.template import AdoptedProcess, Template

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forking needs Linux")


def test_requests_and_replies_arrive_as_they_were_sent() -> None:
    assert number_of_request(fork_request(2**40)) == 2**40
    reply = ForkReply(7, 4242, 11)
    assert ForkReply.unpacked(reply.packed()) == reply


def test_what_is_no_request_and_no_reply_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="invalid fork request"):
        number_of_request(b"x")
    with pytest.raises(RemoteProtocolError, match="invalid reply"):
        ForkReply.unpacked(b"x")
    # Minus one would be everybody.
    with pytest.raises(RemoteProtocolError, match="impossible pid"):
        ForkReply.unpacked(ForkReply(1, -1).packed())


def test_adoption_is_on_from_the_first_user_to_the_last() -> None:
    adoption = Adoption()
    assert adoption.is_possible()
    adoption.enter()
    adoption.enter()
    assert linux.subreaper() == 1
    adoption.leave()
    assert linux.subreaper() == 1
    adoption.leave()
    assert linux.subreaper() == 0


def test_a_program_that_adopts_by_itself_goes_on_to() -> None:
    own, ours = Adoption(), Adoption()
    own.enter()
    try:
        ours.enter()
        ours.leave()
        assert linux.subreaper() == 1
    finally:
        own.leave()
    assert linux.subreaper() == 0


def test_a_system_without_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_PR_SET_CHILD_SUBREAPER", 9999)
    assert not Adoption().is_possible()


def test_only_a_child_of_this_process_can_be_adopted() -> None:
    with pytest.raises(ChildProcessError):
        AdoptedProcess(os.getppid())


def test_a_child_ends_with_its_exit_code_and_one_that_is_buried_by_a_signal() -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as child:
        adopted = AdoptedProcess(child.pid)
        assert "returncode=None" in repr(adopted)
        assert (adopted.wait(), adopted.wait(), adopted.returncode) == (3, 3, 3)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as child:
        adopted = AdoptedProcess(child.pid)
        adopted.kill_and_wait()
        assert adopted.returncode == -9


def test_a_child_that_somebody_else_waited_for_has_an_unknown_end() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        adopted = AdoptedProcess(child.pid)
        child.wait()
        assert adopted.wait() == 255


class Process:
    """In the place of a template's process: tells only whether it was ended."""

    def __init__(self) -> None:
        self.pid = 4242
        self.is_alive = True
        self.exit_text = "killed by SIGKILL"

    def kill(self, _: str) -> None:
        self.is_alive = False

    async def dispose(self) -> None:
        self.is_alive = False


@pytest.fixture
def far_end() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
async def template(far_end: tuple[socket.socket, socket.socket]) -> AsyncIterator[Any]:
    made = Template(Process(), far_end[0])  # type: ignore[arg-type]
    yield made
    made._waiting.clear()
    made._idle.set()
    await made.close()
    assert process_template.adoption._users == 0


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


def requested(theirs: socket.socket) -> int:
    packet, descriptors, _, _ = socket.recv_fds(theirs, 64, 2)
    for descriptor in descriptors:
        os.close(descriptor)
    assert len(descriptors) == 2
    return number_of_request(packet)


async def test_a_child_is_this_processs_own(template: Any, far_end: Any, child: subprocess.Popen[bytes]) -> None:
    async with asyncio.TaskGroup() as group:
        forking = group.create_task(template.fork(1, 2))
        await asyncio.sleep(0)
        assert "forking=1" in repr(template)
        assert linux.subreaper() == 1
        far_end[1].send(ForkReply(requested(far_end[1]), child.pid).packed())
        adopted, pidfd = await forking
    os.close(pidfd)
    assert linux.subreaper() == 0
    assert adopted.pid == child.pid
    adopted.kill_and_wait()


async def test_a_child_that_comes_when_its_asker_is_cancelled_is_ended(
    template: Any, far_end: Any, child: subprocess.Popen[bytes]
) -> None:
    async with asyncio.TaskGroup() as group:
        late = group.create_task(template.fork(1, 2))
        await asyncio.sleep(0)
        far_end[1].send(ForkReply(requested(far_end[1]), child.pid).packed())
        template._read()
        late.cancel()
    assert late.cancelled()
    assert child.wait() in (-signal.SIGKILL, 0)  # 0: buried, as far as `Popen` can know


async def test_a_child_is_ended_when_no_descriptor_is_left_for_it(
    template: Any, far_end: Any, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(process_template.os, "pidfd_open", refuse)
    async with asyncio.TaskGroup() as group:
        forking = group.create_task(outcome(template))
        await asyncio.sleep(0)
        far_end[1].send(ForkReply(requested(far_end[1]), child.pid).packed())
    assert forking.result() == "Too many open files"
    assert template.is_alive


async def outcome(template: Any) -> str:
    try:
        await template.fork(1, 2)
    except OSError as error:
        return error.strerror or ""
    except MeshhostError as error:
        return str(error)
    return "forked"


@pytest.mark.parametrize(
    ("answer", "text", "is_alive"),
    [
        (ForkReply(1, 0, errno.ENOMEM).packed(), "Cannot allocate memory", True),
        (ForkReply(1, 0).packed(), "no reason was given", True),
        (ForkReply(1, os.getppid()).packed(), "a forked process was not handed over: No child processes", True),
        (b"nonsense", "the template process ended while it forked", False),
        (None, "the template process ended while it forked", False),
    ],
)
async def test_why_there_is_no_child_is_told(
    template: Any, far_end: Any, answer: bytes | None, text: str, is_alive: bool
) -> None:
    async with asyncio.TaskGroup() as group:
        forking = group.create_task(outcome(template))
        await asyncio.sleep(0)
        assert requested(far_end[1]) == 1
        if answer is None:
            far_end[1].close()
        else:
            far_end[1].send(answer)
    assert forking.result() == text
    assert template.is_alive is is_alive


async def test_a_template_that_takes_no_request_is_ended(template: Any, far_end: Any) -> None:
    far_end[1].close()
    assert await outcome(template) == "the template process takes no request: Broken pipe"
    assert not template.is_alive
    assert await outcome(template) == "the template process has ended: killed by SIGKILL"


async def test_an_answer_to_nobody_is_no_matter(template: Any, far_end: Any) -> None:
    far_end[1].send(ForkReply(99, 0, errno.EAGAIN).packed())
    template._read()
    assert template.is_alive
    assert template.end_text == "did not answer"


async def test_a_template_that_owes_an_answer_is_ended_all_the_same(
    far_end: tuple[socket.socket, socket.socket],
) -> None:
    template = Template(Process(), far_end[0], fork_seconds=60.0)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        forking = group.create_task(outcome(template))
        await asyncio.sleep(0)
        await template.close(seconds=0.01)
    assert forking.result() == "the template process ended while it forked"
