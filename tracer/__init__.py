"""Record parameter and gradient trajectories of a PyTorch training run.

    from tracer import Tracer

``tracer.store`` reads the recorded files and never imports torch.
"""

from typing import TYPE_CHECKING, Any

from tracer.errors import FormatError, LemmataError, RecordingError, UsageError
from tracer.plan import Bursts, Every, EveryNth

if TYPE_CHECKING:
    from tracer.recorder import Tracer
    from tracer.untraced import Untraced

__all__ = [
    "Bursts",
    "Every",
    "EveryNth",
    "FormatError",
    "LemmataError",
    "RecordingError",
    "Tracer",
    "Untraced",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    if name == "Tracer":  # torch is imported when somebody records, not when somebody reads
        from tracer.recorder import Tracer

        return Tracer
    if name == "Untraced":
        from tracer.untraced import Untraced

        return Untraced
    raise AttributeError(f"module 'tracer' has no attribute {name!r}")
