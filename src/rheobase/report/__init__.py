"""The report: what a training run did, as one self-contained HTML page.

`clip` draws events: a clip, a raster, or a page with either.

The caller brings plain numbers and arrays (`RunReport`); nothing here knows a model, a data set or a run folder.
"""

from rheobase.report.clip import EventView, save_clip, save_events, save_raster
from rheobase.report.content import LayerActivity, RunReport, Sample
from rheobase.report.figures import evenly_spaced
from rheobase.report.page import render, write
from rheobase.report.section import Curves, Grid, Section, Stack

__all__ = [
    "Curves",
    "EventView",
    "Grid",
    "LayerActivity",
    "RunReport",
    "Sample",
    "Section",
    "Stack",
    "evenly_spaced",
    "render",
    "save_clip",
    "save_events",
    "save_raster",
    "write",
]
