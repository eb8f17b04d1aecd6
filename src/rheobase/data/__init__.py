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
from rheobase.data import mnist as mnist
from rheobase.data.dataset import Batches, Dataset, Split, batches, hold_out
from rheobase.data.encode import Encoder, direct, encode, get_encoder, latency, list_encoders, log_latency, poisson
from rheobase.data.events import EVENT, Events
from rheobase.data.fetch import data_root
from rheobase.data.formats import list_formats, read_events, write_events
from rheobase.data.recordings import EventDataset, Recordings
from rheobase.data.registry import About, about, list_datasets, load, options_of, register

__all__ = [
    "EVENT",
    "About",
    "Batches",
    "Dataset",
    "Encoder",
    "EventDataset",
    "Events",
    "Recordings",
    "Split",
    "about",
    "batches",
    "data_root",
    "direct",
    "encode",
    "get_encoder",
    "hold_out",
    "latency",
    "list_datasets",
    "list_encoders",
    "list_formats",
    "load",
    "log_latency",
    "options_of",
    "poisson",
    "read_events",
    "register",
    "write_events",
]
