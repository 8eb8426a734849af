"""One metric in words: what it computes, from what, what is claimed of it and what that does not refute.

The text is Markdown; docs/metrics.md and the pages of the UI show it.
"""

from collections.abc import Iterable, Sequence

from analysis.columns import COLUMNS
from analysis.judging.verdict import RULE_NAMES
from analysis.metric import Claim, Metric
from analysis.readable import readable

LONGEST = 200  # characters of a formula that still says more than its claim does in words
_PAIRINGS = {
    "previous": "`previous` (fresh)",
    "next": "`next` (in-sample)",
    "reference": "`reference:NAME`",
    "unpaired": "`unpaired`",
}
_BLOCKS = {
    "share": "an exact share: the blocks' values add up to the model's",
    "trajectory": "its own value along the whole trajectory: the other tensors move too",
    "alone": "its own value, the other tensors held where they were; of the model, the largest of all tensors",
    "no": "no meaning; the model only",
}


def describe(metric: Metric) -> str:
    """One metric in Markdown: formula, source, unit, what it reads, its claims and what they do not refute."""
    parts = [f"**{line(metric.title)}**" + (f" · {', '.join(metric.catalogue)}" if metric.catalogue else "")]
    parts += [f"```text\n{metric.formula}\n```"]
    parts += [line(metric.paper)] * bool(metric.paper)
    parts += [_facts(metric)]
    parts += [_claims(metric.claims)] if metric.claims else ["Descriptive: the metric claims nothing."]
    parts += ["\n".join(f"- {line(caveat)}" for caveat in metric.caveats)] * bool(metric.caveats)
    return "\n\n".join(parts)


def _facts(metric: Metric) -> str:
    rows = [
        ("unit", str(metric.units)),
        ("reads", "; ".join(f"`{name}` {_meaning(name)}" for name in metric.columns)),
        ("pairings", ", ".join(_PAIRINGS[pairing] for pairing in metric.pairings)),
        (
            "on a block",
            "no meaning: a loss belongs to the whole model" if metric.reads_loss else _BLOCKS[metric.blocks],
        ),
    ]
    if metric.ratio is not None:
        above, below = map(readable, metric.ratio)
        rows.append(("of a window", f"`Σ {_held(above)} / Σ {_held(below)}`"))
    if metric.series:
        rows.append(("beside it", "; ".join(series.title for series in metric.series)))
    if metric.variants:
        rows.append(("variants", "; ".join(f"{v.title}: `{_short(readable(v.value))}`" for v in metric.variants)))
    return table(("", ""), rows)


def _claims(claims: Sequence[Claim]) -> str:
    return "\n\n".join(_claim(claim) for claim in claims)


def _claim(claim: Claim) -> str:
    rule = RULE_NAMES[claim.over]
    lines = [f"> **Claim: {line(claim.name)}** · {claim.bound_text} · rule {rule}{_over(claim)}", line(claim.says)]
    lines += [f"*Does not refute.* {line(claim.caveat)}"] * bool(claim.caveat)
    facts = [] if claim.null_value is None else [f"under noise alone {claim.null_value:g}"]
    if claim.optimizers:
        facts.append(f"stated for {', '.join(claim.optimizers)}: {claim.optimizers_why}")
    facts += [f"judged at {', '.join(claim.pairings)}"] * bool(claim.pairings)
    facts += ["about the population, so not judged in-sample"] * claim.population
    facts += [f"{bias.rule}: {line(bias.says)}" for bias in claim.biases]
    lines += [f"*Known.* {_sentence('; '.join(facts))}"] * bool(facts)
    lines += [f"*Where it applies.* {line(caution.text)}" for caution in claim.cautions]
    return "\n>\n> ".join(lines)


def _over(claim: Claim) -> str:
    """What is compared with the bound, as a formula, where that says more than the claim's words."""
    if claim.over == "ratio" and claim.numerator is not None and claim.denominator is not None:
        above, below = readable(claim.numerator), readable(claim.denominator)
        return f": `Σ {_held(above)} / Σ {_held(below)}`"
    if claim.quantity is None or len(readable(claim.quantity)) > LONGEST:
        return ""
    of = f" {claim.at_quantile:.3g}-quantile" if claim.over == "quantile" and claim.at_quantile is not None else ""
    return f" of{of} `{readable(claim.quantity)}`"


def _meaning(name: str) -> str:
    return COLUMNS[name].meaning if name in COLUMNS else "as the optimizer's settings were recorded"


def _held(text: str) -> str:
    return f"({text})" if " " in text else text


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def line(text: str) -> str:
    """``text`` on one line, fit for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(line(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)
