"""Vectors made small without loss: differences of bits, byte planes, zstd level 1.

What is stored is the difference of a float's bits to those of a guess, zigzag (small in absolute value becomes small),
then all lowest bytes together, all second ones, and so on. Planes of noise stay as they are: zstd would only cost time.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.store.layout import Bytes

Array = npt.NDArray[Any]
Compress = Callable[[Bytes], Bytes]

RAW, ZSTD, PAIR, JOINED, NIBBLE = range(5)
# of a byte plane: PAIR is this one and the next as 16-bit words, JOINED that next, NIBBLE half a byte for common values
GAIN = 0.97  # a plane is compressed if that makes it at least 3 % smaller
QUICK = 0.15  # zstd is fast on planes that it makes this small; on others half bytes are ten times as fast, and
SLACK = 0.20  # may be larger by so much of the plane
LOOK = 8 << 10  # words that such a look looks at
AGAIN = 16  # packs between two looks at which planes gain
SPARSE = 16  # zeros are left out, and a bit per word says where, if more than one word in so many is zero
_SIZE = struct.Struct("<Q")


class Words:
    """Integer arithmetic on the bits of up to ``count`` floats of one dtype; all results go to arrays that exist.

    Floats of one sign are ordered as their bits are, so near floats have a small difference of bits. Where the signs
    differ it is large, and no less right: the arithmetic wraps around.
    """

    def __init__(self, dtype: str, count: int) -> None:
        size = np.dtype(dtype).itemsize
        self.unsigned, self.signed = np.dtype(f"<u{size}"), np.dtype(f"<i{size}")
        self._top, self._one = self.signed.type(8 * size - 1), self.unsigned.type(1)
        self._high = self.unsigned.type(8 * size - 1)
        self._scratch = np.empty(count, self.unsigned)

    def difference(self, bits: Array, guess: Array, out: Array) -> None:
        """``out`` = zigzag of ``bits - guess``, elementwise; all are unsigned words, ``out`` is none of the others."""
        sign = self._scratch[: len(bits)]
        np.subtract(bits, guess, out=out)
        np.right_shift(out.view(self.signed), self._top, out=sign.view(self.signed))
        np.left_shift(out, self._one, out=out)
        np.bitwise_xor(out, sign, out=out)

    def add(self, zigzag: Array, guess: Array, out: Array) -> None:
        """The inverse: ``out`` such that ``difference(out, guess)`` is ``zigzag``; ``out`` may be ``zigzag``."""
        sign = self._scratch[: len(zigzag)]
        np.bitwise_and(zigzag, self._one, out=sign)
        np.negative(sign, out=sign)
        np.right_shift(zigzag, self._one, out=out)
        np.bitwise_xor(out, sign, out=out)
        np.add(out, guess, out=out)

    def turn(self, bits: Array, out: Array) -> None:
        """Move the sign to the lowest bit: the exponent then fills the highest byte. ``out`` may be ``bits``."""
        sign = self._scratch[: bits.size].reshape(bits.shape)
        np.right_shift(bits, self._high, out=sign)
        np.left_shift(bits, self._one, out=out)
        np.bitwise_or(out, sign, out=out)

    def turn_back(self, bits: Array) -> None:
        """The inverse, in place."""
        sign = self._scratch[: bits.size].reshape(bits.shape)
        np.left_shift(bits, self._high, out=sign)
        np.right_shift(bits, self._one, out=bits)
        np.bitwise_or(bits, sign, out=bits)


class Planes:
    """Words as byte planes, each raw or compressed; which, is measured now and then and written before them.

    Where many words are zero, a bit per word says which are not, and the planes hold only those.
    """

    def __init__(self, dtype: str, count: int) -> None:
        self.unsigned = np.dtype(f"<u{np.dtype(dtype).itemsize}")
        self.codec = pa.Codec("zstd", 1)
        size = self.unsigned.itemsize
        self._head = struct.Struct(f"<II{size}B{size}I")  # words in the planes, bytes of bits, modes, bytes of planes
        self._shifted = np.empty(count, self.unsigned)
        self._bytes = np.empty(count, np.uint8)
        self._present = np.empty(count, np.bool_)
        self._known: dict[object, tuple[list[int], int]] = {}

    def pack(self, words: Array, key: object) -> list[Bytes]:
        """Pieces of bytes that :meth:`unpack` understands; packs of one ``key`` share the choice of planes."""
        present = np.not_equal(words, 0, out=self._present[: len(words)])
        count, places = int(np.count_nonzero(present)), b""
        if len(words) - count > len(words) // SPARSE:
            places = self.codec.compress(np.packbits(present))
            words = np.compress(present, words)  # several times as fast as words[present]
        if not len(words):
            return [self._head.pack(0, len(places), *(0,) * (2 * self.unsigned.itemsize)), places]
        modes, left = self._known.get(key, ([], 0))
        if left == 0:
            modes, left = self._choose(words), AGAIN
        self._known[key] = (modes, left - 1)
        used = list(modes)
        pieces: list[Bytes] = []
        for i, mode in enumerate(modes):
            if mode == JOINED:
                pieces.append(b"")
            elif mode == PAIR:
                pieces.append(self._part(words, i, np.empty(len(words), "<u2")))
            else:
                plane = self._part(words, i, self._bytes[: len(words)])
                piece = None
                if mode == ZSTD:
                    piece = self.codec.compress(plane)
                elif mode >= NIBBLE:
                    used[i], piece = NIBBLE, pack_halves(plane, mode >> 8)
                if piece is None or len(piece) >= len(words):
                    piece, used[i] = plane.tobytes(), RAW
                pieces.append(piece)
        lengths = (memoryview(p).nbytes for p in pieces)
        return [self._head.pack(len(words), len(places), *used, *lengths), places, *pieces]

    def unpack(self, raw: memoryview, out: Array) -> memoryview:
        """Fill ``out`` from the front of ``raw`` and return the rest.

        Raises:
            ValueError: ``raw`` is not what :meth:`pack` makes of ``len(out)`` words.
        """
        size = self.unsigned.itemsize
        if len(raw) < self._head.size:
            raise ValueError("a tile ends early")
        count, bits, *fields = self._head.unpack_from(raw)
        raw = raw[self._head.size :]
        if bits == 0 and count == len(out):
            return self._unpack_planes(raw, fields[:size], fields[size:], out)
        places = np.frombuffer(decompress(self.codec, raw[:bits], (len(out) + 7) // 8), np.uint8)
        present = np.unpackbits(places, count=len(out)).view(np.bool_)
        if np.count_nonzero(present) != count:
            raise ValueError("a tile of another number of words")
        words = np.empty(count, self.unsigned)
        raw = self._unpack_planes(raw[bits:], fields[:size], fields[size:], words) if count else raw[bits:]
        out[:] = 0
        out[np.flatnonzero(present)] = words
        return raw

    def _unpack_planes(self, raw: memoryview, modes: list[int], lengths: list[int], out: Array) -> memoryview:
        size, n = self.unsigned.itemsize, len(out)
        for i, (mode, length) in enumerate(zip(modes, lengths, strict=True)):
            piece, raw = raw[:length], raw[length:]
            if len(piece) != length:
                raise ValueError("a tile ends early")
            if mode == ZSTD:
                out.view(np.uint8)[i::size] = np.frombuffer(decompress(self.codec, piece, n), np.uint8)
            elif mode == NIBBLE:
                out.view(np.uint8)[i::size] = unpack_halves(piece, n)
            elif mode == RAW and length == n:
                out.view(np.uint8)[i::size] = np.frombuffer(piece, np.uint8)
            elif mode == PAIR and length == 2 * n and i % 2 == 0 and modes[i + 1] == JOINED:
                out.view("<u2")[i // 2 :: size // 2] = np.frombuffer(piece, "<u2")
            elif not (mode == JOINED and length == 0 and i % 2 == 1 and modes[i - 1] == PAIR):
                raise ValueError(f"a byte plane of mode {mode} and {length} bytes")
        return raw

    def _choose(self, words: Array) -> list[int]:
        words = words[:LOOK]
        modes = []
        for i in range(self.unsigned.itemsize):
            plane = self._part(words, i, self._bytes[: len(words)])
            compressed = len(self.codec.compress(plane)) / len(plane)
            counts = np.bincount(plane, minlength=256)
            common = np.convolve(np.tile(counts, 2), np.ones(15, int))[14 : 14 + 256]  # of 15 values from each on
            base = int(common.argmax())
            halves = 1.5 - int(common[base]) / len(plane)
            mode = ZSTD if compressed < GAIN else RAW
            if halves < GAIN and compressed > QUICK and halves < compressed + SLACK:
                mode = NIBBLE | base << 8
            modes.append(mode)
        for i in range(0, len(modes), 2):
            if modes[i : i + 2] == [RAW, RAW]:
                modes[i : i + 2] = [PAIR, JOINED]
        return modes

    def _part(self, words: Array, byte: int, out: Array) -> Array:
        """Byte ``byte`` of each word and as many above it as ``out`` has room for."""
        if byte:
            shifted = self._shifted[: len(words)]
            np.right_shift(words, self.unsigned.type(8 * byte), out=shifted)
            words = shifted
        np.copyto(out, words, casting="unsafe")
        return out


def pack_halves(plane: Array, base: int) -> bytes:
    """A byte plane with half a byte for each of the 15 values from ``base`` on; the others stand at the end."""
    half = (len(plane) + 1) // 2
    codes = np.zeros(2 * half, np.uint8)
    np.subtract(plane, np.uint8(base), out=codes[: len(plane)])
    rare = codes[: len(plane)] > 14
    np.bitwise_or(codes[: len(plane)], np.negative(rare.view(np.uint8)), out=codes[: len(plane)])  # 15 in the low half
    np.bitwise_and(codes[:half], 15, out=codes[:half])
    np.multiply(codes[half:], 16, out=codes[half:])  # numpy's shift of bytes is an order slower
    np.bitwise_or(codes[:half], codes[half:], out=codes[:half])
    return bytes([base]) + codes[:half].tobytes() + np.compress(rare, plane).tobytes()


def unpack_halves(piece: memoryview, count: int) -> Array:
    """The inverse.

    Raises:
        ValueError: ``piece`` does not hold ``count`` bytes.
    """
    half = (count + 1) // 2
    raw = np.frombuffer(piece, np.uint8)
    if len(raw) < 1 + half:
        raise ValueError("a byte plane ends early")
    codes = np.empty(2 * half, np.uint8)
    np.bitwise_and(raw[1 : 1 + half], 15, out=codes[:half])
    np.right_shift(raw[1 : 1 + half], 4, out=codes[half:])
    codes = codes[:count]
    rare = codes == 15
    if np.count_nonzero(rare) != len(raw) - 1 - half:
        raise ValueError("a byte plane of another number of rare values")
    np.add(codes, raw[0], out=codes)
    codes[np.flatnonzero(rare)] = raw[1 + half :]
    return codes


def pack(data: Bytes) -> bytes:
    """``data`` compressed, its size before it."""
    view = memoryview(data).cast("B")
    return _SIZE.pack(len(view)) + bytes(pa.Codec("zstd", 1).compress(view) if len(view) else b"")


def unpack(raw: Bytes, limit: int) -> bytes:
    """What :func:`pack` was given.

    Raises:
        ValueError: damaged, or larger than ``limit`` bytes; nothing larger is ever allocated.
    """
    if len(raw) < _SIZE.size:
        raise ValueError("a packed part ends early")
    (size,) = _SIZE.unpack_from(raw)
    if size > limit:
        raise ValueError(f"a part of {size} bytes where at most {limit} are expected")
    return bytes(decompress(pa.Codec("zstd", 1), memoryview(raw)[_SIZE.size :], size)) if size else b""


def decompress(codec: Any, piece: Bytes, size: int) -> Bytes:
    """Exactly ``size`` bytes; whatever the piece says of itself, no more than that is allocated."""
    try:
        found = codec.decompress(piece, size) if len(piece) else b""
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"not readable as zstd ({error!s:.100})") from None
    if len(found) != size:
        raise ValueError(f"zstd gave {len(found)} bytes instead of {size}")
    return found
