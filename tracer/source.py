"""Where an object named ``"package.module:name"`` comes from, found and hashed without importing anything.

Importing a module runs it. A name that stands in a file somebody else wrote is therefore looked up with the finders of
the import system alone, and its source compared with a hash, before anybody decides to import it.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from tracer.errors import UsageError

INSTALLED = ("site-packages", "dist-packages")


def split(path: str) -> tuple[str, str]:
    """Module and object of ``"package.module:name"``.

    Raises:
        UsageError: it is not written that way.
    """
    module, colon, name = path.partition(":")
    parts = module.split(".")
    if not colon or not all(part.isidentifier() for part in (*parts, name)) or module == "__main__":
        raise UsageError(
            f"workload {path!r:.200}: expected 'package.module:name', a module that can be imported and an object in "
            "it. Of a script train.py it is 'train:name'."
        )
    return module, name


def source_of(module: str) -> Path:
    """The file of a module, which is not imported, nor are the packages around it.

    Raises:
        UsageError: there is none, or it is not Python source.
    """
    spec = _find(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(
            f"module {module!r}: no Python file of that name is found from here. Install it, or put its directory into "
            "PYTHONPATH."
        )
    return Path(spec.origin)


def source_hash(module: str) -> str:
    """SHA-256 of a module's source, and of what it imports, directly or not, from its own directory and below.

    Of a module that lies directly among installed packages only its own file counts: its directory is no project.
    """
    state = hashlib.sha256()
    for name, content in sorted(_sources(module).items()):
        state.update(f"{name} {len(content)}\n".encode() + content)
    return state.hexdigest()


def _sources(module: str) -> dict[str, bytes]:
    path = source_of(module)
    root = path.parent
    found: dict[str, bytes] = {}
    waiting = [(module, path)]
    while waiting:
        name, path = waiting.pop()
        if name in found:
            continue
        found[name] = path.read_bytes()
        if root.name in INSTALLED:
            break
        for other in _imported(name, path, found[name]):
            spec = _find(other) if other not in found else None
            if spec is not None and spec.origin is not None and _belongs(Path(spec.origin), root):
                waiting.append((other, Path(spec.origin)))
    return found


def _belongs(path: Path, root: Path) -> bool:
    inside = path.suffix == ".py" and path.is_relative_to(root)
    return inside and not set(INSTALLED) & set(path.relative_to(root).parts)


def _imported(name: str, path: Path, source: bytes) -> Iterator[str]:
    """Names that the source imports anywhere; some may be objects, not modules."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # importing it will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _find(module: str) -> ModuleSpec | None:
    """As the import system finds a module, package by package, without running any of them."""
    parts, where = module.split("."), None
    spec: ModuleSpec | None = None
    for i in range(len(parts)):
        spec = _ask_finders(".".join(parts[: i + 1]), where)
        if spec is None:
            return None
        places = spec.submodule_search_locations
        where = None if places is None else list(getattr(places, "_path", places))
        if where is None and i < len(parts) - 1:
            return None
    return spec


def _ask_finders(name: str, where: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, where) if find is not None else None
        if spec is not None:
            return spec
    return None
