"""WebSocket frames are built and cut as the library does it, in whatever pieces they arrive."""

import os
import runpy
import sys

import pytest
from websockets.frames import Frame, Opcode

from meshhost.transport import frames
from meshhost.transport.frames import FrameSplitter, binary_frame, new_mask

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_of_a_server_is_the_one_of_the_library(size: int) -> None:
    packet = os.urandom(size)
    assert binary_frame(packet) == Frame(Opcode.BINARY, packet).serialize(mask=False)


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_of_a_client_is_masked(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    packet = os.urandom(size)
    monkeypatch.setattr("websockets.frames.secrets.token_bytes", lambda _: b"mask")
    assert binary_frame(packet, b"mask") == Frame(Opcode.BINARY, packet).serialize(mask=True)


def test_a_frame_is_masked_where_the_library_has_no_compiled_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    plain = runpy.run_path(frames.__file__)
    assert plain["apply_mask"].__module__ == "websockets.utils"
    for size in SIZES:
        packet = os.urandom(size)
        assert plain["binary_frame"](packet, b"mask") == binary_frame(packet, b"mask")


def test_masks_do_not_repeat() -> None:
    masks = {new_mask() for _ in range(3000)}
    assert {len(mask) for mask in masks} == {4}
    assert len(masks) > 2990


def test_a_forked_process_uses_none_of_its_parents_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    new_mask()
    new_mask.forget()
    monkeypatch.setattr(frames.os, "urandom", lambda size: b"new!" * (size // 4))
    assert new_mask() == b"new!"
    new_mask.forget()


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000, 10**9])
def test_frames_are_cut_in_whatever_pieces_they_arrive(piece: int) -> None:
    packets = [b"", b"a" * 125, b"b" * 126, b"c" * 300, b"d" * 66_000]
    ping = Frame(Opcode.PING, b"?").serialize(mask=False)
    stream = ping.join(binary_frame(packet) for packet in packets)
    splitter = FrameSplitter(100_000)
    found = [each for at in range(0, len(stream), piece) for each in splitter.split(stream[at : at + piece])]
    assert [frame for frame, is_packet in found if is_packet] == packets
    assert [frame for frame, is_packet in found if not is_packet] == [ping] * 4
    assert (splitter.is_over, splitter.rest()) == (False, b"")


@pytest.mark.parametrize(
    "refused",
    [binary_frame(b"x" * 201), binary_frame(b"x" * 70_000), binary_frame(b"x", b"mask")],
    ids=["too large", "far too large", "masked"],
)
def test_what_a_server_may_not_send_is_left_to_the_library(refused: bytes) -> None:
    splitter = FrameSplitter(200)
    assert list(splitter.split(binary_frame(b"ok") + refused)) == [(b"ok", True)]
    assert splitter.is_over
    assert splitter.rest() == refused


def test_a_frame_is_given_back_as_it_came() -> None:
    assert FrameSplitter.whole(b"packet", True) == binary_frame(b"packet")
    assert FrameSplitter.whole(b"\x89\x00", False) == b"\x89\x00"


@pytest.mark.parametrize("piece", [1, 3, 4, 1000])
def test_what_precedes_the_first_frame_is_cut_at_its_end(piece: int) -> None:
    head, rest = b"HTTP/1.1 101\r\nA: b\r\n\r\n", b"\x82\x00"
    stream, splitter = head + rest, FrameSplitter(100)
    before = b""
    for at in range(0, len(stream), piece):
        part, is_end, after = splitter.until(b"\r\n\r\n", stream[at : at + piece])
        before += part
        if is_end:
            assert before == head
            assert after + stream[at + piece :] == rest
            return
    pytest.fail("the end was not found")
