"""Where the libraries keep what they computed once: in the project's home, not in the user's.

Imported before matplotlib and numba are; what the user has set stays.
"""

import os
from pathlib import Path

import analysis
from tracer.store.home import cache_root

CODE = Path(analysis.__file__).parent


def keep_at_home() -> None:
    """Fonts that matplotlib found, and numba's machine code unless it may lie beside Python's own."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_root() / "matplotlib"))
    beside = CODE / "__pycache__"
    if not os.access(beside if beside.exists() else CODE, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_root() / "numba"))


keep_at_home()
