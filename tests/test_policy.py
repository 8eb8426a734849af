"""When recording cannot keep up, cannot go on, or would not fit: as the user chose, and told in the manifest."""

import resource
import shutil
import threading
import time

import pytest
import torch

from tests.training import plain_net, train
from tracer import RecordingError, Tracer, UsageError
from tracer.forecast import disk_speed, forecast
from tracer.plan import Bursts, Every, EveryNth
from tracer.ring import MOST_SLOTS
from tracer.schedule import Budget, Schedule
from tracer.store import Trace, verify
from tracer.store.layout import Layout
from tracer.store.run_writer import RunWriter


@pytest.fixture
def small_files():
    """Call it: from then on this process cannot make a file of 100 kB or more, as on a disk that refuses."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Loop:
    """A training loop one can stop at any step."""

    def __init__(self, path, **options):
        torch.manual_seed(0)
        self.model = plain_net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        # 1210 parameters, 14.5 kB a step: ten steps to a chunk
        self.tracer = Tracer(path, self.model, self.optimizer, probes=["look_back"], chunk_bytes=150_000, **options)

    def run(self, steps):
        for _ in range(steps):
            inputs = torch.rand(4, 64)
            self.optimizer.zero_grad()
            self.tracer.loss(lambda x=inputs: self.model(x).square().mean()).backward()
            self.optimizer.step()

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def test_recording_that_fails_stops_training_with_a_clear_error_and_keeps_what_it_has(tmp_path, small_files):
    loop = Loop(tmp_path / "run")
    loop.run(5)
    loop.tracer.flush()
    small_files()
    with pytest.raises(RecordingError, match=r"stopped at step \d+: File too large.*are safe.*resume_at"):
        loop.run(50)
    with pytest.raises(RecordingError):
        loop.tracer.close()
    found = Trace(tmp_path / "run")
    assert found.manifest.ended["reason"] == "recording failed"
    assert "File too large" in found.manifest.ended["error"]
    assert 5 <= found.step_count < 10
    assert found.steps.tolist() == list(range(found.step_count))
    assert verify(tmp_path / "run") == []


def test_training_that_goes_on_unrecorded_is_not_disturbed_and_the_manifest_counts_what_is_missing(
    tmp_path, small_files
):
    loop = Loop(tmp_path / "run", on_failure="continue")
    loop.run(5)
    loop.tracer.flush()
    small_files()
    with pytest.warns(RuntimeWarning, match=r"File too large.*Training goes on unrecorded, from step \d+ on"):
        loop.run(40)
    loop.tracer.close()
    undisturbed = Loop(tmp_path / "other")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    undisturbed.run(45)
    undisturbed.tracer.close()
    assert torch.equal(loop.weights(), undisturbed.weights())
    ended = Trace(tmp_path / "run").manifest.ended
    assert ended["reason"] == "recording failed"
    assert ended["left_out"]["recording failed"]["last"] >= 44
    assert 5 <= Trace(tmp_path / "run").step_count < 10
    assert verify(tmp_path / "run") == []


def test_a_directory_that_vanishes_stops_training(tmp_path):
    loop = Loop(tmp_path / "run")
    loop.run(2)
    loop.tracer.flush()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RecordingError, match="removed while it was being recorded"):
        loop.run(50)
    with pytest.raises(RecordingError):
        loop.tracer.close()


def test_a_directory_that_cannot_be_written_is_an_error_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        Loop(tmp_path / "file" / "run")


class Slow:
    """A disk that stands still until it is told to go on."""

    def __init__(self, monkeypatch):
        self.go_on = threading.Event()
        real = RunWriter.append_all

        def append_all(writer, steps):
            self.go_on.wait()
            real(writer, steps)

        monkeypatch.setattr(RunWriter, "append_all", append_all)


def test_a_disk_slower_than_training_leaves_steps_out_if_asked_and_counts_them(tmp_path, monkeypatch):
    disk = Slow(monkeypatch)
    loop = Loop(tmp_path / "run", when_full="drop")
    loop.run(MOST_SLOTS + 12)
    disk.go_on.set()
    loop.tracer.close()
    found = Trace(tmp_path / "run")
    last = MOST_SLOTS + 11
    assert found.steps.tolist() == [*range(MOST_SLOTS), last + 1], "all slots, and the final point"
    left_out = {"steps": 12, "first": MOST_SLOTS, "last": last}
    assert found.manifest.ended["left_out"] == {"disk slower than training": left_out}


def test_a_disk_slower_than_training_is_waited_for_by_default(tmp_path, monkeypatch):
    disk = Slow(monkeypatch)
    loop = Loop(tmp_path / "run")
    threading.Timer(0.3, disk.go_on.set).start()
    loop.run(MOST_SLOTS + 12)
    assert disk.go_on.is_set(), "training has not waited"
    loop.tracer.close()
    assert Trace(tmp_path / "run").step_count == MOST_SLOTS + 13
    assert Trace(tmp_path / "run").manifest.ended.get("left_out") is None


def test_a_run_that_does_not_fit_is_refused_with_the_numbers(tmp_path):
    with pytest.raises(UsageError, match=r"needs [\d.]+ PB.*1,000,000,000,000 steps.*this disk has .* left"):
        Loop(tmp_path / "run", steps=10**12)
    assert not (tmp_path / "run").exists()
    Loop(tmp_path / "run", steps=10).tracer.close()


def test_the_forecast_is_close_to_what_the_files_take(tmp_path):
    train(run=tmp_path / "run", steps=40)
    found = Trace(tmp_path / "run")
    said = forecast(found.manifest.layout, 41, tmp_path).total_bytes
    assert 0.8 * found.bytes < said < 1.3 * found.bytes


def test_the_disk_is_measured_and_left_as_it_was(tmp_path):
    assert disk_speed(tmp_path, 1 << 20) > 0
    assert list(tmp_path.iterdir()) == []
    assert forecast(Layout(("x",), 1000, "float32"), 10, tmp_path / "not" / "yet", measure=True).seconds > 0


def test_a_run_resumes_where_it_was_killed_and_a_branch_names_its_parent(tmp_path):
    loop = Loop(tmp_path / "run")
    loop.run(7)
    loop.tracer.close()
    more = Loop(tmp_path / "run", resume_at=7)
    assert more.tracer.step == 7
    more.run(3)
    more.tracer.close()
    assert Trace(tmp_path / "run").steps.tolist() == list(range(11))
    Loop(tmp_path / "other", branch_of=("run", 5)).tracer.close()
    assert Trace(tmp_path / "other").manifest.branch_of == {"run_id": "run", "step": 5}


def test_a_chunk_is_sealed_when_it_is_old(tmp_path):
    loop = Loop(tmp_path / "run", chunk_seconds=0.0)
    for _ in range(3):
        loop.run(1)
        loop.tracer.flush()
    assert len(list((tmp_path / "run").glob("*.h5"))) == 3
    loop.tracer.close()


class TestSchedule:
    def recorded(self, schedule, steps, spend=0.0, clock=None, step_seconds=1.0):
        found = []
        for t in range(steps):
            if schedule.recorded:
                found.append(t)
                schedule.spend(spend)
                if clock is not None:
                    clock[0] += spend
            if clock is not None:
                clock[0] += step_seconds
            schedule.advance()
        return found

    @pytest.mark.parametrize("plan", [Every(), EveryNth(5), EveryNth(4, neighbour=False), Bursts(3, 7)])
    def test_without_budget_it_is_the_plan(self, plan):
        assert self.recorded(Schedule(plan, 0, None), 40) == [t for t in range(40) if plan.records(t)]

    def test_a_budget_records_pairs_as_often_as_its_share_allows_and_accounts_for_the_rest(self):
        clock = [0.0]
        schedule = Schedule(Every(), 0, Budget(0.1, lambda: clock[0]))
        found = self.recorded(schedule, 400, spend=0.5, clock=clock)
        assert 0.5 * len(found) <= 0.1 * 400 * 1.1 + 1.0
        assert 0.5 * len(found) >= 0.1 * 400 * 0.8, "it spends what it may"
        assert all(t + 1 in found or t - 1 in found for t in found), "no step is alone"
        assert schedule.account()["budget"]["steps"] >= 400 - len(found) - 1

    def test_a_budget_that_is_never_reached_changes_nothing(self):
        clock = [0.0]
        schedule = Schedule(Every(), 0, Budget(0.5, lambda: clock[0]))
        assert self.recorded(schedule, 50, spend=0.01, clock=clock) == list(range(50))
        assert schedule.account() == {}

    @pytest.mark.parametrize("share", [0, -1, "much"])
    def test_a_budget_must_be_a_share(self, share):
        with pytest.raises(UsageError, match="expected a share of training time"):
            Budget(share)


def reached(tracer, step, seconds=20.0):
    """Whether within that time ``step`` is acknowledged and the writer has nothing to do."""
    end, ring = time.monotonic() + seconds, tracer._ring
    while not (done := tracer.acknowledged == step and ring._free.qsize() == ring._slots):
        if time.monotonic() > end:
            break
        time.sleep(0.005)
    return done


def test_the_writer_begins_with_the_next_backward_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("tracer.ring.HELD", 1e6)
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        for step in range(4):
            loss = tracer.loss(lambda: model(torch.ones(1, 64)).square().mean())
            assert step == 0 or not reached(tracer, step - 1, 0.05)
            loss.backward()
            assert step == 0 or reached(tracer, step - 1)
            optimizer.step()
        tracer.flush()
        assert tracer.acknowledged == 3


def test_a_step_that_no_backward_pass_follows_is_written_soon(tmp_path):
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        for _ in range(3):
            tracer.loss(lambda: model(torch.ones(1, 64)).square().mean()).backward()
            optimizer.step()
        assert reached(tracer, 2)


def test_without_losses_given_to_the_tracer_steps_are_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tracer.ring.HELD", 1e6)
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        for step in range(3):
            model(torch.ones(1, 64)).square().mean().backward()
            optimizer.step()
            assert reached(tracer, step)
