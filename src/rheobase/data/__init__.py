"""Data sets by name, batches in a reproducible order, and encoders from images to spikes.

    import torch
    from rheobase.data import batches, load

    digits = load("digits")
    for x, y in batches(digits.train, batch_size=64, seed=0, epoch=0):  # x: intensities in [0, 1], [B, C, H, W]
        current = digits.encode(x, T=8)  # standardised, constant: [T, B, C, H, W]
        spikes = digits.encode(x, T=8, encoder="poisson", generator=torch.Generator().manual_seed(0))

To add a data set, add a file with a function under `@register` and import it here.
"""

from rheobase.data import digits as digits
from rheobase.data import event_digits as event_digits
from rheobase.data import mnist as mnist
from rheobase.data.cache import cache_folder, cached_array, cached_frames
from rheobase.data.dataset import Batches, Dataset, Split, batches, hold_out
from rheobase.data.encode import (
    Encoder,
    burst,
    delta,
    direct,
    encode,
    get_encoder,
    latency,
    list_encoders,
    log_latency,
    phase,
    poisson,
)
from rheobase.data.events import EVENT, Events
from rheobase.data.fetch import data_root
from rheobase.data.recordings import EventDataset, Recordings
from rheobase.data.registry import About, about, files_of, list_datasets, load, options_of, register
from rheobase.data.simulate import MovingImageSensor

__all__ = [
    "EVENT",
    "About",
    "Batches",
    "Dataset",
    "Encoder",
    "EventDataset",
    "Events",
    "MovingImageSensor",
    "Recordings",
    "Split",
    "about",
    "batches",
    "burst",
    "cache_folder",
    "cached_array",
    "cached_frames",
    "data_root",
    "delta",
    "direct",
    "encode",
    "files_of",
    "get_encoder",
    "hold_out",
    "latency",
    "list_datasets",
    "list_encoders",
    "load",
    "log_latency",
    "options_of",
    "phase",
    "poisson",
    "register",
]
