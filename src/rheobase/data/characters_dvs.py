"""Letters and digits on a turning drum, seen by an event camera: the characters of the HOTS paper."""

import os

import numpy as np

from rheobase.data.event_files import delta_recordings, read_columns
from rheobase.data.fetch import Source, check_md5, obtain
from rheobase.data.provenance import event_dataset
from rheobase.data.recordings import EventDataset
from rheobase.data.registry import About, register

_SENSOR = (32, 32)
_SOURCE = Source(
    dataset="characters_dvs",
    files={"characters_dvs.npz": "9d73d698722874e3fd21f6b686e3aef1"},
    folders=("characters_dvs",),
    page="https://github.com/SpikeAI/HOTS",
)
_ABOUT = About(
    title="36 characters seen by an event camera, 32 x 32; small and easy",
    kind="events",
    source=_SOURCE.page,
    licence="none stated for the data; its source is under the GPL 3",
    citation=(
        "X. Lagorce, G. Orchard, F. Galluppi, B. E. Shi, R. B. Benosman. HOTS: a hierarchy of event-based "
        "time-surfaces for pattern recognition. IEEE TPAMI 39(7), 1346-1359, 2017. doi:10.1109/TPAMI.2016.2574707"
    ),
    split="by showing: the first of every character, 36 train; later ones, 40 test",
    size="2.3 MB, not to be downloaded: made from alphabet_ExtractedStabilized.mat of the source",
    layout=_SOURCE.layout,
    checksums=_SOURCE.files,
)


@register(about=_ABOUT)
def characters_dvs(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> EventDataset:
    """Return 36 + 40 recordings of about 0.1 s on 32 x 32 pixels: the characters 0-9 and A-Z.

    Easy: the nearest image of event counts names all of them. Looks in `<root>/characters_dvs` for an npz as
    `DeltaEvents` reads it, with `label` and `presentation` by recording and `classes`.
    """
    (path,) = obtain(_SOURCE, root, download).values()
    check_md5(path, _SOURCE.files["characters_dvs.npz"])
    columns = read_columns(path, ("label", "presentation", "classes"))
    first = columns["presentation"] == 0
    train, test = (
        delta_recordings(path, index.tolist(), columns["label"][index].tolist(), _SENSOR)
        for index in (np.flatnonzero(first), np.flatnonzero(~first))
    )
    return event_dataset("characters_dvs", _ABOUT, tuple(map(str, columns["classes"])), train, test, _SENSOR)
