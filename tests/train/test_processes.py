import pytest
import torch

from rheobase.train import Processes, TrainConfig, evaluate, join
from rheobase.train.processes import own_device

X, Y = torch.arange(14.0).view(7, 2), torch.arange(7)


def test_parts_are_every_nth_sample_and_their_shares_add_up():
    parts = [Processes(rank, 3).part((X, Y), 0) for rank in range(3)]
    assert [part.batch[1].tolist() for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]
    assert all(part.batch[0].equal(X[part.batch[1]]) for part in parts)
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert not any(part.whole for part in parts)


def test_time_first_is_parted_along_the_second_axis():
    part = Processes(1, 2).part((X.t(), Y), 1)
    assert part.batch[0].equal(X.t()[:, 1::2])


@pytest.mark.parametrize("x", [X.numpy(), X.tolist()], ids=["array", "list"])
def test_sequences_are_parted_too(x):
    assert torch.as_tensor(Processes(1, 2).part((x, Y), 0).batch[0]).equal(torch.as_tensor(x)[1::2])


def test_fewer_samples_than_processes_are_run_by_all_and_counted_once():
    parts = [Processes(rank, 8).part((X, Y), 0) for rank in range(8)]
    assert all(part.whole and part.batch[0] is X for part in parts)
    assert [part.share for part in parts] == [1] + [0] * 7


def test_alone_a_batch_stays_as_it_is():
    batch = (X, Y)
    assert Processes().part(batch, 1).batch is batch


@pytest.mark.parametrize("x", [{"left": X}, X[:5], X[0, 0]], ids=["mapping", "short", "number"])
def test_what_cannot_be_parted_is_said(x):
    with pytest.raises(ValueError, match="several processes"):
        Processes(0, 2).part((x, Y), 0)


@pytest.mark.parametrize("batch", [[X], (X, Y.tolist()), (X, Y.view(7, 1)), 3], ids=["one", "list", "matrix", "number"])
def test_what_is_no_batch_is_left_to_those_who_read_it(untyped, batch):
    assert Processes(0, 2).part(batch, 0).batch is batch


def test_without_a_launcher_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join() as processes:
        assert processes == Processes(0, 1) == Processes.current()


def test_half_an_environment_is_said(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2 but RANK and LOCAL_RANK is not set"), join():
        pass


def test_a_process_group_that_is_there_is_left_as_it_is(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        with join() as processes:
            assert processes == Processes(0, 1)
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_more_processes_than_gpus_are_said(monkeypatch):
    monkeypatch.setattr(Processes, "current", classmethod(lambda cls: cls(1, 2)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device(torch.device("cpu")).type == "cpu"
    with pytest.raises(ValueError, match="process 1 of this machine finds 1 CUDA devices"):
        own_device(torch.device("cuda"))


def test_predictions_are_made_by_one():
    with pytest.raises(ValueError, match="predictions are made by one process"):
        evaluate(torch.nn.Identity(), [], TrainConfig(device="cpu"), predictions=True, together=True)
