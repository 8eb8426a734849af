"""The first page of a chunk file: where everything is, in words a person can read, with a hash.

HDF5 leaves the page in front of it to its users. With this page a reader finds the rows and checks every byte of HDF5's
own metadata without handing a foreign file to the HDF5 library, which can hang or crash on damaged ones.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

from tracer.store.layout import (
    DTYPES,
    MAX_PARAMETERS,
    MAX_ROWS,
    VERSION,
    Layout,
    digest,
    streams_in_order,
    without_defaults,
)

PAGE = 4096
_MAGIC = b"lemmata chunk\n"


@dataclass(frozen=True)
class Header:
    """Places in a chunk file, in bytes from its start.

    ``streams`` says where the first row of each stream lies (rows follow back to back), ``commit`` where the commit
    table is, ``seal`` the seal, ``size`` how long the file is. ``metadata`` are the ``(start, length)`` of what HDF5
    wrote, and ``metadata_xxh3`` its hash.
    """

    run_id: str
    attempt: int
    rows: int
    parameters: int
    dtype: str
    streams: dict[str, int]
    commit: int
    seal: int
    size: int
    metadata: tuple[tuple[int, int], ...]
    metadata_xxh3: str
    lemmata_format: int = VERSION
    batches: bool = False  # in the page only if true, so that files without minibatches are as they always were

    @property
    def layout(self) -> Layout:
        """Layout of the rows."""
        return Layout(tuple(self.streams), self.parameters, self.dtype, self.batches)

    def page(self) -> bytes:
        """The page as it stands in the file: magic, JSON, hash, padded with zeros."""
        body = _MAGIC + json.dumps(without_defaults(self, "batches")).encode() + b"\n"
        page = body + f"{digest(body):016x}\n".encode()
        if len(page) > PAGE:
            raise ValueError(f"the header needs {len(page)} bytes; a page has {PAGE}")
        return page.ljust(PAGE, b"\0")

    @classmethod
    def read(cls, descriptor: int) -> "Header":
        """Read and check the page and HDF5's metadata.

        Raises:
            ValueError: this is no chunk file, or the page or the metadata is damaged; the text says which.
        """
        page = os.pread(descriptor, PAGE, 0)
        body, _, rest = page.rstrip(b"\0").rpartition(b"\n")[0].rpartition(b"\n")
        body += b"\n"
        if not page.startswith(_MAGIC):
            raise ValueError("not a chunk file of lemmata")
        if rest != f"{digest(body):016x}".encode() or len(page) != PAGE:
            raise ValueError("the header's hash does not match; its first page is damaged")
        header = _parse(json.loads(body[len(_MAGIC) :]))
        found = os.fstat(descriptor).st_size
        if found != header.size:
            raise ValueError(f"{found} bytes long; its header says {header.size}")
        state = b"".join(os.pread(descriptor, length, start) for start, length in header.metadata)
        if f"{digest(state):016x}" != header.metadata_xxh3:
            raise ValueError("HDF5's metadata do not match their hash")
        return header


def _parse(body: Any) -> Header:
    if not isinstance(body, dict) or body.get("lemmata_format") != VERSION:
        raise ValueError(
            f"format {body.get('lemmata_format') if isinstance(body, dict) else body!r:.40} is not {VERSION}"
        )
    try:
        metadata = tuple((a, b) for a, b in body["metadata"])
        header = Header(**{**body, "metadata": metadata})
        _check(header)
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"its header is not sound ({type(error).__name__}: {error!s:.100})") from None
    return header


def _check(header: Header) -> None:
    """Every place must lie in the file: sizes are believed only after this."""
    numbers = [header.attempt, header.rows, header.parameters, header.commit, header.seal, header.size]
    numbers += [*header.streams.values(), *(number for pair in header.metadata for number in pair)]
    plain = isinstance(header.run_id, str) and type(header.batches) is bool
    if not all(type(number) is int for number in numbers) or not plain:
        raise ValueError("its header has a field of the wrong type")
    if not (0 < header.rows <= MAX_ROWS and 0 < header.parameters <= MAX_PARAMETERS and header.dtype in DTYPES):
        raise ValueError("its header promises an impossible shape")
    if not streams_in_order(tuple(header.streams)):
        raise ValueError("its header promises unknown streams")
    layout = header.layout
    parts = [(at, header.rows * layout.row_bytes) for at in header.streams.values()]
    parts += [(header.commit, header.rows * layout.commit.itemsize), (header.seal, 32), *header.metadata]
    if any(start < 0 or length < 0 or start + length > header.size for start, length in parts):
        raise ValueError("its header points outside the file")
    if sum(length for _, length in header.metadata) > 16 << 20:
        raise ValueError("its header promises too much metadata")
