"""The files of a run: written, sealed, read, verified. Nothing here imports torch."""

from tracer.store.chunk import Chunk
from tracer.store.manifest import Block, Manifest
from tracer.store.minibatch import MicroBatch
from tracer.store.trace import Damage, Trace, runs, verify

__all__ = ["Block", "Chunk", "Damage", "Manifest", "MicroBatch", "Trace", "runs", "verify"]
