"""docs/metrics.md says what the metrics say."""

from pathlib import Path

from analysis.pages.catalogue import FIGURES, PAGE, built_in, page
from analysis.proofs import proofs

ROOT = Path(__file__).parents[1]


def test_the_page_is_the_one_that_the_metrics_make() -> None:
    directory = ROOT / FIGURES
    figures = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(built_in(), figures), (
        "docs/metrics.md is out of date. Write it: python -m analysis.pages.catalogue"
    )


def test_every_metric_claim_and_proof_stands_on_the_page() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for name, metric in built_in().items():
        assert f"### {name}\n" in text
        assert all(claim.name in text for claim in metric.claims)
    assert all(f"### {name}\n" in text and proof.title in text for name, proof in proofs().items())


def test_figures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / FIGURES).glob("*.png")}
    assert all(size <= 40_000 for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 1_500_000
