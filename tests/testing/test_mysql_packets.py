"""A client's bytes become commands: each once, whatever its packets and pieces."""

from __future__ import annotations

import struct

import pytest

from millpond.testing._mysql_packets import ClientPackets

CONTINUED = 0xFFFFFF


def packet(sequence: int, body: bytes) -> bytes:
    """Return a MySQL packet."""
    return struct.pack("<I", len(body))[:3] + bytes([sequence]) + body


def greeted(capabilities: int = 0) -> ClientPackets:
    """Return a reader that has read a client's answer to the handshake."""
    reader = ClientPackets(1)
    assert [] == reader.feed(packet(1, struct.pack("<I", capabilities) + bytes(60)))
    return reader


def names(reader: ClientPackets, data: bytes) -> list[str]:
    """Return the names of the commands in these bytes."""
    return [command.name for command in reader.feed(data)]


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 1000])
def test_pieces_do_not_matter(piece: int) -> None:
    """The same commands come out however the stream is cut."""
    reader = greeted()
    stream = packet(0, b"\x03SELECT 1") + packet(0, b"\x01") + packet(0, b"\x02db") + packet(0, b"\x77?")
    commands = [each for at in range(0, len(stream), piece) for each in reader.feed(stream[at : at + piece])]
    assert [("COM_QUERY", "SELECT 1", 9), ("COM_QUIT", "", 1), ("COM_INIT_DB", "db", 3), ("COM_0x77", "", 2)] == [
        (command.name, command.text, command.size) for command in commands
    ]


def test_command_over_several_packets_counts_once() -> None:
    """A statement of more than 16 MiB is one command, also when it ends on the bound."""
    reader = greeted()
    body = b"\x03" + b"x" * (CONTINUED - 1)
    (long,) = reader.feed(packet(0, body) + packet(1, b"y" * 10))
    assert (CONTINUED + 10, "x" * 80) == (long.size, long.text)
    (exact,) = reader.feed(packet(0, body) + packet(1, b""))
    assert CONTINUED == exact.size
    assert ["COM_PING"] == names(reader, packet(0, b"\x0e"))


def test_answers_in_the_handshake_are_no_commands() -> None:
    """Packets that go on from the server's sequence number are not counted."""
    reader = greeted()
    assert [] == names(reader, packet(3, b"secret") + packet(5, b"\x02"))
    assert ["COM_QUERY"] == names(reader, packet(0, b"\x03SELECT 2"))


def test_content_of_a_local_file_is_no_command() -> None:
    """LOAD DATA LOCAL sends packets whose numbers wrap to 0; an empty one ends them."""
    reader = greeted()
    assert ["COM_QUERY"] == names(reader, packet(0, b"\x03LOAD DATA LOCAL INFILE 'f' INTO TABLE t"))
    content = b"".join(packet(number % 256, b"\x03row") for number in range(2, 600))
    assert [] == names(reader, content + packet(600 % 256, b""))
    assert ["COM_PING"] == names(reader, packet(0, b"\x0e"))


def test_empty_local_file() -> None:
    """A file without content is one empty packet, and the next command counts."""
    reader = greeted()
    stream = packet(0, b"\x03LOAD DATA LOCAL") + packet(2, b"") + packet(0, b"\x0e")
    assert ["COM_QUERY", "COM_PING"] == names(reader, stream)


def test_change_of_user_with_its_answers_is_one_command() -> None:
    """What answers the server after COM_CHANGE_USER is not counted."""
    reader = greeted()
    assert ["COM_CHANGE_USER"] == names(reader, packet(0, b"\x11user\0") + packet(2, b"scramble") + packet(4, b"more"))
    assert ["COM_QUIT"] == names(reader, packet(0, b"\x01"))


def test_query_attributes_are_not_text() -> None:
    """The two counts that clients with query attributes send before the text are left out of it."""
    (with_attributes,) = greeted(1 << 27).feed(packet(0, b"\x03\x00\x01SELECT 3"))
    assert "SELECT 3" == with_attributes.text


def test_text_is_bounded_and_never_fails_to_decode() -> None:
    """Eighty bytes of text are kept, whatever they are."""
    (command,) = greeted().feed(packet(0, b"\x03" + b"\xff" * 200))
    assert "\ufffd" * 80 == command.text


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (struct.pack("<I", 1 << 11) + bytes(28), "encrypted"),
        (struct.pack("<I", 1 << 5) + bytes(60), "compressed"),
        (struct.pack("<I", 1 << 26) + bytes(60), "compressed"),
        (b"", "not speaking the MySQL protocol"),
    ],
)
def test_what_cannot_be_read_says_why(answer: bytes, reason: str) -> None:
    """After a request for TLS or with compression nothing is taken for a command."""
    reader = ClientPackets(1)
    assert [] == reader.feed(packet(1, answer) + packet(0, b"\x0e") + b"\x16\x03\x01")
    assert reason == reader.unreadable
    assert [] == reader.feed(packet(0, b"\x0e"))
