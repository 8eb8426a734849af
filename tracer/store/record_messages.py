"""A step record as an Arrow message in microseconds.

pyarrow takes 90 µs for a batch of one row, and several times that between the steps of a training, when nothing of it
is left in the cache; all the while no other Python thread runs. But two messages whose nulls are the same differ in
their numbers only. So pyarrow writes one message per pattern of types and nulls, says where in it each number went, and
from then on the numbers are packed in there. A template is used only if it gives back pyarrow's own bytes; whatever it
does not fit is left to pyarrow. tests/test_record_messages.py compares the two on records drawn at random.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from tracer.errors import UsageError

Row = tuple[Any, ...]  # a step record's values in the order of the schema, None for null

_CODES: dict[str, tuple[str, tuple[type, ...]]] = {  # Arrow's type to struct's letter, and what packs as pyarrow would
    "int64": ("q", (int, np.int64)),
    "double": ("d", (float, np.float64)),
    "bool": ("?", (bool, np.bool_)),
}
_PROBES = {"q": (0x0123456789ABCDEF, -2), "d": (1.1, -2e300), "?": (True, False)}


@dataclass(frozen=True)
class _Template:
    """Messages of one pattern: their first bytes, which values of a row are not null, and how to pack those."""

    head: bytes
    chosen: Callable[[Row], tuple[Any, ...]]
    pack: Callable[..., bytes]

    def message(self, row: Row) -> bytes:
        return self.head + self.pack(*self.chosen(row))


@dataclass(frozen=True)
class _Pattern:
    """Records with the same names in the same order and values of the same types.

    ``row`` puts their values, and a None behind them, into the order of the schema.
    """

    row: Callable[[Row], Row]
    template: _Template | None  # None where only pyarrow can


class RecordMessages:
    """Encodes step records of one schema, and gathers them into a table."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._names = tuple(schema.names)
        self._patterns: dict[tuple[Any, ...], _Pattern] = {}
        self._batch((None,) * len(self._names))  # pyarrow's first call imports for 0.2 s: now, not beside training

    def encode(self, record: Mapping[str, Any]) -> tuple[bytes, Row]:
        """The message of one step record, the bytes that pyarrow would write, and the values that are in it.

        Raises:
            UsageError: the record has a column that the schema lacks.
            pa.ArrowInvalid, OverflowError: a value does not fit its column.
        """
        values = (*record.values(), None)
        key = (*record, *map(type, values))
        pattern = self._patterns.get(key)
        if pattern is None:
            pattern = self._patterns[key] = self._pattern(tuple(record), values)
        row = pattern.row(values)
        if pattern.template is not None:
            try:
                return pattern.template.message(row), row
            except struct.error:  # too large for its column: pyarrow has the words for it
                pass
        batch = self._batch(row)
        return _bytes(batch), tuple(column[0].as_py() for column in batch.columns)

    def table(self, rows: list[Row]) -> pa.Table:
        """The records that :meth:`encode` gave back, one row each."""
        columns = zip(*rows, strict=True) if rows else ((),) * len(self._names)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self.schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _batch(self, row: Row) -> pa.RecordBatch:
        arrays = [pa.array([value], field.type) for value, field in zip(row, self.schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _pattern(self, names: tuple[str, ...], values: Row) -> _Pattern:
        if unknown := sorted(set(names) - set(self._names)):
            raise UsageError(f"step record has unknown columns {unknown}; known are {list(self._names)}.")
        row = itemgetter(*(names.index(name) if name in names else -1 for name in self._names))
        return _Pattern(row, self._template(tuple(map(type, row(values)))))

    def _template(self, kinds: tuple[type, ...]) -> _Template | None:
        """How to make messages of this pattern, or None where only pyarrow can."""
        codes = []
        for kind, field in zip(kinds, self.schema, strict=True):
            code, fitting = _CODES.get(str(field.type), ("", ()))
            if kind not in fitting and (kind is not type(None) or not field.nullable):
                return None
            codes.append("" if kind is type(None) else code)
        first, second = (tuple(_PROBES[code][i] if code else None for code in codes) for i in (0, 1))
        message = _bytes(self._batch(first))
        places = _places(message, self.schema)
        if np.diff([0, *places, len(message)]).min() < 8:  # not eight bytes each, one after the other
            return None
        begin = end = places[0]  # the step's, which is never null
        packed = "<"
        for place, code in zip(places, codes, strict=True):
            if code:
                packed += f"{place - end}x{code}"  # what lies between, of nulls, is zeros
                end = place + struct.calcsize("<" + code)
        pack = struct.Struct(f"{packed}{len(message) - end}x").pack
        template = _Template(message[:begin], itemgetter(*(i for i, code in enumerate(codes) if code)), pack)
        right = all(template.message(row) == _bytes(self._batch(row)) for row in (first, second))
        return template if right else None


def _bytes(batch: pa.RecordBatch) -> bytes:
    return batch.serialize().to_pybytes()  # type: ignore[no-any-return]


def _places(message: bytes, schema: pa.Schema) -> list[int]:
    """Where in ``message`` the value of each column stands: pyarrow reads it without copying, and says."""
    buffer = pa.py_buffer(message)
    columns = pa.ipc.read_record_batch(buffer, schema).columns
    return [column.buffers()[1].address - buffer.address for column in columns]
