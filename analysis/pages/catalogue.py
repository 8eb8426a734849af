"""docs/metrics.md, made from the metrics themselves; a test holds the page to them.

``python -m analysis.pages.catalogue`` writes the page; with ``--figures RUN`` it first draws the example figures
from a recorded run. The page refers to those figures that are there. The built-in metrics are in it; those of a user's
own are described on their pages in the UI and in the report.
"""

import argparse
import importlib
import pkgutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import analysis.metrics
from analysis import rounding
from analysis.columns import COLUMNS
from analysis.judging import statistics, verdict
from analysis.judging.blocks import LEVEL
from analysis.metric import FAMILIES, Claim, Metric
from analysis.pages.describe import describe, line, table
from analysis.pages.gallery import PLATES
from analysis.proofs import proofs
from analysis.soundness.checks import IDENTITIES

PAGE = Path("docs/metrics.md")
FIGURES = Path("docs/figures")


def built_in() -> dict[str, Metric]:
    """The metrics that come with the package, by name, in the order of the families."""
    names = [f"analysis.metrics.{module.name}" for module in pkgutil.iter_modules(analysis.metrics.__path__)]
    found: list[Metric] = [importlib.import_module(name).metric for name in names]
    return {m.name: m for m in sorted(found, key=in_order)}


def in_order(metric: Metric) -> tuple[object, ...]:
    """A key that sorts metrics by family and place in the catalogue, A2 before A10; those without come last."""
    first = metric.catalogue[0] if metric.catalogue else ""
    number = int("".join(filter(str.isdigit, first)) or 0)
    return metric.family == "", metric.family, not first, number, metric.name


def page(metrics: Mapping[str, Metric], figures: Collection[str]) -> str:
    """The page as Markdown; ``figures`` are the names of the files under docs/figures."""
    environment = Environment(
        loader=PackageLoader("analysis.pages", "."),
        autoescape=False,  # Markdown, from the package's own files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("catalogue.md.j2").render(
        rules=_rules(),
        loss_errors=rounding.LOSS_ERRORS,
        gradient_errors=rounding.GRADIENT_ERRORS,
        batches_least=2 * statistics.WINDOWS_LEAST,
        values_least=2 * statistics.WINDOWS_LEAST * statistics.BATCH_LEAST,
        effective_least=statistics.EFFECTIVE_LEAST,
        window=100,
        false_discoveries=f"{LEVEL / 2:.1%}".replace("%", " %"),
        proofs=_proofs(),
        checks=table(("identity", "what must vanish to rounding"), IDENTITIES),
        overview=_overview(metrics.values()),
        plates=_plates(figures),
        families="\n\n".join(_families(metrics.values(), figures)),
        columns=_columns(),
    )


def _families(metrics: Iterable[Metric], figures: Collection[str]) -> Iterable[str]:
    metrics = list(metrics)
    for letter, title in FAMILIES.items():
        members = [m for m in metrics if m.family == letter]
        if members:
            yield f"## {letter + ' · ' if letter else ''}{title}"
        for metric in members:
            yield f"### {metric.name}"
            yield describe(metric)
            yield from (
                f"![{metric.title}]({FIGURES.name}/{name})"
                for name in (f"{metric.name}.svg", f"{metric.name}.png")
                if name in figures
            )


def _proofs() -> str:
    """Each proof with its lines, and what each of them uses."""
    parts = []
    for proof in proofs().values():
        rows = [
            (str(number) if number <= len(proof.lines) else "→", each.name, each.uses, each.over, each.says)
            for number, each in enumerate((*proof.lines, *proof.bounds), 1)
        ]
        said = [f"### {proof.name}", f"**{line(proof.title)}**. {line(proof.paper)}"]
        said += [f"Assumes {'; '.join(map(line, proof.assumes))}."] * bool(proof.assumes)
        said += [table(("", "line", "uses", "over", "in words"), rows)]
        said += [f"*Does not say.* {line(proof.caveat)}"] * bool(proof.caveat)
        parts.append("\n\n".join(said))
    return "\n" + "\n\n".join(parts) + "\n"


def _plates(figures: Collection[str]) -> str:
    """The paper's figures that are there, of the example run."""
    names = [f"plate-{name}.png" for name in (*PLATES, "proofs")]
    return "\n\n".join(f"![{name[6:-4]}]({FIGURES.name}/{name})" for name in names if name in figures)


def _overview(metrics: Iterable[Metric]) -> str:
    rows = [
        (
            metric.family,
            f"[`{metric.name}`](#{metric.name})",
            f"{metric.formula}",
            "; ".join(f"{claim.name} ({_letter(claim)})" for claim in metric.claims) or "descriptive",
        )
        for metric in metrics
    ]
    return table(("", "metric", "value", "claims (rule)"), rows)


def _letter(claim: Claim) -> str:
    return verdict.RULE_NAMES[claim.over].partition(" ")[0]


def _rules() -> str:
    least = f"at least {verdict.PAIRS_LEAST} pairs, and {verdict.RESOLVED_SHARE:.0%}".replace("%", " %")
    rows = {
        "every step": (
            "any pair is beyond the bound by more than its tolerance",
            f"none is, {least} differ from the bound by more than their tolerance",
        ),
        "on average": ("the whole 95 % interval of the mean is beyond the bound", "the whole interval is within it"),
        "trend": ("the same, for the mean of the second half minus the mean of the first", "the same"),
        "ratio": (
            "the whole 95 % interval of Σ numerator / Σ denominator, by test inversion, is beyond the bound",
            "the whole interval is within it",
        ),
        "quantile": (
            "the whole interval of the quantile, by inverting the test of a share, is beyond the bound",
            "the whole interval is within it",
        ),
        "equivalent": (
            "the whole interval of the mean is outside the margin around the bound",
            "both one-sided tests put the mean within the margin",
        ),
        "share": (
            "the whole interval (Wilson's, on the effective number of steps) of the share of steps beyond rounding is "
            "above the bound",
            "the whole interval is within it, that of the share with all steps within rounding of zero, too",
        ),
        "envelope": (
            "on the second half, more than the allowed share of steps lies above the envelope fitted on the first",
            "at most that share does, with all steps, too, that a rounding above a tenth of the envelope may hide",
        ),
    }
    lines = [f"| {_name(verdict.RULE_NAMES[over])} | {fails} | {holds} |" for over, (fails, holds) in rows.items()
             if over in verdict.RULE_NAMES]  # fmt: skip
    return "\n".join(lines)


def _name(rule: str) -> str:
    letter, _, words = rule.partition(" ")
    return f"{letter} | {words.strip('()')}"


def _columns() -> str:
    rows = [(f"`{name}`", c.meaning, str(c.units), c.table) for name, c in COLUMNS.items()]
    return table(("column", "meaning", "unit", "table"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page; with ``--figures RUN ...`` draw its figures first, each from the first of them that can."""
    parser = argparse.ArgumentParser(prog="python -m analysis.pages.catalogue", description=main.__doc__)
    parser.add_argument("--figures", type=Path, nargs="+", metavar="RUN", help="directories of recorded runs")
    chosen = parser.parse_args(arguments)
    metrics = built_in()
    if chosen.figures is not None:
        from analysis.pages.examples import draw  # reads the run's vectors

        draw(metrics, chosen.figures, FIGURES)
    there = {path.name for path in FIGURES.iterdir()} if FIGURES.is_dir() else set()
    PAGE.write_text(page(metrics, there), encoding="utf-8")


if __name__ == "__main__":
    main()
