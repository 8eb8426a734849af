"""The frames of an archive: numbered, hashed, read and written in one go from front to end, without seeking."""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import xxhash

from tracer.errors import FormatError
from tracer.store.layout import Bytes, digest

MAGIC = b"lemmata archive\n"
PREFIX = struct.Struct("<4sIQQQ")  # kind, number, length, hash of the payload, hash of the prefix up to here
END = struct.Struct("<QQQ16s")  # where the index begins, frames before the end, steps, hash of all their prefixes
PIECE = 1 << 20

HEAD, MANIFEST, CHUNK, COMMITS, NUMBERS, TILE, RECORDS, BATCHES, INDEX, LAST = (
    b"HEAD", b"MANI", b"CHNK", b"CMIT", b"NUMB", b"TILE", b"RECS", b"BTCH", b"INDX", b"END\n",
)  # fmt: skip
LIMIT = 80 << 20  # bytes of one frame


@dataclass(frozen=True)
class End:
    """The last frame: where the index begins, how many frames stand before it, how many steps the archive holds."""

    index: int
    frames: int
    steps: int
    prefixes: bytes  # 128-bit xxh3 of the prefixes of all frames before it, and so of everything


class FrameWriter:
    """Writes the magic and then frames to a binary file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._state = file, xxhash.xxh3_128()
        self.frames, self.bytes = 0, len(MAGIC)
        file.write(MAGIC)

    def write(self, kind: bytes, *pieces: Bytes) -> None:
        """Append one frame whose payload is the pieces one after the other."""
        state = xxhash.xxh3_64()
        length = 0
        for piece in pieces:
            state.update(piece)
            length += memoryview(piece).nbytes
        front = PREFIX.pack(kind, self.frames, length, state.intdigest(), 0)[:-8]
        prefix = front + digest(front).to_bytes(8, "little")
        self._state.update(prefix)
        self._file.write(prefix)
        for piece in pieces:
            self._file.write(piece)
        self.frames += 1
        self.bytes += len(prefix) + length

    def end(self, index: int, steps: int) -> None:
        """Append the last frame."""
        self.write(LAST, END.pack(index, self.frames, steps, self._state.digest()))


class FrameReader:
    """Reads what :class:`FrameWriter` wrote, each frame checked before it is given out.

    ``name`` is what errors call the archive, ``size`` its length in bytes where that is known.
    """

    def __init__(self, file: Any, name: str, size: int | None) -> None:
        self._file, self.name, self.size = file, name, size
        self._state = xxhash.xxh3_128()
        self.frames = self.bytes = 0
        found = self._file.read(len(MAGIC)) or b""
        if found != MAGIC:
            raise FormatError(
                f"{name}: begins with {found!r:.40}, not with {MAGIC!r}; this is no archive of lemmata. "
                "`lemmata archive` makes one from a recorded run."
            )
        self.bytes = len(MAGIC)

    def broken(self, found: object) -> FormatError:
        """The error for something wrong at this place."""
        return FormatError(
            f"{self.name}: frame {self.frames}, byte {self.bytes}: {found}. Fetch the archive again from its source."
        )

    def read(self, *kinds: bytes) -> tuple[bytes, memoryview]:
        """Kind and payload of the next frame, which must be one of ``kinds``.

        Raises:
            FormatError: cut off, damaged, or another kind.
        """
        before = self._state.digest()
        prefix = self._exactly(PREFIX.size)
        kind, number, length, payload_hash, check = PREFIX.unpack(prefix)
        if digest(prefix[:-8]) != check:
            raise self.broken("the prefix does not match its hash")
        if kind not in kinds or number != self.frames:
            names = " or ".join(k.decode().strip() for k in kinds)
            raise self.broken(f"frame {number} of kind {kind!r} where frame {self.frames}, {names}, is expected")
        if length > LIMIT or (self.size is not None and self.bytes + PREFIX.size + length > self.size):
            raise self.broken(f"promises {length} bytes, more than there are or than a frame may have")
        payload = self._exactly(length)
        if digest(payload) != payload_hash:
            raise self.broken("the payload does not match its hash")
        if kind == LAST:
            self._check_end(payload, before)
        self._state.update(prefix)
        self.frames += 1
        self.bytes += len(prefix) + length
        return kind, memoryview(payload)

    def _exactly(self, count: int) -> bytes:
        """The next ``count`` bytes; memory grows only with what really arrives."""
        parts, left = [], count
        while left:
            part = self._file.read(min(left, PIECE))
            if not part:
                raise self.broken("the archive ends here; it is cut off")
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_end(self, payload: bytes, prefixes: bytes) -> None:
        if len(payload) != END.size:
            raise self.broken("an end of the wrong size")
        end = End(*END.unpack(payload))
        if (end.frames, end.prefixes) != (self.frames, prefixes):
            raise self.broken("its end belongs to other frames")
        if self._file.read(1):
            raise self.broken("there are bytes behind the end")
