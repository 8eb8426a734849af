"""What the user types to run this program again."""

import shutil
import sys
from os.path import relpath
from pathlib import Path


def program() -> str:
    """``lemmata`` where the shell finds this very installation, else the path that works from here."""
    here = Path(sys.executable).parent / "lemmata"
    found = shutil.which("lemmata")
    if not here.exists() or (found and Path(found).resolve() == here.resolve()):
        return "lemmata"
    return min(relpath(here), str(here), key=len)
