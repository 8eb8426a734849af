"""The usual mistakes, looked for one by one: what is installed, where things are kept, what was recorded.

Works in the base install. What needs the pipeline's packages is in :mod:`pipeline.terminal.doctor_pipeline`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from itertools import pairwise
from pathlib import Path

from pipeline.terminal.findings import Finding, few
from pipeline.terminal.sections import guarded
from tracer.errors import FormatError, UsageError
from tracer.store import Trace, home, runs
from tracer.store.layout import MANIFEST, chunk_number
from tracer.store.places import require_root

EXTRAS = ("analysis", "pipeline", "demo", "replay", "dask", "postgres", "s3")
CORE = ("dagster", "dagster-webserver", "dagster-graphql", "dagster-pipes", "dagster-shared")
LIBRARIES = ("dagster-postgres", "dagster-dask")
NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse")
LITTLE, FEW = 1 << 30, 0.05  # free bytes below which nothing should be started; free share worth a word
LOCAL = ("127.0.0.1", "localhost", "::1")
TABLES, ARCHIVES = "LEMMATA_TABLES", "LEMMATA_ARCHIVES"


def examine() -> list[Finding]:
    """Everything that can be looked at here; the worst does not stop the rest."""
    first = (("extras", packages), ("torch", torch_and_gpu), ("home", places), ("roots", roots))
    found = [finding for about, section in first for finding in guarded(about, section)]
    tables = not any((each.level, each.about) == ("error", TABLES) for each in found)
    found += guarded("runs", recorded)
    if tables:
        found += guarded("leftovers", killed)
    found += [*guarded("server", servers), *guarded("pipeline", lambda: _of_pipeline(tables))]
    once: dict[object, Finding] = {}
    for each in found:
        once.setdefault(each.says if each.level == "error" else each, each)
    return list(once.values())


def _of_pipeline(tables: bool) -> list[Finding]:
    try:
        from pipeline.terminal.doctor_pipeline import examine_pipeline
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("", "pipeline", "analysis", "tracer"):
            raise
        says = f"not looked at: no module named {error.name}"
        return [Finding("ok", "metrics and Dagster", says, "where runs are analysed: pip install 'lemmata[pipeline]'")]
    return examine_pipeline(tables)


def packages() -> Iterator[Finding]:
    """Extras that are missing in part, and a Dagster family of several ages."""
    states = {extra: wanting(extra) for extra in EXTRAS}
    whole = [extra for extra, missing in states.items() if not missing]
    for extra, missing in states.items():
        wrong = [text for text in missing if "found" in text]
        if wrong and extra in ("analysis", "pipeline"):
            yield Finding("error", f"extra {extra}", "; ".join(wrong), f"pip install 'lemmata[{extra}]'")
    without = [extra for extra in EXTRAS if extra not in whole]
    says = f"installed: {', '.join(whole) or 'none'}" + (f"; not installed: {', '.join(without)}" if without else "")
    lacking = "pipeline" in without
    do = "where runs are analysed: pip install 'lemmata[pipeline]'" if lacking else ""
    yield Finding("warning" if lacking else "ok", "extras", says, do)
    yield from dagster_family({name: version for name in (*CORE, *LIBRARIES) if (version := _version(name))})


def wanting(extra: str) -> list[str]:
    """What of an extra is missing, or has a version that is not allowed."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        return ["packaging"]  # every extra brings it along
    found = []
    for text in metadata.requires("lemmata") or ():
        need = Requirement(text)
        of_extra = need.marker is not None and need.marker.evaluate({"extra": extra})
        if not of_extra or need.marker.evaluate({"extra": ""}):  # type: ignore[union-attr]
            continue
        if need.name == "lemmata":
            found += [text for other in need.extras for text in wanting(other)]
        elif (version := _version(need.name)) is None:
            found.append(need.name)
        elif not need.specifier.contains(version, prereleases=True):
            found.append(f"{need.name} {need.specifier} wanted, {version} found")
    return found


def dagster_family(versions: dict[str, str]) -> Iterator[Finding]:
    """Dagster's packages are released together: 1.13.27 goes with libraries 0.29.27, and with nothing else."""
    if "dagster" not in versions:
        return
    major, minor, patch = [*versions["dagster"].split("."), "0", "0"][:3]
    library = f"0.{int(minor) + 16}.{patch}" if major == "1" and minor.isdigit() else ""
    fits = {**dict.fromkeys(CORE, versions["dagster"]), **dict.fromkeys(LIBRARIES, library)}
    wrong = [f"{name} {version}" for name, version in versions.items() if version != fits[name]]
    if wrong:
        says = f"dagster {versions['dagster']} beside {', '.join(wrong)}"
        yield Finding("error", "Dagster family", says, "pip install 'lemmata[pipeline]': it names versions that fit")
    else:
        yield Finding("ok", "Dagster family", f"{len(versions)} packages of {versions['dagster']}")


def torch_and_gpu() -> Iterator[Finding]:
    """A GPU that torch does not use."""
    import torch

    there = Path("/proc/driver/nvidia/gpus").is_dir() or shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available():
        yield Finding("ok", "torch", f"{torch.__version__} with {torch.cuda.get_device_name()}")
    elif there and torch.version.cuda is None:
        says = f"{torch.__version__} was built without CUDA, and this machine has a GPU"
        yield Finding("warning", "torch", says, "install the build of torch for your CUDA: pytorch.org/get-started")
    elif there:
        says = f"{torch.__version__} for CUDA {torch.version.cuda} cannot use this machine's GPU"
        yield Finding("warning", "torch", says, "see whether nvidia-smi works, and which CUDA its driver takes")
    else:
        yield Finding("ok", "torch", f"{torch.__version__}, no GPU on this machine")


def places() -> Iterator[Finding]:
    """A home that cannot be written to, is nearly full, or lies on a network file system."""
    where = home.home()
    named = "LEMMATA_HOME" if os.environ.get("LEMMATA_HOME") else "this directory; $LEMMATA_HOME names another"
    there = next(path for path in (where, *where.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".lemmata-doctor-"):
            pass
    except OSError as error:
        says = f"{there}: {os.strerror(error.errno or 0)}"
        yield Finding("error", "home", says, "set LEMMATA_HOME to a place of yours")
        return
    yield Finding("ok", "home", f"{where}{'' if where.exists() else ' (will be made)'}, from {named}")
    yield disk(there, shutil.disk_usage(there))
    kind = file_system(there, Path("/proc/self/mounts"))
    if kind.startswith(NETWORK):
        says = f"{there} is on a network file system ({kind}): SQLite and locks are not safe there"
        yield Finding("warning", "file system", says, "keep $DAGSTER_HOME on a local disk, or use Postgres")


def disk(path: Path, usage: "shutil._ntuple_diskusage") -> Finding:
    """How much room is left."""
    says = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB free at {path}"
    if usage.free < LITTLE:
        return Finding("error", "disk", says, "make room: `lemmata archive RUN --to …` halves a run")
    if usage.free < FEW * usage.total:
        return Finding("warning", "disk", says, "before a long recording ask: lemmata plan")
    return Finding("ok", "disk", says)


def file_system(path: Path, mounts: Path) -> str:
    """Type of the file system that ``path`` is on, empty where it is not known."""
    if not mounts.is_file():
        return ""
    entries = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    points = {entry[1].replace("\\040", " "): entry[2] for entry in entries if len(entry) > 2}  # the last one counts
    own = [point for point in points if path.resolve().is_relative_to(point)]
    return points[max(own, key=len)] if own else ""


def roots() -> Iterator[Finding]:
    """Tables and archives that are kept elsewhere, and are not there."""
    for setting, place in ((TABLES, home.tables_root), (ARCHIVES, home.archives_root)):
        if not os.environ.get(setting):
            continue
        try:
            require_root(root := place(), setting, absent=setting == TABLES)
        except UsageError as error:
            yield Finding("error", setting, str(error))
        else:
            yield Finding("ok", setting, str(root))


def recorded() -> Iterator[Finding]:
    """Runs that are damaged, were not closed, have the name of another, or lost their manifest."""
    found = runs(home.runs_root())
    unfinished: list[str] = []
    for path in found:
        try:
            trace = Trace(path)
            if trace.run_id != path.name:
                yield _misnamed(path, trace.run_id)
            if trace.status == "interrupted":
                unfinished.append(path.name)
        except FormatError as error:
            yield Finding("error", "runs", str(error), f"every damaged file: lemmata verify {path.name}")
    for path in headless(home.runs_root(), found):
        says = f"{path}: chunks of a run, and no {MANIFEST}: `ls` and `materialize --all` pass it over"
        yield Finding("warning", "runs", says, f"bring {MANIFEST} back from a copy of the run, or delete the rest")
    yield Finding("ok", "runs", f"{len(found)} in {home.runs_root()}")
    if unfinished:
        says = f"{len(unfinished)} ended before they were closed: {few(unfinished)}. Every acknowledged step is there"
        yield Finding("warning", "unfinished runs", says, "compute them as they are, or go on with Tracer(resume_at=…)")


def _misnamed(path: Path, run_id: str) -> Finding:
    own = path.with_name(run_id)
    if own.exists():
        says = f"the directory {path} holds a copy of the run {run_id}, which is there"
        return Finding("error", "runs", says, "remove one, or give it another home")
    says = f"the directory {path} holds the run {run_id!r}"
    return Finding("error", "runs", says, f"give it its name again: mv {path} {own}")


def headless(root: Path, known: Iterable[Path]) -> list[Path]:
    """Directories with chunks of a run that is none: its manifest is lost."""
    found = []
    for path in sorted(set(root.iterdir()) - set(known)) if root.is_dir() else ():
        try:
            if any(chunk_number(name) for name in os.listdir(path)):
                found.append(path)
        except OSError:
            continue  # no directory, or somebody else's
    return found


def killed() -> Iterator[Finding]:
    """What killed processes left behind."""
    if left := leftovers(home.tables_root()):
        says = f"{len(left)} files of computations that were killed, such as {left[0]}"
        yield Finding("warning", "leftovers", says, "delete them while nothing is being computed; nobody reads them")


def leftovers(root: Path) -> list[Path]:
    """What is written aside and was never put in place."""
    return sorted([*root.rglob(".*.aside"), *root.rglob(".parts-*")]) if root.is_dir() else []


def servers(processes: Path = Path("/proc")) -> Iterator[Finding]:
    """A Dagster server that others than this machine can reach."""
    for path in sorted(processes.glob("[0-9]*/cmdline")):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # ended meanwhile, or somebody else's
        if not any(Path(word).name in ("dagster_webserver", "dagster-webserver") for word in words):
            continue
        host = next((value for name, value in pairwise(words) if name in ("-h", "--host")), LOCAL[0])
        if host in LOCAL:
            yield Finding("ok", "server", f"process {path.parent.name} serves on {host}")
        else:
            says = f"process {path.parent.name} serves on {host}: others can reach it, and it asks for no password"
            yield Finding("error", "server", says, "stop it and start `lemmata ui`, which stays on 127.0.0.1")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
