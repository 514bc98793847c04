"""Read the commands out of what a MySQL client sends, without input or output of its own.

Why: "one command per cycle" is a promise about packets, so packets are what has to be counted; a server's own
counters count COM_RESET_CONNECTION twice.

Rules (from the manual's "MySQL Packets" and "Command Phase"):
- A packet is three bytes of length, one of sequence number, and that many bytes. A command begins with sequence
  number 0; what answers the server (handshake, authentication, the content of LOAD DATA LOCAL) goes on from the
  server's number.
- A packet of 0xffffff bytes is continued by the next one; together they are one command.
- After a request for TLS, or with the compressed protocol, the stream cannot be read, and this says so instead of
  counting wrong.

It keeps the first bytes of each packet only, and looks at nothing the server says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_NAMES = {
    0x01: "COM_QUIT",
    0x02: "COM_INIT_DB",
    0x03: "COM_QUERY",
    0x04: "COM_FIELD_LIST",
    0x08: "COM_SHUTDOWN",
    0x09: "COM_STATISTICS",
    0x0A: "COM_PROCESS_INFO",
    0x0C: "COM_PROCESS_KILL",
    0x0D: "COM_DEBUG",
    0x0E: "COM_PING",
    0x11: "COM_CHANGE_USER",
    0x16: "COM_STMT_PREPARE",
    0x17: "COM_STMT_EXECUTE",
    0x18: "COM_STMT_SEND_LONG_DATA",
    0x19: "COM_STMT_CLOSE",
    0x1A: "COM_STMT_RESET",
    0x1B: "COM_SET_OPTION",
    0x1C: "COM_STMT_FETCH",
    0x1F: "COM_RESET_CONNECTION",
}
_QUERY, _INIT_DB, _PREPARE = 0x03, 0x02, 0x16
_TEXT_BYTES = 80
_KEPT_BYTES = 1 + 2 + _TEXT_BYTES  # command byte, query attributes' counts, text
_CONTINUED = 0xFFFFFF
_CLIENT_COMPRESS, _CLIENT_SSL, _CLIENT_ZSTD, _CLIENT_QUERY_ATTRIBUTES = 1 << 5, 1 << 11, 1 << 26, 1 << 27
_SSL_REQUEST_BYTES = 32


class CannotCount(RuntimeError):
    """Tell that commands were not counted: the stream was encrypted or compressed, or nobody had asked for it."""


@dataclass(frozen=True)
class Command:
    """Describe one command that a client sent.

    Attributes:
        connection: number of the connection it came by.
        code: its first byte, such as 3.
        name: the protocol's name for that, such as "COM_QUERY".
        text: the first 80 bytes of the text of COM_QUERY, COM_STMT_PREPARE and COM_INIT_DB; else empty.
        size: its bytes, packet headers not counted.
    """

    connection: int
    code: int
    name: str
    text: str
    size: int


class ClientPackets:
    """Cut one client's bytes into packets, whatever pieces they come in, and give the commands among them."""

    def __init__(self, connection: int) -> None:
        self.unreadable = ""
        self._connection = connection
        self._header = b""
        self._missing_bytes = 0
        self._sequence = 0
        self._size = 0
        self._kept = b""
        self._whole_size = 0  # of a command so far, over its packets
        self._whole_kept = b""
        self._is_continuation = False
        self._has_greeted = False
        self._has_query_attributes = False
        self._last_code = 0
        self._is_sending_file = False

    def feed(self, data: bytes) -> list[Command]:
        """Return the commands that these bytes complete."""
        commands: list[Command] = []
        position = 0
        while not self.unreadable and (position < len(data) or self._is_packet_whole()):
            position = self._take(data, position)
            if self._is_packet_whole():
                command = self._end_packet()
                if command is not None:
                    commands.append(command)
        return commands

    def _is_packet_whole(self) -> bool:
        return len(self._header) == 4 and self._missing_bytes == 0

    def _take(self, data: bytes, position: int) -> int:
        """Take header or body bytes from ``position`` on and return where they end."""
        if len(self._header) < 4:
            piece = data[position : position + 4 - len(self._header)]
            self._header += piece
            if len(self._header) == 4:
                self._size = self._missing_bytes = int.from_bytes(self._header[:3], "little")
                self._sequence = self._header[3]
            return position + len(piece)
        taken = min(self._missing_bytes, len(data) - position)
        wanted = _KEPT_BYTES - len(self._kept)
        if wanted > 0:
            self._kept += data[position : position + min(taken, wanted)]
        self._missing_bytes -= taken
        return position + taken

    def _end_packet(self) -> Command | None:
        size, kept, sequence = self._size, self._kept, self._sequence
        self._header, self._kept = b"", b""
        if not self._has_greeted:
            self._read_greeting(size, kept)
            return None
        if self._is_sending_file:
            self._is_sending_file = size > 0
            return None
        if not self._is_continuation:
            if sequence != 0:
                # An answer to the server: authentication, or the content of a file, which an empty packet ends. Its
                # sequence numbers may wrap to 0.
                self._is_sending_file = self._last_code == _QUERY and size > 0
                return None
            self._whole_size, self._whole_kept = 0, kept
        self._whole_size += size
        self._is_continuation = size == _CONTINUED
        return None if self._is_continuation else self._end_command()

    def _read_greeting(self, size: int, kept: bytes) -> None:
        """Read the client's capabilities, the first four bytes of its answer to the handshake since MySQL 4.1."""
        self._has_greeted = True
        if len(kept) < 4:
            self.unreadable = "not speaking the MySQL protocol"
            return
        (capabilities,) = struct.unpack_from("<I", kept)
        self._has_query_attributes = bool(capabilities & _CLIENT_QUERY_ATTRIBUTES)
        if capabilities & _CLIENT_SSL and size == _SSL_REQUEST_BYTES:
            self.unreadable = "encrypted"
        elif capabilities & (_CLIENT_COMPRESS | _CLIENT_ZSTD):
            self.unreadable = "compressed"

    def _end_command(self) -> Command:
        kept = self._whole_kept
        code = self._last_code = kept[0] if kept else 0
        text = b""
        if code in (_QUERY, _INIT_DB, _PREPARE):
            text = kept[1:]
            if code == _QUERY and self._has_query_attributes and text[:2] == b"\x00\x01":
                text = text[2:]
        name = _NAMES.get(code, f"COM_{code:#04x}")
        return Command(self._connection, code, name, text[:_TEXT_BYTES].decode("utf-8", "replace"), self._whole_size)
