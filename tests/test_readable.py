"""Formulas as text: what a reader sees is the formula itself."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.columns import COLUMNS, d_d, dg_d, dg_dg, gx_d, gx_gx, gy_d, loss_x, loss_y, value
from analysis.readable import readable
from analysis.registry import metrics

FUNCTIONS = ("when", "coalesce", "max_horizontal", "min_horizontal", "sum_horizontal", "Float64", "String")
NAMES = {"inf": np.inf, **{name: getattr(pl, name) for name in FUNCTIONS}}
NAMES |= {name: pl.col(name) for name in (*COLUMNS, "value")}
ODD = (
    pl.when((d_d > 0) & (gx_d < 0)).then(1.5).otherwise(gx_d / d_d),
    gx_d - (gy_d - dg_d),
    gx_d / (d_d * gx_gx),
    -((gx_d - gy_d) ** 2),
    (-gx_d).abs() * -2,
    gx_d.is_finite() & ~gy_d.is_null(),
    pl.max_horizontal(loss_x.abs(), loss_y.abs()).mean(),
    (1 - gx_d).clip(0, 1),
    value.quantile(0.99),
    pl.col("momentum").mean() * 2,
)


def formulas():
    for metric in metrics().values():
        yield metric.value
        yield from (v.value for v in metric.variants)
        yield from metric.ratio or ()
        for claim in metric.claims:
            parts = (claim.quantity, claim.numerator, claim.denominator, claim.null_numerator, claim.margin)
            yield from (p for p in (*parts, *claim.regressors, *(b.amount for b in claim.biases)) if p is not None)


def rows(names, n=30):
    random = np.random.default_rng(0)
    numbers = {name: random.normal(size=n) for name in sorted(names) if name not in ("pairing", "block")}
    return pl.DataFrame({**numbers, "pairing": ["previous", "next", "reference:last"] * (n // 3)})


@pytest.mark.parametrize("formula", ODD, ids=str)
def test_the_text_read_as_python_is_the_formula_again(formula):
    names = NAMES | {name: pl.col(name) for name in formula.meta.root_names()}
    assert eval(readable(formula), names).meta.eq(formula)


def test_the_text_of_every_metric_read_as_python_means_the_same_or_is_left_as_it_is_printed():
    found, left = list(formulas()), 0
    for formula in found:
        text = readable(formula)
        if text == str(formula):
            left += 1
            continue
        names = NAMES | {name.replace(".", "_"): pl.col(name) for name in formula.meta.root_names()}
        for name in formula.meta.root_names():
            text = text.replace(name, name.replace(".", "_"))
        again = rows(formula.meta.root_names()).select(one=formula, other=eval(text, names))
        assert_allclose(again["other"].cast(pl.Float64), again["one"].cast(pl.Float64), err_msg=text)
    assert left < len(found) / 8


def test_brackets_stand_only_where_they_are_needed():
    assert readable(loss_x - loss_y - gx_d) == "loss_x - loss_y - gx_d"
    assert readable((dg_dg / d_d).sqrt()) == "(dg_dg / d_d).sqrt()"


def test_what_cannot_be_read_is_left_as_polars_prints_it():
    odd = gx_d.ewm_mean(alpha=0.1).rolling_map(lambda part: part.sum(), 3)
    assert readable(odd)
    assert readable(pl.element().len()) in (str(pl.element().len()), "element().len()")
