"""Losses whose constants are exact, and the path an optimizer takes on them, in plain numpy double precision."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A loss ``f(x, z)`` with its gradient; ``z`` is the minibatch of one step, drawn by ``draw``."""

    f: Callable[[Array, Array], float]
    grad: Callable[[Array, Array], Array]
    start: Array
    draw: Callable[[np.random.Generator], Array] = lambda _: np.zeros(0)


@dataclass(frozen=True)
class Run:
    """What a tracer would have kept: ``x_t``, ``g_t``, the loss and gradient at ``x_{t−1}`` on ``z_t``, those at
    ``x_{t+1}``, and where it ended.
    """

    x: Array  # (n, p)
    g: Array  # (n, p)
    h: Array  # (n, p), NaN in the first row
    loss: Array  # (n,)
    loss_previous: Array  # (n,), NaN in the first row
    lr: Array  # (n,)
    a: Array | None = None  # (n, p), at x_{t+1}
    loss_next: Array | None = None  # (n,)
    final: Array | None = None  # (p,), the point after the last update


def descend(problem: Problem, lr: float | Array, steps: int, momentum: float = 0.0, seed: int = 0) -> Run:
    """(Stochastic) gradient descent with both probes; torch's momentum."""
    random = np.random.default_rng(seed)
    rates = np.broadcast_to(np.asarray(lr, float), (steps,))
    x, velocity, before = problem.start.copy(), np.zeros_like(problem.start), None
    rows: list[tuple[Array, Array, Array, float, float]] = []
    ahead: list[tuple[Array, float]] = []
    for t in range(steps):
        z = problem.draw(random)
        g = problem.grad(x, z)
        h = problem.grad(before, z) if before is not None else np.full_like(x, np.nan)
        rows.append((x, g, h, problem.f(x, z), problem.f(before, z) if before is not None else np.nan))
        velocity = momentum * velocity + g
        before, x = x, x - rates[t] * velocity
        ahead.append((problem.grad(x, z), problem.f(x, z)))
    columns = [np.array(column, dtype=float) for column in zip(*rows, strict=True)]
    if not columns:
        empty = np.empty((0, len(problem.start)))
        return Run(empty, empty, empty, np.empty(0), np.empty(0), np.empty(0))
    a, loss_next = (np.array(column, dtype=float) for column in zip(*ahead, strict=True))
    return Run(*columns, lr=rates, a=a, loss_next=loss_next, final=x)


def positive_definite(size: int, low: float, high: float, seed: int) -> Array:
    """A symmetric matrix with eigenvalues spaced geometrically from ``low`` to ``high``."""
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return (rotation * np.geomspace(low, high, size)) @ rotation.T


def quadratic(hessian: Array, start: Array, noise: float = 0.0) -> Problem:
    """``xᵀHx/2 + ⟨z, x⟩`` with z ~ N(0, noise²). Gap −dᵀHd/2, smoothness ‖Hd‖/‖d‖, on every minibatch."""
    size = len(start)
    return Problem(
        f=lambda x, z: float(x @ hessian @ x / 2 + z @ x),
        grad=lambda x, z: hessian @ x + z,
        start=start,
        draw=lambda random: random.normal(size=size) * noise,
    )


def kink(start: float) -> Problem:
    """``|x|``: with a constant step lr > |start| every step crosses. Smoothness 2/lr, update correlation +lr."""
    return Problem(f=lambda x, _: float(np.abs(x).sum()), grad=lambda x, _: np.sign(x), start=np.array([start]))


def linear(size: int = 3) -> Problem:
    """``⟨1, x⟩``: gap 0, smoothness 0."""
    return Problem(f=lambda x, _: float(x.sum()), grad=lambda x, _: np.ones_like(x), start=np.zeros(size))


def saddle(noise: float = 0.0) -> Problem:
    """``(x² − y²)/2`` left along y: every step there has gap +d²/2 > 0."""
    return quadratic(np.diag([1.0, -1.0]), np.array([1.0, 1e-3]), noise)


def logistic(seed: int, examples: int = 64, size: int = 5, batch: int = 8) -> Problem:
    """Logistic regression on random data: every minibatch loss is convex."""
    random = np.random.default_rng(seed)
    a = random.normal(size=(examples, size)) * np.where(random.random(examples) < 0.5, 1.0, -1.0)[:, None]

    def rows(z: Array) -> Array:
        return a[z.astype(int)]

    return Problem(
        f=lambda x, z: float(np.logaddexp(0, -rows(z) @ x).mean()),
        grad=lambda x, z: -(rows(z).T @ (1 / (1 + np.exp(rows(z) @ x)))) / batch,
        start=random.normal(size=size),
        draw=lambda r: r.integers(0, examples, batch).astype(float),
    )


def least_squares(seed: int, examples: int = 40, size: int = 6, batch: int = 8) -> Problem:
    """Linear regression on random data: every minibatch loss is a convex quadratic."""
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(examples, size)), random.normal(size=examples)

    def residual(x: Array, z: Array) -> tuple[Array, Array]:
        chosen = z.astype(int)
        return a[chosen], a[chosen] @ x - b[chosen]

    def grad(x: Array, z: Array) -> Array:
        rows, r = residual(x, z)
        return rows.T @ r / batch

    return Problem(
        f=lambda x, z: float(np.mean(residual(x, z)[1] ** 2) / 2),
        grad=grad,
        start=random.normal(size=size),
        draw=lambda r: r.integers(0, examples, batch).astype(float),
    )


def convex_problems() -> Iterator[tuple[str, Problem, float]]:
    """Random convex problems, each with a rate at which gradient descent is stable: (name, problem, lr)."""
    for seed in (1, 2):
        start = np.random.default_rng(seed).normal(size=6)
        yield f"quadratic {seed}", quadratic(positive_definite(6, 0.1, 4.0, seed), start, noise=0.3), 0.1
        yield f"logistic {seed}", logistic(seed), 0.3
        yield f"least squares {seed}", least_squares(seed), 0.05
