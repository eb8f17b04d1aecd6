import dataclasses
import json

import pytest

from rheobase.train import TrainConfig


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0


def test_survives_json(untyped):
    config = TrainConfig(schedule="step", milestones=(2, 4), clip_norm=1.0, autocast="bf16", memory="bits")
    assert TrainConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 0}, "epochs is 0 but must be at least 1"),
        ({"optimizer": "adagrad"}, r"optimizer is 'adagrad'; choose one of \('sgd', 'adamw', 'adam'\)"),
        ({"lr": 0.0}, "lr is 0.0 but must be above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"schedule": "linear"}, "schedule is 'linear'"),
        ({"schedule": "step"}, r"milestones is \(\) but must be given with schedule=\"step\""),
        ({"milestones": (3,)}, "milestones is"),
        ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs is 3"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"loss": "hinge"}, "loss is 'hinge'"),
        ({"warmup_lr": 1e-5}, "warmup_lr is 1e-05 but must be 0, or above, at most lr, and given with warmup_epochs"),
        ({"warmup_lr": 2e-3, "warmup_epochs": 1}, "warmup_lr is 0.002"),
        ({"min_lr": 1.0}, "min_lr is 1.0 but must be 0, or above, at most lr"),
        ({"min_lr": 1e-5, "schedule": "constant"}, "min_lr is 1e-05"),
        ({"min_lr": -1e-5}, "min_lr is -1e-05"),
        ({"cooldown_epochs": 1}, "cooldown_epochs is 1 but must be .* given with min_lr"),
        ({"epochs": 3, "warmup_epochs": 2, "cooldown_epochs": 2, "min_lr": 1e-5}, "cooldown_epochs is 2"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"readout": "median"}, "readout is 'median'; choose one of"),
        ({"tet_lambda": 1.5}, "tet_lambda is 1.5"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"autocast": "fp16"}, "autocast is 'fp16'"),
        ({"memory": "low"}, r"memory is 'low'; choose one of \('full', 'bits'\)"),
        ({"seed": -1}, "seed is -1"),
        ({"monitor": "f1"}, "monitor is 'f1'"),
        ({"patience": -1}, "patience is -1"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps is -1"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_rejects_what_cannot_work(untyped, settings, says):
    with pytest.raises(ValueError, match=says):
        TrainConfig(**settings)
