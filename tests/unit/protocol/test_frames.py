"""Packets: any message in any slicing survives, and nothing else gets through."""

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import LimitExceededError, RemoteProtocolError
from meshhost.protocol.frames import Limits, Message, OversizedMessage, PacketAssembler, check_size, packets
from tests.unit.protocol.vectors import BROKEN_STREAMS, data, header

MAX_ID = 2**64 - 1

ids = st.integers(min_value=0, max_value=MAX_ID)
# As long as the limit on types allows, at four bytes a character.
types = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=64)
messages = st.builds(Message, id=ids, type=types, data=st.binary(max_size=300))


def joined(assembler: PacketAssembler, stream: list[bytes]) -> list[Message | OversizedMessage]:
    return [message for packet in stream if (message := assembler.receive(packet)) is not None]


def refused(stream: list[bytes], *, limits: Limits = Limits()) -> RemoteProtocolError:  # noqa: B008 - immutable
    assembler = PacketAssembler(limits)
    assert joined(assembler, stream[:-1]) == []
    with pytest.raises(RemoteProtocolError) as caught:
        assembler.receive(stream[-1])
    # What was collected before the error is not in what comes after it.
    assert joined(assembler, list(packets(Message(9, "n", b"new")))) == [Message(9, "n", b"new")]
    return caught.value


def test_a_message_is_cut_as_the_protocol_says() -> None:
    cut = list(packets(Message(1, "é", b"abcde"), slice_bytes=2))

    assert cut == [
        bytes.fromhex("0000000000000001 00000000 00000003") + "é".encode(),
        bytes.fromhex("0000000000000001 00000001") + b"ab",
        bytes.fromhex("0000000000000001 00000002") + b"cd",
        bytes.fromhex("0000000000000001 00000003") + b"e",
    ]


def test_an_empty_message_has_no_data_packets() -> None:
    assert list(packets(Message(7, "", b""))) == [header(7, 0, b"")]


def test_packets_know_their_size_and_can_be_cut_again() -> None:
    cut = packets(Message(1, "t", b"abc"), slice_bytes=2)

    assert cut.size == 3
    assert list(cut) == list(cut)


@given(sent=st.lists(messages, max_size=4), slice_bytes=st.integers(min_value=1, max_value=400))
def test_messages_in_any_slicing_arrive_as_they_were(sent: list[Message], slice_bytes: int) -> None:
    stream = [packet for message in sent for packet in packets(message, slice_bytes=slice_bytes)]

    assert joined(PacketAssembler(), stream) == sent


@given(message=messages, slices=st.lists(st.binary(max_size=5), max_size=6))
def test_slices_may_be_of_unequal_size(message: Message, slices: list[bytes]) -> None:
    stream = [header(message.id, len(slices), message.type.encode())]
    stream += [data(message.id, number, payload) for number, payload in enumerate(slices, 1)]

    assert joined(PacketAssembler(), stream) == [Message(message.id, message.type, b"".join(slices))]


@pytest.mark.parametrize("message_id", [0, 1, MAX_ID])
def test_the_smallest_and_largest_ids_are_valid(message_id: int) -> None:
    message = Message(message_id, "t", b"abc")

    assert joined(PacketAssembler(), list(packets(message, slice_bytes=1))) == [message]


@pytest.mark.parametrize(
    "stream",
    BROKEN_STREAMS,
)
def test_a_broken_stream_is_refused_and_leaves_nothing_behind(stream: list[bytes]) -> None:
    error = refused(stream)

    assert error.close_code == 1002
    assert "secret" not in str(error)


def test_a_message_of_just_the_limits_is_taken() -> None:
    limits = Limits(message_bytes=4, type_bytes=2, packets=2)
    message = Message(1, "é", b"abcd")

    assert joined(PacketAssembler(limits), list(packets(message, slice_bytes=2))) == [message]


def test_a_message_over_the_limit_is_dropped_and_told_while_the_next_one_is_whole() -> None:
    assembler = PacketAssembler(Limits(message_bytes=4))
    large = [header(1, 3, b"big"), data(1, 1, b"abcd"), data(1, 2, b"e"), data(1, 3, b"fg")]
    assert joined(assembler, [*large, header(2, 1, b"t"), data(2, 1, b"abcd")]) == [
        OversizedMessage(id=1, type="big", size=7),
        Message(id=2, type="t", data=b"abcd"),
    ]


@pytest.mark.parametrize(
    ("stream", "close_code"),
    [
        ([header(1, 3)], 1009),
        ([header(1, 2**32 - 1)], 1009),
        ([header(1, 0, b"abc")], 1002),
    ],
)
def test_a_message_over_a_limit_is_refused(stream: list[bytes], close_code: int) -> None:
    error = refused(stream, limits=Limits(message_bytes=4, type_bytes=2, packets=2))

    assert error.close_code == close_code


def test_the_sender_can_ask_whether_a_message_fits() -> None:
    limits = Limits(message_bytes=4)

    check_size(4, limits)
    with pytest.raises(LimitExceededError, match="5 bytes, at most 4"):
        check_size(5, limits)


near_packets = st.one_of(
    st.binary(max_size=24),
    st.builds(header, st.integers(0, 2), st.integers(0, 3), st.binary(max_size=3), st.integers(0, 2)),
    st.builds(data, st.integers(0, 2), st.integers(0, 3), st.binary(max_size=6)),
)


@given(stream=st.lists(near_packets, max_size=12), sentinel=messages)
def test_any_bytes_raise_nothing_but_protocol_errors_and_never_leak(stream: list[bytes], sentinel: Message) -> None:
    assembler = PacketAssembler(Limits(message_bytes=512, type_bytes=256, packets=512))
    broken = False
    for packet in stream:
        try:
            assembler.receive(packet)
            broken = False
        except RemoteProtocolError:
            broken = True
    if not broken:
        # Perhaps in the middle of a message: a packet too short for any place ends that.
        with pytest.raises(RemoteProtocolError):
            assembler.receive(b"")

    assert joined(assembler, list(packets(sentinel, slice_bytes=7))) == [sentinel]


@pytest.mark.parametrize("slice_bytes", [1, 2, 3, 5, 100])
def test_what_follows_the_data_is_cut_with_it(slice_bytes: int) -> None:
    cut = packets(Message(1, "t", b"abcd"), slice_bytes=slice_bytes, tail=b"efg")

    assert cut.size == 7
    assert list(cut) == list(packets(Message(1, "t", b"abcdefg"), slice_bytes=slice_bytes))


def test_a_message_in_very_many_slices_takes_little_more_than_its_bytes() -> None:
    assembler = PacketAssembler()
    assembler.receive(header(1, 100_001))
    tracemalloc.start()
    for number in range(1, 100_001):
        assembler.receive(data(1, number, b"x"))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 200_000
    assert assembler.receive(data(1, 100_001)) == Message(1, "t", b"x" * 100_000)


def test_a_large_message_is_kept_in_pieces_and_arrives_whole() -> None:
    large = Message(1, "t", bytes(range(256)) * 16_000)

    for slice_bytes in (1024, 9 * 1024, 64 * 1024):
        assert joined(PacketAssembler(), list(packets(large, slice_bytes=slice_bytes))) == [large]
    mixed = [b"a" * 10, b"b" * 10_000, b"c" * 10, b"d" * 10]
    stream = [header(1, 4), *(data(1, number, slice_) for number, slice_ in enumerate(mixed, 1))]
    assert joined(PacketAssembler(), stream) == [Message(1, "t", b"".join(mixed))]


def test_an_unfinished_message_can_be_dropped_and_the_next_one_is_whole() -> None:
    assembler = PacketAssembler()
    first, *rest = packets(Message(1, "t", b"abcdef"), slice_bytes=2)
    assert not assembler.is_receiving
    assembler.receive(first)
    assert assembler.is_receiving
    assembler.drop()
    assert assembler.is_dropping

    assert joined(assembler, rest) == [OversizedMessage(1, "t", 6)]
    assert not assembler.is_dropping
    assert joined(assembler, list(packets(Message(2, "t", b"abc")))) == [Message(2, "t", b"abc")]


def test_a_message_with_a_header_over_the_limit_is_dropped_from_its_first_packet_on() -> None:
    assembler = PacketAssembler(Limits(header_bytes=10))
    large, fits = struct.pack(">Q", 11) + b"x" * 20, struct.pack(">Q", 10) + b"x" * 20

    assert joined(assembler, list(packets(Message(1, "t", large), slice_bytes=14))) == [
        OversizedMessage(1, "t", 28, 11)
    ]
    for slice_bytes in (7, 14, 28):
        assert joined(assembler, list(packets(Message(1, "t", fits), slice_bytes=slice_bytes))) == [
            Message(1, "t", fits)
        ]
