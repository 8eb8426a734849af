"""The sensor: new runs become partitions, ended ones are computed, and nothing is done twice."""

import os
import shutil
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest

from pipeline.definitions import build
from pipeline.instance import opened
from pipeline.materialize import materialize
from pipeline.sensor import recorded_runs


def look(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    """One evaluation of the sensor; the partitions it asks for are added, as the daemon would."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=build())
    result = cast(dg.SensorResult, recorded_runs(context))
    for request in result.dynamic_partitions_requests or []:
        instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    return result


def asked(result: dg.SensorResult) -> list[str | None]:
    return sorted(str(request.partition_key) for request in result.run_requests or [])


def test_new_runs_become_partitions_and_are_computed_once(home: Path) -> None:
    with opened() as instance:
        first = look(instance)
        assert asked(first) == ["adamw", "sgdm"]
        assert sorted(instance.get_dynamic_partitions("runs")) == ["adamw", "sgdm"]
        again = look(instance, first.cursor)
        assert (asked(again), again.dynamic_partitions_requests) == ([], [])


def test_a_run_that_was_computed_from_the_command_line_is_left_alone(home: Path) -> None:
    materialize(["sgdm"], ["trace"])
    with opened() as instance:
        assert asked(look(instance)) == ["adamw"]


def test_a_run_that_is_being_recorded_waits_and_one_that_came_later_is_found(home: Path, recorded_runs: Path) -> None:
    import torch

    from tracer import Tracer

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with opened() as instance:
        cursor = look(instance).cursor
        with Tracer("late", model, optimizer) as tracer:
            for _ in range(3):
                optimizer.zero_grad()
                tracer.loss(lambda: model(torch.ones(1, 2)).square().mean()).backward()
                optimizer.step()
            waiting = look(instance, cursor)
            assert asked(waiting) == []
            assert instance.has_dynamic_partition("runs", "late")
        assert asked(look(instance, waiting.cursor)) == ["late"]


def test_looking_at_runs_that_did_not_change_opens_none_of_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as instance:
        cursor = look(instance).cursor

        def refuse(path: Path) -> None:
            raise AssertionError(f"{path} was opened")

        monkeypatch.setattr("pipeline.sensor.Trace", refuse)
        assert asked(look(instance, cursor)) == []


def test_a_removed_run_leaves_the_cursor(home: Path) -> None:
    with opened() as instance:
        cursor = look(instance).cursor
        shutil.rmtree(home / "runs" / "sgdm")
        assert "sgdm" not in str(look(instance, cursor).cursor)


def test_a_run_that_cannot_be_looked_into_keeps_no_other_from_being_seen(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: str | Path) -> Any:
        if Path(path).name == "adamw":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    listed = os.scandir
    with opened() as instance:
        monkeypatch.setattr("pipeline.sensor.os.scandir", scandir)
        assert "sgdm" in asked(look(instance))
