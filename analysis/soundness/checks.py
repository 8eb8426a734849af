"""Is the trace sound enough to be interpreted? Exact identities that must vanish to rounding, and what looks odd.

An identity that fails means broken data, never a finding about the loss; :mod:`analysis.soundness.identities` says how
far rounding may take one. A check that finds nothing to test has not passed: it says so, as a warning.
"""

from analysis.soundness import energies
from analysis.soundness.identities import CheckResult, evaluate
from analysis.soundness.oddities import ODDITIES, oddities
from analysis.soundness.own_updates import OWN_UPDATES, own_updates
from analysis.soundness.pair_identities import PAIRS, PATH, SUM_OF_BLOCKS, along, blocks_and_model, own_products
from analysis.tables import Tables

__all__ = ["IDENTITIES", "ODDITIES", "CheckResult", "trace_checks"]

_OF_REFERENCES = (energies.POLARISATION, energies.BOOKKEEPING)

IDENTITIES: tuple[tuple[str, str], ...] = (
    *((i.name, i.says) for i in (*PAIRS, *PATH, SUM_OF_BLOCKS, *_OF_REFERENCES)),
    energies.ENERGY,
    OWN_UPDATES,
)
"""Name and statement of each exact identity; a trace that breaks one is broken data."""


def trace_checks(tables: Tables) -> list[CheckResult]:
    """Every check of one trace, the exact identities first."""
    d = tables.facts.parameters
    return [
        *evaluate(PAIRS, own_products(tables), d),
        *evaluate(PATH, along(tables), d),
        *evaluate([SUM_OF_BLOCKS], blocks_and_model(tables.geometry), d),
        *evaluate([*_OF_REFERENCES, energies.energy(tables.facts)], energies.rows(tables), d),
        own_updates(tables),
        *oddities(tables),
    ]
