"""Training: the loop, losses, schedules, checkpoints and the run folder. Knows no model and no data set."""

from rheobase.train.checkpoint import Checkpoint, has_checkpoint, load_checkpoint, load_weights, save_checkpoint
from rheobase.train.config import TrainConfig
from rheobase.train.hooks import Hooks, Step, Together
from rheobase.train.loop import Batches, BatchSource, FitResult, fit
from rheobase.train.loss import cross_entropy, loss, mse, tet
from rheobase.train.measure import Apply, Prepare, evaluate
from rheobase.train.processes import Batch, Processes, join
from rheobase.train.run import RunFolder, environment
from rheobase.train.schedule import constant, cosine, schedule, step_decay

__all__ = [
    "Apply",
    "Batch",
    "BatchSource",
    "Batches",
    "Checkpoint",
    "FitResult",
    "Hooks",
    "Prepare",
    "Processes",
    "RunFolder",
    "Step",
    "Together",
    "TrainConfig",
    "constant",
    "cosine",
    "cross_entropy",
    "environment",
    "evaluate",
    "fit",
    "has_checkpoint",
    "join",
    "load_checkpoint",
    "load_weights",
    "loss",
    "mse",
    "save_checkpoint",
    "schedule",
    "step_decay",
    "tet",
]
