"""Faults by the thousand: ``python -m tests.soak kill 500``, ``full_disk 50``, ``flips 10000``, ``hostile 2000``.

``rerun 20`` kills reruns of computed assets. ``memory 1 --first 9`` records and verifies a run of 10 GB, and says what
memory that took.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.progress import track

from tests import faults, rerun_faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=["kill", "full_disk", "flips", "hostile", "rerun", "memory"])
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="begin with this seed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make = {"flips": faults.Flips, "hostile": faults.Hostile, "rerun": rerun_faults.Killed}.get(arguments.fault)
        one = make(Path(folder)) if make else getattr(faults, arguments.fault)
        failed = 0
        for seed in track(range(arguments.first, arguments.first + arguments.count), arguments.fault):
            try:
                one(seed, Path(folder))
            except Exception as error:
                failed += 1
                print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"{arguments.fault}: {arguments.count} faults, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
