"""The report: what a training run did, as one self-contained HTML page.

The caller brings plain numbers and arrays (`RunReport`); nothing here knows a model, a data set or a run folder.
"""

from rheobase.report.content import LayerActivity, RunReport, Sample
from rheobase.report.figures import evenly_spaced
from rheobase.report.page import render, write

__all__ = ["LayerActivity", "RunReport", "Sample", "evenly_spaced", "render", "write"]
