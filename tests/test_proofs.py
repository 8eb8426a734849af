"""The built-in proofs on runs whose answers are known: they hold where they should, and break at the right line."""

import numpy as np
import polars as pl
import pytest
import torch

from analysis.geometry import geometry
from analysis.proofs import proofs
from analysis.proving.prove import evaluate, evaluate_all
from analysis.tables import Tables
from tests.dynamics_runs import with_losses_at, write
from tests.problems import Problem, Run, descend, kink, logistic, positive_definite, quadratic, saddle
from tests.slopes import Slopes, adamw, record
from tracer.store import Trace

QUADRATIC = quadratic(positive_definite(6, 0.1, 4.0, 1), np.ones(6))
NOISY = quadratic(positive_definite(6, 0.1, 4.0, 1), np.ones(6), noise=0.3)
FULL_BATCH = logistic(1, batch=64)
STEPS = 2000


def bump() -> Problem:
    """|x| (1 − e^−|x|): star-convex, not convex, and curved only near 0, where the run ends."""

    def slope(x: np.ndarray) -> np.ndarray:
        return np.sign(x) * (1 - np.exp(-np.abs(x))) + x * np.exp(-np.abs(x))

    return Problem(
        f=lambda x, _: float((np.abs(x) * (1 - np.exp(-np.abs(x)))).sum()),
        grad=lambda x, _: slope(x),
        start=np.array([14.0]),
    )


def whole_way(path, problem: Problem, run: Run, **how) -> Tables:
    """From files to tables, with the losses of each minibatch at the last point."""
    write(path, run, **how)
    return with_losses_at(geometry(Trace(path), references=("last",)), problem, {"last": run.final})


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Tables of a problem's run, by its name; each made once."""
    kept: dict[str, Tables] = {}

    def tables(name: str) -> Tables:
        if name not in kept:
            problem, rate, steps, momentum = RUNS[name]
            run = descend(problem, rate, steps, momentum=momentum)
            path = tmp_path_factory.mktemp("proofs") / "run"
            kept[name] = whole_way(path, problem, run, settings={"momentum": momentum})
        return kept[name]

    return tables


DECAYING = 0.3 / np.sqrt(1 + np.arange(300))
RUNS = {
    "quadratic": (QUADRATIC, 0.1, 150, 0.0),
    "noisy quadratic": (NOISY, 0.1, 400, 0.0),
    "full-batch logistic": (FULL_BATCH, DECAYING, 300, 0.0),
    "logistic": (logistic(1), 0.3, 400, 0.0),
    "quadratic with momentum": (QUADRATIC, 0.02, 150, 0.9),
    "logistic with momentum": (logistic(1), 0.05, 300, 0.9),
    "saddle": (saddle(), 0.1, 200, 0.0),
    "saddle with momentum": (saddle(), 0.02, 300, 0.9),
    "bump": (bump(), 0.3, 64, 0.0),
    "kink": (kink(3.05), 0.1, 60, 0.0),
}


def lines(name: str, tables: Tables) -> dict[str, dict]:
    return {row["line"]: row for row in evaluate(proofs()[name], tables).table.iter_rows(named=True)}


@pytest.mark.parametrize("run", ["quadratic", "noisy quadratic", "full-batch logistic"])
@pytest.mark.parametrize("name", ["sgd_average", "sgd_last_iterate"])
def test_every_line_of_sgd_holds_on_convex_losses(ran, name, run):
    found = evaluate(proofs()[name], ran(run))
    assert found.finding.status == "HOLDS", found.finding.reason
    assert found.finding.observed <= found.finding.bound


@pytest.mark.parametrize("run", ["quadratic with momentum", "logistic with momentum"])
def test_every_line_of_heavy_ball_holds_on_convex_losses(ran, run):
    found = evaluate(proofs()["sgd_momentum"], ran(run))
    assert found.finding.status == "HOLDS", found.finding.reason


def test_no_line_fails_on_minibatches_of_a_logistic_regression(ran):
    for name in ("sgd_average", "sgd_last_iterate", "descent_lemma"):
        assert "FAILS" not in evaluate(proofs()[name], ran("logistic")).table["status"].to_list()


def test_the_bound_of_the_average_iterate_is_the_catalogues(ran):
    run = descend(QUADRATIC, 0.1, 150)
    bound = (np.sum((run.x[0] - run.final) ** 2) + 0.01 * (run.g**2).sum()) / (2 * 0.1 * 150)
    found = lines("sgd_average", ran("quadratic"))["average loss above F(u)"]
    assert found["right"] == pytest.approx(bound, rel=1e-12)
    assert found["left"] == pytest.approx(np.mean(run.loss - QUADRATIC.f(run.final, np.zeros(6))), rel=1e-12)


def test_the_bound_of_the_last_iterate_is_the_catalogues(ran):
    """Defazio et al. (2023), Theorem 10, as a double loop; and its closed form at a constant rate."""
    for name in ("full-batch logistic", "quadratic"):
        problem, rate, steps, _ = RUNS[name]
        run = descend(problem, rate, steps)
        e, eg = run.lr, run.lr**2 * (run.g**2).sum(1)
        tails = [e[k] / e[k + 1 :].sum() * eg[k:].sum() / e[k:].sum() for k in range(steps - 1)]
        bound = np.sum((run.x[0] - run.final) ** 2) / (2 * e.sum()) + eg.sum() / (2 * e.sum()) + sum(tails) / 2
        found = lines("sgd_last_iterate", ran(name))
        assert found["last loss above F(u)"]["right"] == pytest.approx(bound, rel=1e-10)
    largest, rate = np.sqrt((run.g**2).sum(1).max()), 0.1
    harmonic = sum(1 / k for k in range(1, steps))
    closed = np.sum((run.x[0] - run.final) ** 2) / (2 * rate * steps) + rate * largest**2 * (1 + harmonic) / 2
    assert found["the same at a constant rate"]["right"] == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_last_iterate_of_a_lipschitz_function_stays_below_its_bound(tmp_path, schedule):
    steps, rate = 60, 0.03
    t = np.arange(steps) / steps
    rates = rate * {"constant": 1 + 0 * t, "linear": 1 - t, "cosine": (1 + np.cos(np.pi * t)) / 2}[schedule]
    problem = Problem(
        f=lambda x, _: 1.3 * float(np.abs(x).sum()), grad=lambda x, _: 1.3 * np.sign(x), start=np.array([2.0])
    )
    write(tmp_path / "run", descend(problem, rates, steps))
    minimiser = tmp_path / "minimiser.npy"
    np.save(minimiser, np.zeros(1))
    found = geometry(Trace(tmp_path / "run"), references=(f"point:{minimiser}",))
    (name,) = found.facts.references
    tables = with_losses_at(found, problem, {name: np.zeros(1)})
    found = evaluate(proofs()["sgd_last_iterate"], tables, reference=name)
    assert "FAILS" not in found.table["status"].to_list()
    assert 0 < found.finding.observed <= found.finding.bound


@pytest.mark.parametrize(
    ("run", "name", "breaks"),
    [
        ("saddle", "sgd_average", "convexity towards u"),
        ("saddle", "sgd_last_iterate", "convexity towards u"),
        ("saddle with momentum", "sgd_momentum", "convexity towards u"),
        ("bump", "descent_lemma", "smoothness"),
        ("kink", "descent_lemma", "smoothness"),
    ],
)
def test_where_the_loss_is_not_what_the_proof_assumes_the_line_that_assumes_it_breaks(ran, run, name, breaks):
    finding = evaluate(proofs()[name], ran(run)).finding
    assert (finding.status, finding.breaks) == ("FAILS", breaks)


@pytest.mark.parametrize("run", ["bump", "kink"])
def test_a_star_convex_and_a_kinked_loss_keep_the_proof_of_the_average_iterate(ran, run):
    assert evaluate(proofs()["sgd_average"], ran(run)).finding.status == "HOLDS"


@pytest.mark.parametrize(
    ("run", "name", "setting", "value", "breaks"),
    [
        ("noisy quadratic", "sgd_average", "lr", 0.1 * (1 + 1e-9), "energy of a step"),
        ("quadratic with momentum", "sgd_momentum", "momentum", 0.9 + 1e-9, "energy of the virtual iterate"),
    ],
)
def test_a_wrong_setting_breaks_the_line_of_the_optimizer(ran, run, name, setting, value, breaks):
    given = ran(run)
    wrong = given.steps.with_columns(pl.lit(value).alias(setting))
    finding = evaluate(proofs()[name], Tables(given.geometry, given.path, wrong, given.facts)).finding
    assert (finding.status, finding.breaks) == ("FAILS", breaks)


def test_without_losses_at_the_reference_the_other_lines_still_speak_and_the_bound_is_shown(ran):
    given = ran("quadratic")
    bare = given.geometry.with_columns(loss_y=pl.when(pl.col("pairing") == "previous").then("loss_y").otherwise(None))
    found = evaluate(proofs()["sgd_average"], Tables(bare, given.path, given.steps, given.facts))
    status = dict(zip(found.table["line"], found.table["status"], strict=True))
    assert [status[name] for name in ("energy of a step", "sum of the energies")] == ["HOLDS"] * 2
    assert status["convexity towards u"] == "NOT APPLICABLE"
    assert found.finding.status == "INCONCLUSIVE"
    assert np.isnan(found.finding.observed)
    assert found.finding.bound > 0


# --- smooth losses: with two halves of each minibatch ----------------------------------------------------------------


def in_halves(path, steps: int) -> Tables:
    random, hessian = np.random.default_rng(0), positive_definite(6, 0.1, 4.0, 1)
    noise = random.normal(size=(2, steps, 6)) * 0.4
    x, rows = np.ones(6) * 3, []
    before = np.full(6, np.nan)
    for t in range(steps):
        z = noise[:, t].mean(axis=0)
        losses = (y @ hessian @ y / 2 + z @ y for y in (x, before))
        rows.append((x, hessian @ x + z, hessian @ before + z, *losses))
        before, x = x, x - 0.05 * (hessian @ x + z)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    run = Run(*columns, lr=np.full(steps, 0.05), final=x)
    write(path, run, halves=tuple(run.x @ hessian + half for half in noise))
    return geometry(Trace(path), references=("last",))


def test_the_descent_lemma_holds_on_a_smooth_loss_and_bounds_its_gradient(tmp_path):
    found = evaluate(proofs()["descent_lemma"], in_halves(tmp_path / "run", STEPS))
    assert found.finding.status == "HOLDS", found.finding.reason
    bound = found.table.filter(pl.col("line") == "mean squared gradient").row(0, named=True)
    assert 0 < bound["left"] <= bound["right"]


# --- random scaling -------------------------------------------------------------------------------------------------


def scaled(path, draw, steps=3000, really=True) -> Tables:
    """SGD whose steps are multiplied by a random factor; or only said to be."""
    problem = quadratic(positive_definite(4, 0.2, 1.0, 2), np.ones(4) * 5, noise=0.02)
    random, law = np.random.default_rng(0), np.random.default_rng(9)
    x, rows, factors = problem.start, [], []
    before = np.full(4, np.nan)
    for _ in range(steps):
        z = problem.draw(random)
        rows.append((x, problem.grad(x, z), problem.grad(before, z), problem.f(x, z), problem.f(before, z)))
        factors.append(float(draw(law)))
        before, x = x, x - 0.004 * (factors[-1] if really else 1.0) * rows[-1][1]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    run = Run(*columns, lr=np.full(steps, 0.004), final=x)
    write(path, run, record=[{"random_scale": s} for s in factors])
    return geometry(Trace(path), references=("last",))


LAWS = {"exponential": lambda r: r.exponential(), "uniform": lambda r: r.uniform(0, 2)}


@pytest.mark.parametrize("law", LAWS)
def test_random_scaling_turns_slopes_into_loss_differences(tmp_path, law):
    found = lines("online_to_nonconvex", scaled(tmp_path / "run", LAWS[law]))
    assert found["the step is the optimizer's"]["status"] == "HOLDS"
    assert found["random scaling"]["status"] != "FAILS"
    assert found["random scaling"]["lower"] < 0 < found["random scaling"]["upper"]
    assert abs(found["random scaling"]["relative_slack"]) < 0.1


def test_a_factor_that_did_not_multiply_the_step_breaks_random_scaling(tmp_path):
    found = evaluate(proofs()["online_to_nonconvex"], scaled(tmp_path / "run", LAWS["exponential"], really=False))
    assert found.finding.breaks == "random scaling"


def test_without_a_random_factor_the_proof_does_not_speak(ran):
    assert evaluate(proofs()["online_to_nonconvex"], ran("quadratic")).finding.status == "NOT APPLICABLE"


# --- Adam -----------------------------------------------------------------------------------------------------------


def test_the_energy_of_adamw_holds_and_the_metric_that_shrinks_breaks_its_proof(tmp_path):
    given = geometry(record(tmp_path / "run", adamw()))
    found = lines("adam_energy", given)
    assert [found[n]["status"] for n in ("energy of a step", "sum of the energies")] == ["HOLDS"] * 2
    assert found["energy of a step"]["relative_slack"] == pytest.approx(0, abs=1e-10)
    assert evaluate(proofs()["adam_energy"], given).finding.breaks == "the metric grows"


def test_an_update_that_slips_breaks_the_line_of_the_optimizer(tmp_path):
    trace = record(tmp_path / "run", adamw())
    given = geometry(trace)
    wrong = given.path.with_columns(slip_slip=4 * pl.col("slip_room"))
    found = evaluate(proofs()["adam_energy"], Tables(given.geometry, wrong, given.steps, given.facts))
    assert found.finding.breaks == "the step is the optimizer's"


class Bowl(torch.nn.Module):
    """Gradients that grow: |x|² from far away with a step that leaves. The metric of Adam only grows there."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))

    def forward(self, t):
        return -(self.a**2).sum() / 2


def test_on_gradients_that_grow_the_metric_grows(tmp_path):
    trace = record(tmp_path / "run", lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0), model=Bowl())
    assert lines("adam_energy", geometry(trace))["the metric grows"]["status"] == "HOLDS"


def test_every_proof_says_of_every_run_what_it_can(tmp_path, ran):
    adam = geometry(record(tmp_path / "run", adamw(), model=Slopes(), steps=3, probes=[]))
    for given in (adam, ran("kink")):
        together = evaluate_all(proofs().values(), given)
        for name, proof in proofs().items():
            found = evaluate(proof, given)
            assert found.table.equals(together[name].table)
            assert found.table["line"].to_list() == [line.name for line in (*proof.lines, *proof.bounds)]
            assert found.table["reason"].null_count() == 0
            assert found.finding.proof == name
            assert found.finding.reason
