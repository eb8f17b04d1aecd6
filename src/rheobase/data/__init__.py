"""Data sets by name, batches in a reproducible order, and encoders from images to spikes.

    import torch
    from rheobase.data import batches, load

    digits = load("digits")
    for x, y in batches(digits.train, batch_size=64, seed=0, epoch=0):  # x: intensities in [0, 1], [B, C, H, W]
        current = digits.encode(x, T=8)  # standardised, constant: [T, B, C, H, W]
        spikes = digits.encode(x, T=8, encoder="poisson", generator=torch.Generator().manual_seed(0))

To add a data set, add a file with a function under `@register` and import it here.
"""

from rheobase.data import blocks as blocks
from rheobase.data import characters_dvs as characters_dvs
from rheobase.data import cifar as cifar
from rheobase.data import cifar10_dvs as cifar10_dvs
from rheobase.data import digits as digits
from rheobase.data import dvs_gesture as dvs_gesture
from rheobase.data import dvs_sign as dvs_sign
from rheobase.data import event_digits as event_digits
from rheobase.data import gnn_benchmark as gnn_benchmark
from rheobase.data import heidelberg as heidelberg
from rheobase.data import imagenet as imagenet
from rheobase.data import mnist as mnist
from rheobase.data import nas_tones as nas_tones
from rheobase.data import ncaltech101 as ncaltech101
from rheobase.data import nmnist as nmnist
from rheobase.data import ogb as ogb
from rheobase.data import omniglot as omniglot
from rheobase.data import planetoid as planetoid
from rheobase.data import spoken_digits as spoken_digits
from rheobase.data import yin_yang as yin_yang
from rheobase.data.adapters import from_pyg, from_pyg_batch, from_tonic, from_torchvision
from rheobase.data.augment import Augment, AugmentedBatches
from rheobase.data.cache import cache_folder, cached_array, cached_frames
from rheobase.data.cochlea import Cochlea
from rheobase.data.dataset import Batches, Dataset, Split, batches, hold_out
from rheobase.data.encode import (
    Encoder,
    burst,
    columns,
    delta,
    direct,
    encode,
    get_encoder,
    latency,
    list_encoders,
    log_latency,
    phase,
    poisson,
    presence,
)
from rheobase.data.events import EVENT, Events
from rheobase.data.fetch import data_root
from rheobase.data.folds import stratified_folds
from rheobase.data.formats import list_formats, read_events, write_events
from rheobase.data.frames import (
    TimeFrames,
    ToFrames,
    ToSpikeTensor,
    ToTimeSurface,
    ToVoxelGrid,
    frames_of,
    time_frames,
    to_frames,
    to_spike_tensor,
    to_time_surface,
    to_voxel_grid,
)
from rheobase.data.gnn_benchmark import read_gnn_benchmark
from rheobase.data.graph import Graph, both_ways, full_supervised, random_split
from rheobase.data.graph_sets import GraphSet, near_or_rewired
from rheobase.data.held_links import LinkSplit, draw_unlinked, hold_out_links
from rheobase.data.imagenet import ImageFolder, ImageFolders
from rheobase.data.neighbours import NeighbourSampler, Subgraph
from rheobase.data.ogb import read_ogb
from rheobase.data.omniglot import Drawings, Episode, Episodes, Omniglot
from rheobase.data.recordings import EventDataset, Recordings
from rheobase.data.registry import About, about, files_of, folds_of, list_datasets, load, options_of, register
from rheobase.data.simulate import MovingImageSensor
from rheobase.data.transforms import (
    CenterCrop,
    Compose,
    Crop,
    Cutout,
    Denoise,
    Downsample,
    DownsampleTime,
    Drop,
    DropByArea,
    DropByTime,
    FlipPolarity,
    FlipTime,
    FlipX,
    FlipY,
    JitterSpace,
    JitterTime,
    RandomCrop,
    RandomCutout,
    RandomRotate,
    RandomShift,
    Refractory,
    Rotate,
    Shift,
    Transform,
    UniformNoise,
    center_crop,
    crop,
    cutout,
    denoise,
    downsample,
    downsample_time,
    drop,
    drop_by_area,
    drop_by_time,
    flip_polarity,
    flip_time,
    flip_x,
    flip_y,
    jitter_space,
    jitter_time,
    random_crop,
    random_cutout,
    random_rotate,
    random_shift,
    refractory,
    rotate,
    sample_generator,
    shift,
    uniform_noise,
)

__all__ = [
    "EVENT",
    "About",
    "Augment",
    "AugmentedBatches",
    "Batches",
    "CenterCrop",
    "Cochlea",
    "Compose",
    "Crop",
    "Cutout",
    "Dataset",
    "Denoise",
    "Downsample",
    "DownsampleTime",
    "Drawings",
    "Drop",
    "DropByArea",
    "DropByTime",
    "Encoder",
    "Episode",
    "Episodes",
    "EventDataset",
    "Events",
    "FlipPolarity",
    "FlipTime",
    "FlipX",
    "FlipY",
    "Graph",
    "GraphSet",
    "ImageFolder",
    "ImageFolders",
    "JitterSpace",
    "JitterTime",
    "LinkSplit",
    "MovingImageSensor",
    "NeighbourSampler",
    "Omniglot",
    "RandomCrop",
    "RandomCutout",
    "RandomRotate",
    "RandomShift",
    "Recordings",
    "Refractory",
    "Rotate",
    "Shift",
    "Split",
    "Subgraph",
    "TimeFrames",
    "ToFrames",
    "ToSpikeTensor",
    "ToTimeSurface",
    "ToVoxelGrid",
    "Transform",
    "UniformNoise",
    "about",
    "batches",
    "both_ways",
    "burst",
    "cache_folder",
    "cached_array",
    "cached_frames",
    "center_crop",
    "columns",
    "crop",
    "cutout",
    "data_root",
    "delta",
    "denoise",
    "direct",
    "downsample",
    "downsample_time",
    "draw_unlinked",
    "drop",
    "drop_by_area",
    "drop_by_time",
    "encode",
    "files_of",
    "flip_polarity",
    "flip_time",
    "flip_x",
    "flip_y",
    "folds_of",
    "frames_of",
    "from_pyg",
    "from_pyg_batch",
    "from_tonic",
    "from_torchvision",
    "full_supervised",
    "get_encoder",
    "hold_out",
    "hold_out_links",
    "jitter_space",
    "jitter_time",
    "latency",
    "list_datasets",
    "list_encoders",
    "list_formats",
    "load",
    "log_latency",
    "near_or_rewired",
    "options_of",
    "phase",
    "poisson",
    "presence",
    "random_crop",
    "random_cutout",
    "random_rotate",
    "random_shift",
    "random_split",
    "read_events",
    "read_gnn_benchmark",
    "read_ogb",
    "refractory",
    "register",
    "rotate",
    "sample_generator",
    "shift",
    "stratified_folds",
    "time_frames",
    "to_frames",
    "to_spike_tensor",
    "to_time_surface",
    "to_voxel_grid",
    "uniform_noise",
    "write_events",
]
