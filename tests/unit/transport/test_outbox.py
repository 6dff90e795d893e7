"""What waits to be sent on a connection."""

import asyncio

import pytest
from doubles.memory_transport import MemoryTransport

from meshhost.errors import ConnectionLostError, LimitExceededError
from meshhost.protocol.frames import Message, Packets, packets
from meshhost.transport.outbox import Outbox


def _message(number: int, size: int = 10) -> Packets:
    return packets(Message(number, "t", b"x" * size), slice_bytes=4)


async def _run(outbox: Outbox) -> ConnectionLostError | None:
    try:
        await outbox.run()
    except ConnectionLostError as error:
        return error


async def test_messages_go_out_in_order_and_whole() -> None:
    near, far = MemoryTransport.pair()
    outbox = Outbox(near, max_bytes=100)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(outbox.run())
        outbox.offer(_message(1))
        await outbox.put(_message(2))
        await outbox.wait_empty()
        running.cancel()
    expected = [*_message(1), *_message(2)]
    assert [await far.receive() for _ in expected] == expected


async def test_an_empty_outbox_is_empty_at_once() -> None:
    await Outbox(MemoryTransport.pair()[0], max_bytes=1).wait_empty()


async def test_too_much_is_refused() -> None:
    outbox = Outbox(MemoryTransport.pair()[0], max_bytes=15)
    outbox.offer(_message(1, size=1000))  # one message of any size
    with pytest.raises(LimitExceededError):
        outbox.offer(_message(2))


async def test_putting_waits_for_room_and_keeps_the_order() -> None:
    near, far = MemoryTransport.pair()
    outbox = Outbox(near, max_bytes=15)
    far.hold()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(outbox.run())
        await outbox.put(_message(1))
        waiting = [tasks.create_task(outbox.put(_message(number, size=11 - number))) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        waiting[1].cancel()
        far.release()
        await asyncio.wait(waiting)
        await outbox.wait_empty()
        running.cancel()
    ids = [packet[7] for packet in near.sent if packet[8:12] == b"\0\0\0\0"]
    assert ids == [1, 2, 4]


async def test_nobody_waits_for_room_after_the_end() -> None:
    near, far = MemoryTransport.pair()
    outbox = Outbox(near, max_bytes=15)
    far.hold()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_run(outbox))
        await outbox.put(_message(1))
        waiting = [tasks.create_task(_put(outbox, _message(number))) for number in (2, 3)]
        await asyncio.sleep(0)
        near.break_connection()
    assert isinstance(running.result(), ConnectionLostError)
    assert all(isinstance(task.result(), ConnectionLostError) for task in waiting)


async def _put(outbox: Outbox, message: Packets) -> ConnectionLostError | None:
    try:
        await outbox.put(message)
    except ConnectionLostError as error:
        return error
    return None


async def test_a_cancelled_sender_tears_no_message() -> None:
    near, _ = MemoryTransport.pair()
    outbox = Outbox(near, max_bytes=1_000_000)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(outbox.run())
        putting = tasks.create_task(outbox.put(_message(1, size=400)))
        await asyncio.sleep(0)
        putting.cancel()
        await outbox.wait_empty()
        running.cancel()
    assert near.sent == list(_message(1, size=400))


async def test_what_was_not_sent_before_the_end_is_not_taken_for_sent() -> None:
    near, far = MemoryTransport.pair()
    outbox = Outbox(near, max_bytes=1000)
    far.hold()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(_run(outbox))
        await outbox.put(_message(1))
        waiting = tasks.create_task(_wait_empty(outbox))
        await asyncio.sleep(0)
        near.break_connection()
    assert isinstance(waiting.result(), ConnectionLostError)


async def _wait_empty(outbox: Outbox) -> ConnectionLostError | None:
    try:
        await outbox.wait_empty()
    except ConnectionLostError as error:
        return error
    return None


async def test_what_is_taken_at_once_needs_no_task() -> None:
    near, _ = MemoryTransport.pair()
    outbox, started = Outbox(near, max_bytes=100), []
    outbox.begin(lambda: started.append(1))
    outbox.offer(_message(1))
    await outbox.put(_message(2))
    await outbox.wait_empty()
    assert (near.sent, started) == ([*_message(1), *_message(2)], [])


async def test_what_cannot_be_taken_at_once_is_written_by_one_task_in_order() -> None:
    near, far = MemoryTransport.pair()
    outbox = Outbox(near, max_bytes=10_000_000)
    outbox.offer(_message(1))  # before it began
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        writers: list[asyncio.Task[None]] = []
        outbox.begin(lambda: writers.append(tasks.create_task(outbox.write())))
        outbox.offer(_message(2))
        await outbox.wait_empty()
        far.hold()
        outbox.offer(_message(3, size=100_000))
        outbox.offer(_message(4))
        await asyncio.sleep(0)
        far.release()
        await outbox.wait_empty()
    ids = [packet[7] for packet in near.sent if packet[8:12] == b"\0\0\0\0"]
    assert (ids, len(writers)) == ([1, 2, 3, 4], 2)


async def test_the_writing_task_hears_of_a_connection_that_was_lost_meanwhile() -> None:
    near, _ = MemoryTransport.pair()
    outbox, started = Outbox(near, max_bytes=100), []
    outbox.begin(lambda: started.append(1))
    near.break_connection()
    outbox.offer(_message(1))
    assert started == [1]
    with pytest.raises(ConnectionLostError):
        await outbox.write()
    with pytest.raises(ConnectionLostError):
        await outbox.put(_message(2))


class _Budget:
    """Takes what it is told to."""

    def __init__(self, *, has_room: bool) -> None:
        self.has_room = has_room
        self.held = 0
        self.asked = asyncio.Event()
        self.granted = asyncio.Event()

    def take(self, size: int, *, may_refuse: bool = True) -> bool:
        if may_refuse and not self.has_room:
            return False
        self.held += size
        return True

    async def reserve(self, size: int) -> None:
        self.asked.set()
        await self.granted.wait()
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size


async def test_what_waits_is_held_in_the_budget_until_it_is_sent() -> None:
    near, far = MemoryTransport.pair()
    budget = _Budget(has_room=True)
    outbox = Outbox(near, max_bytes=1000, budget=budget)
    far.hold()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(outbox.run())
        outbox.offer(_message(1))
        await outbox.put(_message(2))
        assert budget.held == 20
        far.release()
        await outbox.wait_empty()
        running.cancel()
    assert budget.held == 0


async def test_without_room_in_the_budget_an_idle_outbox_takes_one_offer_and_senders_wait() -> None:
    near, _ = MemoryTransport.pair()
    budget = _Budget(has_room=False)
    outbox = Outbox(near, max_bytes=1000, budget=budget)
    outbox.offer(_message(1))
    with pytest.raises(LimitExceededError, match="of all participants"):
        outbox.offer(_message(2))
    outbox.offer(_message(3), over_limit=True)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        putting = tasks.create_task(outbox.put(_message(4)))
        await budget.asked.wait()
        assert not putting.done()
        budget.granted.set()
        await putting
        assert budget.held == 30
        budget.take(8, may_refuse=False)
        await outbox.put(_message(5), reserved=8)
        assert budget.held == 40


async def test_what_was_reserved_for_a_message_that_is_not_sent_is_given_back() -> None:
    near, _ = MemoryTransport.pair()
    budget = _Budget(has_room=True)
    outbox = Outbox(near, max_bytes=1000, budget=budget)
    outbox.begin(lambda: None)
    budget.take(8)
    await outbox.put(_message(1), reserved=8)  # sent at once
    assert budget.held == 0
    outbox.end()
    budget.take(8)
    with pytest.raises(ConnectionLostError):
        await outbox.put(_message(2), reserved=8)
    assert budget.held == 0
