"""The proofs there are: a module each, which defines ``proof``."""

import importlib
import pkgutil

from analysis.proving.proof import Proof


def proofs() -> dict[str, Proof]:
    """Every built-in proof by name, in the order of their modules' names."""
    found = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {proof.name: proof for proof in (getattr(module, "proof", None) for module in found) if proof is not None}
