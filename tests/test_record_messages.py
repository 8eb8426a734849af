"""Record messages packed into a template are, byte for byte, the messages that pyarrow writes."""

import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.store import record_messages
from tracer.store.chunk_writer import record_file
from tracer.store.layout import record_schema
from tracer.store.record_messages import RecordMessages

SCHEMA = record_schema(("group0.lr", "group0.betas.0", "group0.betas.1"))
VALUES = {
    "int64": st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**63), 2**63 - 1).map(np.int64),
    "double": st.floats() | st.floats().map(np.float64) | st.integers(-(2**53), 2**53),
    "bool": st.booleans(),
}
ALWAYS = {"step": 3, "time_ns": 5, "finite": True}


def by_arrow(record, schema=SCHEMA):
    """One array per column, as anybody would."""
    arrays = [pa.array([record.get(field.name)], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@st.composite
def records(draw):
    """Any subset of the columns that may be null, with any values; None stands for null too."""
    record = {}
    for field in SCHEMA:
        value = VALUES[str(field.type)]
        if not field.nullable or draw(st.booleans()):
            record[field.name] = draw(value if not field.nullable else value | st.none())
    return record


@settings(max_examples=150, deadline=None)
@given(st.lists(records(), min_size=1, max_size=4))
def test_messages_are_those_of_pyarrow(drawn):
    messages = RecordMessages(SCHEMA)
    rows = []
    for record in drawn + drawn:  # the second time from the template
        message, row = messages.encode(record)
        assert message == by_arrow(record).serialize().to_pybytes()
        rows.append(row)
    slow = pa.Table.from_batches([by_arrow(r) for r in drawn + drawn])
    assert record_file(messages.table(rows)) == record_file(slow)


def test_templates_are_used(monkeypatch):
    messages = RecordMessages(SCHEMA)
    messages.encode({**ALWAYS, "loss": 1.0})
    monkeypatch.setattr(RecordMessages, "_batch", lambda *_: pytest.fail("pyarrow was asked again"))
    message, row = messages.encode({**ALWAYS, "step": 9, "loss": float("nan"), "finite": False})
    assert message == by_arrow({**ALWAYS, "step": 9, "loss": float("nan"), "finite": False}).serialize().to_pybytes()
    assert row[0] == 9


@pytest.mark.parametrize("wrong", [8, -8, 1 << 40])
def test_a_template_that_does_not_give_pyarrows_bytes_is_not_used(monkeypatch, wrong):
    messages = RecordMessages(SCHEMA)
    record = {**ALWAYS, "loss": 2.0}

    def misled(message, schema):  # of the loss
        found = places(message, schema)
        return [*found[:2], found[2] + wrong, *found[3:]]

    places = record_messages._places
    monkeypatch.setattr(record_messages, "_places", misled)
    for _ in range(2):
        assert messages.encode(record)[0] == by_arrow(record).serialize().to_pybytes()


@pytest.mark.parametrize(
    "wrong",
    [{"loss": "high"}, {"step": 2**63}, {"finite": 1}, {"batch": True}, {"hyper:group0.lr": [0.1]}],
)
def test_what_pyarrow_refuses_is_refused(wrong):
    messages = RecordMessages(SCHEMA)
    messages.encode(ALWAYS)
    with pytest.raises((pa.ArrowException, OverflowError, TypeError)) as ours:
        messages.encode({**ALWAYS, **wrong})
    assert not isinstance(ours.value, struct.error)
    with pytest.raises(type(ours.value)):
        by_arrow({**ALWAYS, **wrong})


def test_a_table_without_rows_has_the_columns():
    assert RecordMessages(SCHEMA).table([]).schema == SCHEMA
