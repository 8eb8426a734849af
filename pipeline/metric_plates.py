"""The plates on a metric's page, with the other metrics they draw."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from analysis.gallery import NEEDS, PAGES, plates_of
from analysis.measure import measure_all
from analysis.metric import Metric
from analysis.plates import Measured
from analysis.tables import Tables


def plates(metric: Metric, metrics: Mapping[str, Metric], tables: Tables) -> dict[str, Figure]:
    """By name; empty for a metric that has none, or not on this run."""
    needed = {name for plate, page in PAGES.items() if page == metric.name for name in NEEDS[plate]}
    if not needed:
        return {}
    found = measure_all([metrics[name] for name in sorted(needed) if name in metrics], tables)
    drawn = {name: (each.table, each.verdicts) for name, each in found.items()}
    profile = None if tables.replayed is None else tables.replayed.profile().collect()
    return plates_of(metric.name, Measured(tables.facts.run_id, drawn, tables.steps.collect(), profile))
