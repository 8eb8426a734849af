"""Tiles: some rows and columns of all streams of a chunk, what is compressed at once. They fit into a core's cache."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.store.codec import Planes, Words
from tracer.store.layout import Bytes, Layout
from tracer.store.predict import NUMBERS, REPLAY, Guess

Array = npt.NDArray[Any]
Has = Mapping[str, npt.NDArray[np.bool_]]

COLUMNS = 32 << 10  # of a tile; a vector's last tile has fewer
NUMBERS_OF_A_TILE = 128 << 10  # rows times columns


def tile_rows(layout: Layout) -> int:
    """Rows of a tile; the last ones of a chunk have fewer."""
    return max(1, NUMBERS_OF_A_TILE // min(layout.parameters, COLUMNS))


def tiles(layout: Layout, rows: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each tile of a chunk of ``rows`` steps, in the order of the archive: columns go faster."""
    height = tile_rows(layout)
    for top in range(0, rows, height):
        for left in range(0, layout.parameters, COLUMNS):
            yield slice(top, min(top + height, rows)), slice(left, min(left + COLUMNS, layout.parameters))


class TileCoder:
    """Encodes or decodes the tiles of a run in order; keeps the guess for the next point, a few vectors in size.

    ``x`` is stored as its difference to a guess of ``kind``, gradients with the sign moved to the lowest bit, ``h`` (if
    ``h_from_g``) as its difference to ``g`` of the same step. Rows that lack a stream are left out.
    """

    def __init__(self, layout: Layout, kind: str, h_from_g: bool) -> None:
        self.layout, self.kind, self.h_from_g = layout, kind, h_from_g
        width = min(layout.parameters, COLUMNS)
        room = tile_rows(layout) * width
        self.words = Words(layout.dtype, room)
        self.planes = Planes(layout.dtype, room)
        self._packed = np.empty(room, self.words.unsigned)
        self._tile = {s: np.empty(room, self.words.unsigned) for s in layout.streams}
        self._scratch = np.empty((2, width), layout.dtype)
        self._nothing = np.zeros(width, self.words.unsigned)
        self._guesses: dict[int, Guess] = {}  # per left column; made when its first tile comes

    def encode(
        self, streams: Mapping[str, Array], has: Has, numbers: Array, rows: slice, columns: slice
    ) -> list[Bytes]:
        """Pieces of bytes for one tile; ``streams`` and ``has`` are the chunk's, ``numbers`` has a row per step."""
        pieces: list[Bytes] = []
        bits = {s: v[rows, columns].view(self.words.unsigned) for s, v in streams.items()}
        height, width = rows.stop - rows.start, columns.stop - columns.start
        has = {s: v[rows] for s, v in has.items()}
        turned = {}
        for stream in self.layout.streams:
            present = _rows(has[stream])
            packed = self._packed[: len(present) * width]
            lines = packed.reshape(len(present), width)
            if stream == "x":
                guess = self._guess(columns)
                for line, i in zip(lines, present, strict=True):
                    self.words.difference(bits["x"][i], guess.bits, line)
                    self._advance(guess, bits, has, i, numbers[rows.start + i])
            else:
                own = self._tile[stream][: height * width].reshape(height, width)
                self.words.turn(bits[stream], own)
                turned[stream] = own
                if stream == "h" and self.h_from_g:
                    for line, i in zip(lines, present, strict=True):
                        self.words.difference(own[i], self._beside(turned, has, i, width), line)
                elif len(present) == height:
                    packed = own.reshape(-1)
                else:
                    np.copyto(lines, own[present])
            if present:
                pieces += self.planes.pack(packed, (stream, columns.start))
        return pieces

    def decode(self, raw: memoryview, has: Has, numbers: Array, rows: slice, columns: slice) -> dict[str, Array]:
        """Bits of one tile per stream, shape (rows, columns), valid until the next call; absent rows are zero.

        Raises:
            ValueError: ``raw`` is not what :meth:`encode` makes of a tile of this shape.
        """
        height, width = rows.stop - rows.start, columns.stop - columns.start
        has = {s: v[rows] for s, v in has.items()}
        bits = {s: v[: height * width].reshape(height, width) for s, v in self._tile.items()}
        places = {}
        for stream in self.layout.streams:
            present = _rows(has[stream])
            packed = self._tile[stream][: len(present) * width]
            if present:
                raw = self.planes.unpack(raw, packed)
            places[stream] = (present, packed.reshape(len(present), width))
        if len(raw):
            raise ValueError(f"{len(raw)} bytes are left over in a tile")
        for stream in self.layout.streams:
            present, lines = places[stream]
            if len(present) < height:
                lines = lines.copy()  # the rows move apart, and must not run over each other
                bits[stream][:] = 0
                bits[stream][present] = lines
        if "h" in bits and self.h_from_g:
            for i in places["h"][0]:
                self.words.add(bits["h"][i], self._beside(bits, has, i, width), bits["h"][i])
        for stream in self.layout.streams:
            if stream != "x":
                self.words.turn_back(bits[stream])
        guess = self._guess(columns)
        for i in places["x"][0] if "x" in bits else ():
            self.words.add(bits["x"][i], guess.bits, bits["x"][i])
            self._advance(guess, bits, has, i, numbers[rows.start + i])
        return bits

    def _guess(self, columns: slice) -> Guess:
        if columns.start not in self._guesses:
            width = columns.stop - columns.start
            self._guesses[columns.start] = Guess(self.kind, self.layout.dtype, width)
        return self._guesses[columns.start]

    def _advance(self, guess: Guess, bits: Mapping[str, Array], has: Has, i: int, numbers: Array) -> None:
        gradient = bits["g"][i] if "g" in bits and has["g"][i] else None
        guess.advance(bits["x"][i], gradient, numbers, self._scratch)

    def _beside(self, bits: Mapping[str, Array], has: Has, i: int, width: int) -> Array:
        return bits["g"][i] if "g" in bits and has["g"][i] else self._nothing[:width]


def _rows(has: npt.NDArray[np.bool_]) -> list[int]:
    return list(range(len(has))) if has.all() else np.flatnonzero(has).tolist()


def no_numbers(layout: Layout, rows: int) -> Array:
    """Numbers of a guess that needs none."""
    return np.zeros((rows, len(NUMBERS)), layout.dtype)


def needs_numbers(kind: str) -> bool:
    """Whether the guess follows a formula whose numbers stand in the archive."""
    return kind == REPLAY
