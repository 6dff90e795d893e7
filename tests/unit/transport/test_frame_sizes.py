"""The frames of a WebSocket, followed in the bytes that arrive in any pieces."""

import random

from meshhost.transport.frame_sizes import TINY, FrameSizes


def frame(payload: int, *, opcode: int = 2, final: bool = True, masked: bool = True) -> bytes:
    bit = 0x80 if masked else 0
    if payload < 126:
        size = bytes([bit | payload])
    elif payload < 65536:
        size = bytes([bit | 126]) + payload.to_bytes(2)
    else:
        size = bytes([bit | 127]) + payload.to_bytes(8)
    return bytes([(0x80 if final else 0) | opcode]) + size + (b"mask" if masked else b"") + b"\xff" * payload


def test_a_message_is_announced_by_the_header_of_its_frame() -> None:
    sizes, data = FrameSizes(), frame(100_000)
    sizes.feed(data[:13])
    assert (sizes.announced, sizes.is_unfinished) == (0, True)
    sizes.feed(data[13:14])
    assert (sizes.announced, sizes.finished) == (100_000, 0)
    sizes.feed(data[14:-1])
    assert sizes.is_unfinished
    sizes.feed(data[-1:])
    assert (sizes.announced, sizes.finished, sizes.is_unfinished) == (0, 1, False)


def test_a_message_in_several_frames_is_announced_as_they_come_and_control_frames_between_are_not() -> None:
    sizes = FrameSizes()
    sizes.feed(frame(70_000, final=False) + frame(5, opcode=9) + frame(300, opcode=0, final=False))
    assert (sizes.announced, sizes.finished) == (70_300, 0)
    sizes.feed(frame(0, opcode=10) + frame(0, opcode=0))
    assert (sizes.announced, sizes.finished, sizes.is_unfinished) == (0, 1, False)
    sizes.feed(frame(7, opcode=9)[:4])
    assert (sizes.announced, sizes.is_unfinished) == (0, True)


def test_pieces_of_any_size_are_followed_alike() -> None:
    chance = random.Random(7)
    payloads = [chance.choice([0, 1, 125, 126, 127, 65_535, 65_536, 70_000]) for _ in range(60)]
    data = b"".join(frame(payload, masked=chance.random() < 0.5) for payload in payloads)
    for most in (1, 7, 20_000, len(data)):
        sizes, at = FrameSizes(), 0
        while at < len(data):
            size = chance.randint(1, most) if most > 1 else 1
            sizes.feed(data[at : at + size])
            at += size
            if most == 1 and at > 2_000:
                break
        else:
            assert (sizes.finished, sizes.is_unfinished) == (len(payloads), False)


def test_frames_that_carry_next_to_nothing_are_counted() -> None:
    sizes = FrameSizes()
    sizes.feed(frame(12) + frame(TINY, final=False) + frame(TINY, opcode=0))
    assert sizes.idle == 0  # whole messages may be small, and pieces may be many
    sizes.feed(frame(3, opcode=9) + frame(0, opcode=10))
    assert sizes.idle == 2
    sizes.feed(frame(TINY - 1, final=False) + frame(0, opcode=0, final=False) + frame(1, opcode=0))
    assert sizes.idle == 5
    sizes.feed(frame(0) + frame(11))
    assert (sizes.idle, sizes.finished) == (7, 5)


def test_no_more_is_looked_at_when_too_many_carry_nothing() -> None:
    sizes = FrameSizes()
    sizes.feed(frame(0, opcode=9) * 1000, most_idle=10)
    assert sizes.idle == 11


def test_the_short_rest_of_a_large_message_is_not_counted() -> None:
    """Chromium cuts a message of a little over 64 KiB into a frame of 64 KiB and one of the rest."""
    sizes = FrameSizes()
    sizes.feed((frame(65536, final=False) + frame(12, opcode=0)) * 1000)
    assert (sizes.idle, sizes.finished) == (0, 1000)
    sizes.feed(frame(65536, final=False) + frame(12, opcode=0, final=False) + frame(0, opcode=0))
    assert sizes.idle == 1  # in the middle it is, and so is the rest of a small one
    sizes.feed(frame(1000, final=False) + frame(12, opcode=0))
    assert sizes.idle == 2
