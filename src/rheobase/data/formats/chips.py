"""Sizes of sensors by the name of their chip, as AEDAT files give it."""

from rheobase.data.formats.checks import Sensor

_SIZES: dict[str, Sensor] = {
    "dvs128": (128, 128),
    "edvs": (128, 128),
    "davis128": (128, 128),
    "davis208": (208, 192),
    "davis240": (240, 180),
    "davis346": (346, 260),
    "davis640": (640, 480),
    "dvs132": (132, 104),
}


def chip_size(name: str) -> Sensor | None:
    """Width and height of a chip by a name whose last part begins with its own: `eu.ini.chips.davis.Davis346red`."""
    last = name.rsplit(".", 1)[-1].strip().lower()
    return next((size for chip, size in _SIZES.items() if last.startswith(chip)), None)


def list_chips() -> list[str]:
    """The names that `chip_size` knows."""
    return sorted(_SIZES)
