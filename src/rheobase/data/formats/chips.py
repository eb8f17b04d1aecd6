"""Sizes of sensors by the name of their chip, as AEDAT files give it."""

import re

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
    "dvxplorer": (640, 480),
    "dvxplorerlite": (320, 240),
}


def chip_size(name: str) -> Sensor | None:
    """Width and height of the chip that a name such as `eu.seebetter.ini.chips.davis.Davis346red` ends with."""
    found = re.match(r"([a-z]+(?:\d{3})?)", name.rsplit(".", 1)[-1].strip().lower().replace("_", "").replace(" ", ""))
    return _SIZES.get(found[1]) if found else None


def list_chips() -> list[str]:
    """The names that `chip_size` knows."""
    return sorted(_SIZES)
