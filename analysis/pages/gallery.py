"""All plates: the paper's figures and those of a replay, and what each draws."""

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from analysis.pages import plates, replay_plates
from analysis.pages.measured import Measured

OF_REPLAYS: Mapping[str, Callable[[Measured], Figure]] = {
    "frozen_reference": replay_plates.frozen_reference,
    "smoothness_against_sharpness": replay_plates.smoothness_against_sharpness,
    "loss_profiles": replay_plates.loss_profiles,
}
PLATES: Mapping[str, Callable[[Measured], Figure]] = {**plates.PLATES, **OF_REPLAYS}
"""Every plate by its name."""

_SHOWS = {
    "frozen_reference": "convexity_ratio",
    "smoothness_against_sharpness": "sharpness",
    "loss_profiles": "midpoint_defect",
}  # a plate of a replay is empty where this metric has no value

NEEDS: Mapping[str, tuple[str, ...]] = {
    **plates.NEEDS,
    "frozen_reference": ("convexity_ratio", "reference_slope"),
    "smoothness_against_sharpness": (
        "smoothness", "sharpness", "critical_sharpness", "adam_sharpness", "smoothness_to_sharpness",
    ),
    "loss_profiles": ("midpoint_defect",),
}  # fmt: skip
"""The metrics each plate draws."""


def worth_drawing(name: str, data: Measured) -> bool:
    """Whether all that a plate draws was measured, and for a plate of a replay, whether there was one."""
    if not set(NEEDS[name]) <= data.found.keys():
        return False
    return name not in OF_REPLAYS or bool(data.found[_SHOWS[name]][0]["value"].is_finite().any())
