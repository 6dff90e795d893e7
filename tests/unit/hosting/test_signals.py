import asyncio
import os
import signal

from meshhost.signals import StopSignals, stop_signals


async def test_the_first_signal_asks_and_the_second_forces():
    async with asyncio.timeout(5), stop_signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.wait()
        assert not signals._forced.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await signals.wait_forced()


async def test_afterwards_signals_do_what_they_did_before():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        async with stop_signals():
            pass
        assert signal.getsignal(signal.SIGINT) is interrupt
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_further_signals_change_nothing(caplog):
    caplog.set_level("INFO")
    signals = StopSignals()
    for _ in range(3):
        signals.receive(signal.SIGTERM)
    async with asyncio.timeout(5):
        await signals.wait()
        await signals.wait_forced()
    assert [record.again for record in caplog.records] == [False, True, True]
