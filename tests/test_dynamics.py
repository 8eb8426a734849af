"""The optimizer's own formula on recorded runs: torch's updates are found again, to rounding."""

import numpy as np
import polars as pl
import pytest
import torch

from analysis.geometry import geometry
from analysis.soundness.checks import trace_checks
from analysis.soundness.own_updates import OWN_UPDATES, own_updates
from analysis.vectors.dynamics import Dynamics
from analysis.vectors.passes import segments
from tests.dynamics_runs import write
from tests.problems import Run
from tests.slopes import OPTIMIZERS, STEPS, Slopes, adamw, record, sgd
from tests.styles import STYLES, run
from tracer import Tracer
from tracer.plan import Bursts
from tracer.store import Trace


def own(trace):
    return own_updates(geometry(trace, references=()))


def dynamics(trace, last=None):
    """What the pass gives: values (n, blocks, columns), missing (n, columns), and the places of the columns."""
    records = pl.DataFrame(pl.from_arrow(trace.records()))
    found = Dynamics(trace.manifest, records, last)
    parts = [found.over(segment) for segment in segments(trace.chunks(), records)]
    place = {name: i for i, name in enumerate(found.columns)}
    return np.concatenate([v for v, _ in parts]), np.concatenate([m for _, m in parts]), place


@pytest.fixture(scope="module", params=OPTIMIZERS)
def recorded(request, tmp_path_factory):
    make, rates = OPTIMIZERS[request.param]
    return geometry(record(tmp_path_factory.mktemp("dynamics") / "run", make, rates))


def test_the_step_is_the_formulas_to_1e12(recorded):
    path = recorded.path.select("slip_slip", "step_step").collect()
    assert path["slip_slip"].null_count() == 0
    assert (path["slip_slip"].sqrt() <= 1e-12 * path["step_step"].sqrt()).all()


def test_every_identity_of_the_optimizer_holds(recorded):
    found = {c.name: c for c in trace_checks(recorded)}
    assert [c.name for c in found.values() if not c.passed] == []
    for name in (
        OWN_UPDATES[0],
        "energy of the update",
        "polarisation of references",
        "sum of slopes from the first point",
    ):
        assert found[name].numbers["rows"] >= STEPS - 1


@pytest.mark.parametrize("name", ["heavy ball", "Nesterov with a schedule", "adamw"])
def test_the_moments_are_those_torch_kept(tmp_path, name):
    make, rates = OPTIMIZERS[name]
    buffer = "exp_avg" if name == "adamw" else "momentum_buffer"
    trace = record(tmp_path / "kept", make, rates, optimizer_buffers=[buffer])
    chunk = next(trace.chunks())
    m, g = chunk.streams[f"buffer:{buffer}"], chunk.g
    path = geometry(record(tmp_path / "run", make, rates)).path.filter(pl.col("block") == "model").collect()
    want = {"m_m": (m * m).sum(1), "g_m": (g * m).sum(1), "g_mprev": np.r_[np.nan, (g[1:] * m[:-1]).sum(1)]}
    for column, values in want.items():
        found = path[column].to_numpy()
        np.testing.assert_allclose(found, values[: len(found)], rtol=1e-12, atol=1e-12)


def test_adams_metric_is_that_of_the_second_moment_torch_kept(tmp_path):
    trace = record(tmp_path / "run", adamw(), optimizer_buffers=["exp_avg", "exp_avg_sq"])
    chunk, n = next(trace.chunks()), np.arange(1, STEPS + 1)
    x, v, m = chunk.x, chunk.streams["buffer:exp_avg_sq"][:-1], chunk.streams["buffer:exp_avg"][:-1]
    metric = np.sqrt(v / (1 - 0.95**n)[:, None]) + 1e-8
    d, q, e = np.diff(x, axis=0), (chunk.g - chunk.h)[1:-1], x - x[-1]
    path = geometry(trace).path.filter(pl.col("block") == "model").collect()
    want = {
        "dd_adam": (metric * d * d).sum(1)[:-1],
        "qq_adam": (q * q / metric[:-1]).sum(1),
        "mhat_e": (m / (1 - 0.9**n)[:, None] * e[:-1]).sum(1),
        "decay_e": (0.1 * metric * x[:-1] * e[:-1]).sum(1),
        "ee_adam": (metric * e[:-1] ** 2).sum(1),
        "ee_ahead": (metric * e[1:] ** 2).sum(1),
    }
    for column, values in want.items():
        np.testing.assert_allclose(path[column].drop_nulls().to_numpy(), values, rtol=1e-12, atol=1e-14)
    assert path["dd_adam"].is_null().to_list()[:2] == [True, False]


@pytest.mark.parametrize(
    "style",
    [
        "clipping_by_value",
        "parameter_groups_with_a_schedule",
        "autocast_with_clipping_accumulation_and_a_skipped_step",
        "autocast_with_a_fused_optimizer_and_a_skipped_step",
        "experts_that_take_turns",
        "gradual_unfreezing",
        "weight_decay_decoupled",
    ],
)
def test_trainings_in_float32_slip_no_more_than_rounding_does(tmp_path, style):
    run(STYLES[style], lambda m, o, **given: Tracer(tmp_path / "run", m, o, **given))
    values, missing, at = dynamics(Trace(tmp_path / "run"))
    there = ~missing[:, at["slip_slip"]]
    slip, room = (values[there][:, :, at[name]] for name in ("slip_slip", "slip_room"))
    assert there.sum() >= 6
    assert (slip <= room).all()
    assert (slip < room / 4).mean() > 0.99  # the room is a bound, not a fit


def changed(trace, **settings):
    """The pass with other settings in the step records than the training had."""
    records = pl.DataFrame(pl.from_arrow(trace.records())).with_columns(
        pl.lit(value, pl.Float64).alias(f"group0.{name}") for name, value in settings.items()
    )
    found = Dynamics(trace.manifest, records)
    values = np.concatenate([found.over(segment)[0] for segment in segments(trace.chunks(), records)])[1:]
    return values[:, :, 0] > values[:, :, 1]


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("sgd", "lr", 0.1 * (1 + 1e-12)),
        ("heavy ball", "momentum", 0.9 + 1e-12),
        ("dampening and coupled decay", "weight_decay", 0.01 * (1 + 1e-9)),
        ("dampening and coupled decay", "dampening", 0.5 + 1e-11),
        ("adamw", "betas.0", 0.9 + 1e-11),
        ("adamw", "betas.1", 0.95 + 1e-11),
        ("adamw", "eps", 1.001e-8),
        ("adamw", "weight_decay", 0.1 * (1 + 1e-9)),
    ],
)
def test_a_setting_that_is_off_by_a_little_is_seen(tmp_path, name, setting, value):
    trace = record(tmp_path / "run", *OPTIMIZERS[name])
    rate = {"lr": 0.1} if name == "dampening and coupled decay" else {}
    if rate:  # one rate, so that only the setting differs
        trace = record(tmp_path / "constant", OPTIMIZERS[name][0])
    assert not changed(trace).any()
    assert changed(trace, **{setting: value}).mean() > 0.5


def missing_steps(trace, column="slip_slip"):
    records = geometry(trace, references=()).path.filter(pl.col("block") == "model").collect()
    return records.filter(pl.col(column).is_null())["step"].to_list()


def test_without_the_first_update_only_recorded_buffers_or_no_momentum_help(tmp_path):
    def burst(name, make, **options):
        return record(tmp_path / name, make, plan=Bursts(4, 10), **options)

    assert missing_steps(burst("sgd", sgd())) == [3, 13, 23, 33, 43]  # the next point is not there
    lost = missing_steps(burst("momentum", sgd(momentum=0.9)))
    assert set(range(10, 14)) <= set(lost)
    assert 0 not in lost
    kept = burst("kept", adamw(), optimizer_buffers=["exp_avg", "exp_avg_sq"])
    assert missing_steps(kept) == [3, 13, 23, 33, 43]
    assert own(kept).passed


def test_a_second_attempt_begins_with_moments_nobody_knows(tmp_path):
    model = Slopes()
    record(tmp_path / "run", sgd(momentum=0.9), model=model, steps=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_back"], resume_at=5) as tracer:
        for t in range(5, 9):
            optimizer.zero_grad()
            tracer.loss(lambda: model(t)).backward()  # noqa: B023
            optimizer.step()
    lost = missing_steps(Trace(tmp_path / "run"))
    assert set(lost) >= {5, 6, 7, 8}
    assert not {0, 1, 2, 3} & set(lost)


def test_a_block_whose_gradient_is_zero_at_first_is_counted_as_torch_counts(tmp_path):
    """Adam's second block has a gradient of zero in the first steps (it counts), or none (it does not)."""

    class Late(torch.nn.Module):
        def __init__(self, zero):
            super().__init__()
            self.zero, self.z = zero, torch.tensor(np.random.default_rng(3).normal(size=(20, 4)))
            self.a, self.b = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))

        def forward(self, t):
            first = self.z[t, :2] @ self.a
            late = self.z[t, 2:] @ self.b
            return first + late * (t >= 3) if self.zero or t >= 3 else first

    for zero in (True, False):
        trace = record(
            tmp_path / str(zero),
            lambda p: torch.optim.Adam(p, lr=0.1),
            model=Late(zero),
            steps=12,
            missing_gradient="zero",
        )
        found = own(trace)
        assert found.passed, (zero, found.description)
        assert found.numbers["rows"] >= 30


def test_it_does_not_matter_where_chunks_end(tmp_path):
    whole = geometry(record(tmp_path / "whole", adamw())).path.collect()
    cut = geometry(record(tmp_path / "cut", adamw(), chunk_bytes=500)).path.collect()
    assert whole.equals(cut)


def test_groups_with_settings_of_their_own_need_to_be_told_apart(tmp_path):
    def two(parameters):
        return torch.optim.SGD([{"params": parameters[:1], "lr": 0.3}, {"params": parameters[1:]}], lr=0.1)

    trace = record(tmp_path / "run", two, steps=10)
    assert [g["blocks"] for g in trace.manifest.optimizer["groups"]] == [["a"], ["b"]]
    assert own(trace).passed
    for group in trace.manifest.optimizer["groups"]:
        del group["blocks"]
    records = pl.DataFrame(pl.from_arrow(trace.records()))
    assert "does not say which block belongs to which" in Dynamics(trace.manifest, records).why
    one_rate = records.with_columns(pl.col("group1.lr").alias("group0.lr"))
    assert Dynamics(trace.manifest, one_rate).why == ""


def test_long_vectors_are_computed_in_parts_and_blocks_add_up(tmp_path):
    random, d, steps = np.random.default_rng(1), 16 * 8192 + 5, 3
    x, g = random.normal(size=(2, steps + 1, d)).astype(np.float64)
    nothing = np.full(steps, 1.0)
    given = Run(x[:-1], g[:-1], np.roll(g[:-1], 1), nothing, nothing, lr=0.1 * nothing, final=x[-1])
    write(tmp_path / "run", given, sizes=(9000, d - 9000), settings={"momentum": 0.5})
    values, missing, at = dynamics(Trace(tmp_path / "run"))
    m = [g[0]]
    for t in (1, 2):
        m.append(0.5 * m[-1] + g[t])
    slip = np.diff(x, axis=0) + 0.1 * np.array(m)
    for k, part in enumerate((slice(0, 9000), slice(9000, d))):
        found = {name: values[1:, k, at[name]] for name in ("slip_slip", "m_m", "g_m")}
        np.testing.assert_allclose(found["slip_slip"], (slip[:, part] ** 2).sum(1), rtol=1e-12)
        np.testing.assert_allclose(found["m_m"], [(v[part] ** 2).sum() for v in m], rtol=1e-12)
        np.testing.assert_allclose(found["g_m"], [g[t, part] @ m[t][part] for t in range(3)], rtol=1e-11)
    assert not missing[1:, at["slip_slip"]].any()
