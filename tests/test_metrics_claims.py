"""Claims that no known answer above decides: each is seen to hold on one path and to fail on another."""

import numpy as np
import pytest

from tests.walks import along, tables_of, verdict

RANDOM = np.random.default_rng(7)
DIRECTIONS = RANDOM.normal(size=(600, 3))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
RADII = RANDOM.uniform(0.5, 1.5, size=(600, 1))
SHRINKING = DIRECTIONS * (RADII + np.linspace(3, 0, 600)[:, None])
ANYWHERE, GROWING = DIRECTIONS * RADII, SHRINKING[::-1]
BACK = np.cumsum(np.where(RANDOM.random(800) < 0.2, 0.002, -0.002)) + 10


def path(points, f, grad, lr=0.1, opposed=False):
    """Tables of points on a loss, towards 0, with halves that agree or are opposed."""
    problem, x, z = along(points, f, grad)
    sign = -0.5 if opposed else 1
    origin = {"run:best": np.zeros(x.shape[1])}
    return tables_of(problem, x, z, origin, lr, lambda at, _: (problem.grad(at, at), sign * problem.grad(at, at)))


def quartic(points, **options):
    return path(points, lambda x: (x @ x) ** 2 / 4, lambda x: (x @ x) * x, **options)


PATHS = {
    "bowl": path(ANYWHERE, lambda x: x @ x / 2, lambda x: x),
    "bowl, large steps": path(ANYWHERE, lambda x: x @ x / 2, lambda x: x, lr=3.0),
    "bowl, opposed halves": path(ANYWHERE, lambda x: x @ x / 2, lambda x: x, opposed=True),
    "hill": path(ANYWHERE, lambda x: 5 - x @ x / 2, lambda x: -x),
    # beyond the crest: above the loss at 0, and falling away from it
    "beyond the crest": path(RADII * 2.2 + 2.4, lambda x: 2 - np.cos(x[0]), np.sin),
    "steeper": quartic(GROWING),
    "flatter": quartic(SHRINKING),
    "steeper hill": path(GROWING, lambda x: -((x @ x) ** 2) / 4, lambda x: -(x @ x) * x),
    "flatter hill": path(SHRINKING, lambda x: -((x @ x) ** 2) / 4, lambda x: -(x @ x) * x),
    "coming back": path(BACK, lambda x: x @ x / 2, lambda x: x),
    "going away": path(BACK[::-1], lambda x: x @ x / 2, lambda x: x),
}
BOTH = [
    ("directional_curvature", "convex on average", "previous", "bowl", "hill"),
    ("directional_curvature", "convex at 95 % of the steps", "next", "bowl", "hill"),
    ("trapezoid_gap", "convex on average", "previous", "bowl", "hill"),
    ("weak_convexity", "does not keep growing", "previous", "flatter hill", "steeper hill"),
    ("aiming", "aims at 95 % of the steps", "reference", "bowl", "beyond the crest"),
    ("aiming", "aims on the whole", "reference", "bowl", "beyond the crest"),
    ("convexity_ratio", "at least 1", "reference", "bowl", "beyond the crest"),
    ("convexity_ratio", "at least 0", "reference", "bowl", "beyond the crest"),
    ("quasar", "quasar-convex at 95 % of the steps", "reference", "bowl", "beyond the crest"),
    ("unified_parametric", "some c1 at 95 % of the steps", "reference", "bowl", "beyond the crest"),
    ("unified_parametric", "c1 of 1 at 95 % of the steps", "reference", "bowl", "beyond the crest"),
    ("reference_slope", "descent directions lead there on average", "reference", "bowl", "beyond the crest"),
    ("reference_cosine", "positive on average", "reference", "bowl", "beyond the crest"),
    ("restricted_secant", "positive on average", "reference", "bowl", "beyond the crest"),
    ("restricted_secant", "positive at 95 % of the steps", "reference", "bowl", "beyond the crest"),
    ("quadratic_growth", "grows on average", "reference", "bowl", "hill"),
    ("quadratic_growth", "grows at 95 % of the steps", "reference", "beyond the crest", "hill"),
    ("error_bound", "below 2/lr on average", "reference", "bowl", "bowl, large steps"),
    ("error_bound", "does not keep growing", "reference", "flatter", "steeper"),
    ("polyak_lojasiewicz", "does not fall", "previous", "steeper", "flatter"),
    ("polyak_lojasiewicz", "a gradient wherever there is loss", "previous", "bowl", "bowl, opposed halves"),
    (
        "polyak_lojasiewicz_to_reference",
        "a gradient wherever there is loss to lose",
        "reference",
        "bowl",
        "bowl, opposed halves",
    ),
    ("snr", "not noise alone", "previous", "bowl", "bowl, opposed halves"),
    ("fejer", "mostly closer", "reference", "coming back", "going away"),
]


@pytest.mark.parametrize(("metric", "claim", "pairing", "holds", "fails"), BOTH, ids=[f"{b[0]}: {b[1]}" for b in BOTH])
def test_the_claim_holds_on_the_one_path_and_fails_on_the_other(metric, claim, pairing, holds, fails):
    at = "reference:run:best" if pairing == "reference" else pairing
    found = [verdict(metric, claim, PATHS[name], at) for name in (holds, fails)]
    assert [v["status"] for v in found] == ["HOLDS", "FAILS"], [v["reason"] for v in found]
