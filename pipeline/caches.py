"""Where the libraries keep what they computed once: in the project's home, not in the user's.

Needs the standard library alone, for it runs before every command.
"""

import os
from pathlib import Path

CODE = Path(__file__).parents[1] / "analysis"


def keep_at_home() -> None:
    """Fonts that matplotlib found, and numba's machine code unless it may lie beside Python's own.

    What the user has set stays.
    """
    # as tracer.store.home.cache_root() has it, which would import h5py and pyarrow
    cache = Path(os.environ.get("LEMMATA_HOME") or "lemmata-home").absolute() / "cache"
    os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))
    beside = CODE / "__pycache__"
    if not os.access(beside if beside.exists() else CODE, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
