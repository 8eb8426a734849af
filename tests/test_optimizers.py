"""What is known of a run's optimizer from its manifest and step records, and what is said where it is not."""

import numpy as np
import polars as pl
import pytest

from analysis import optimizers
from analysis.optimizers import ADAM, NUMBERS, SGD, formula_of, optimizer_flags
from analysis.vectors import dynamics_kernel
from tests.by_hand import manifest

ADAM_SETTINGS = {"lr": 0.1, "betas.0": 0.9, "betas.1": 0.99, "eps": 1e-8, "weight_decay": 0.2}
SGD_SETTINGS = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.2}


def records(*groups, steps=3, **columns):
    settings = {f"group{i}.{name}": [value] * steps for i, group in enumerate(groups) for name, value in group.items()}
    plain = dict.fromkeys(("clip_factor", "clip_value", "random_scale"), [None] * steps)
    return pl.DataFrame(
        {**plain, **settings, **columns}, strict=False, schema_overrides=dict.fromkeys(plain, pl.Float64)
    )


def of(name, *groups):
    return manifest(optimizer={"class": name, "groups": list(groups)})


def numbers(formula, given, counts):
    found = formula.numbers(given, np.array(counts)[:, None].repeat(2, axis=1))
    return {name: found[:, 0, i] for i, name in enumerate(NUMBERS)}


def test_the_kernels_read_the_numbers_by_their_places():
    assert [getattr(optimizers, name.upper()) for name in NUMBERS] == list(range(len(NUMBERS)))
    for place in ("SLIP", "M_M", "G_M", "G_MPREV", "Y_Y", "X_X", "U_U", "OWN_OWN", "MD_MD", "UD_UD"):
        assert dynamics_kernel.SUMS[getattr(dynamics_kernel, f"_{place}")] == place.lower()


def test_torchs_first_momentum_takes_the_whole_gradient():
    found = numbers(formula_of(of("torch.optim.sgd.SGD", {}), records(SGD_SETTINGS)), records(SGD_SETTINGS), [1, 2, 3])
    assert found["take_m"].tolist() == [1.0, 0.5, 0.5]
    assert found["keep_m"].tolist() == [0.9] * 3
    assert found["couple"].tolist() == [0.2] * 3


def test_adams_bias_is_corrected_by_the_count_of_its_updates():
    given = records(ADAM_SETTINGS)
    formula = formula_of(of("torch.optim.adam.Adam", {"decoupled_weight_decay": False}), given)
    assert formula.kind == ADAM
    found = numbers(formula, given, [1, 2, 7])
    np.testing.assert_allclose(found["hat"], 1 / (1 - 0.9 ** np.array([1, 2, 7])), rtol=1e-14)
    np.testing.assert_allclose(found["root"] ** -2, 1 - 0.99 ** np.array([1, 2, 7]), rtol=1e-12)
    assert (found["couple"].tolist(), found["decay"].tolist()) == ([0.2] * 3, [0.0] * 3)


@pytest.mark.parametrize(
    ("name", "flag", "decay"),
    [
        ("torch.optim.adamw.AdamW", {}, 0.02),  # torch before 2.7 has no flag
        ("torch.optim.adamw.AdamW", {"decoupled_weight_decay": True}, 0.02),
        ("torch.optim.adam.Adam", {"decoupled_weight_decay": True}, 0.02),
        ("torch.optim.adam.Adam", {}, 0.0),
    ],
)
def test_weight_decay_is_decoupled_where_the_optimizer_says_so(name, flag, decay):
    given = records(ADAM_SETTINGS)
    assert numbers(formula_of(of(name, flag), given), given, [1, 2, 3])["decay"] == pytest.approx(decay)


def test_clipping_the_random_factor_and_the_sign_are_of_the_step():
    given = records(
        SGD_SETTINGS, clip_factor=[None, 0.5, 1.0], clip_value=[None, 2.0, None], random_scale=[3.0, None, 1]
    )
    found = numbers(formula_of(of("torch.optim.sgd.SGD", {"maximize": True}), given), given, [1, 2, 3])
    assert found["clip"].tolist() == [-1.0, -0.5, -1.0]
    assert found["clamp"].tolist() == [np.inf, 2.0, np.inf]
    assert found["scale"].tolist() == [3.0, 1.0, 1.0]


def test_blocks_have_the_numbers_of_their_group():
    given = records(SGD_SETTINGS, {**SGD_SETTINGS, "lr": 0.7})
    formula = formula_of(of("torch.optim.sgd.SGD", {"blocks": ["block1"]}, {"blocks": ["block0"]}), given)
    rates = formula.numbers(given, np.ones((3, 2), np.int64))[:, :, NUMBERS.index("rate")]
    assert rates.tolist() == [[0.7, 0.1]] * 3


@pytest.mark.parametrize(
    ("name", "groups", "given", "why"),
    [
        ("torch.optim.rmsprop.RMSprop", [{}], [SGD_SETTINGS], "RMSprop is not known here"),
        ("mine.SGD", [{}], [SGD_SETTINGS], "mine.SGD is not known here"),
        ("", [{}], [SGD_SETTINGS], "an optimizer without a name"),
        ("torch.optim.adam.Adam", [{}], [SGD_SETTINGS], "the step records lack group0.betas.0"),
        ("torch.optim.sgd.SGD", [{}, {}], [SGD_SETTINGS, {**SGD_SETTINGS, "lr": 1}], "does not say which block"),
        ("torch.optim.sgd.SGD", [{}, {"nesterov": True}], [SGD_SETTINGS] * 2, "does not say which block"),
    ],
)
def test_what_is_not_known_is_said(name, groups, given, why):
    assert why in formula_of(of(name, *groups), records(*given))


def test_groups_that_agree_need_no_telling_apart():
    formula = formula_of(of("torch.optim.sgd.SGD", {}, {}), records(SGD_SETTINGS, SGD_SETTINGS))
    assert (formula.kind, formula.group_of.tolist()) == (SGD, [0, 0])


def test_flags_say_whether_all_groups_have_them():
    found = optimizer_flags(of("torch.optim.sgd.SGD", {"nesterov": True, "maximize": True}, {"nesterov": True}))
    assert found == ("nesterov", "maximize in some groups")
    assert optimizer_flags(of("torch.optim.adamw.AdamW", {})) == ("decoupled_weight_decay",)
    assert optimizer_flags(of("mine.Own", {"nesterov": True})) == ()
