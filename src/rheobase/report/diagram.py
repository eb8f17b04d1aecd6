"""A chain of layers as a picture: boxes in a row, and the shortcut around those that end in a sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

SUM = "sum"
_HEIGHT, _GAP, _TOP, _LETTER, _PAD = 34, 22, 44, 7.2, 20
_ROW = 17


@dataclass(frozen=True)
class Box:
    """A box and where it stands, in pixels of the picture."""

    lines: tuple[str, ...]
    left: float
    width: float


def diagram(layers: Sequence[str], shortcut: str = "") -> str:
    """An inline SVG in the colour of its surroundings: the layers from left to right, `x` coming in.

    Args:
        layers: their names; "a|b" is one box of several lines, "sum" the place where the shortcut comes back in.
        shortcut: what is written on the arc from the input, or from behind the last sum, to the next sum.

    Raises:
        ValueError: no layers.
    """
    if not layers:
        raise ValueError("diagram: there are no layers; expected at least one name")
    boxes, left = [], 30.0
    for name in layers:
        lines = ("+",) if name == SUM else tuple(part.strip() for part in name.split("|"))
        width = 26.0 if name == SUM else max(map(len, lines)) * _LETTER + _PAD
        boxes.append(Box(lines, left + _GAP, width))
        left += _GAP + width
    tallest = max(len(box.lines) for box in boxes)
    half = max(_HEIGHT, tallest * _ROW + 12) / 2
    middle = _TOP + half
    drawn = [f'<text x="12" y="{middle + 5:g}" text-anchor="middle" font-style="italic">x</text>']
    start = 20.0
    for box in boxes:
        drawn.append(_arrow(start, box.left, middle))
        drawn.append(_box(box, middle))
        start = box.left + box.width
    drawn.append(_arrow(start, start + _GAP, middle))
    begin = 25.0
    for box in boxes:
        if box.lines == ("+",):
            centre = box.left + box.width / 2
            drawn.append(_arc(begin, centre, middle, middle - half - 8, shortcut))
            begin = box.left + box.width + _GAP / 2
    width, height = start + _GAP + 8, middle + half + 10
    title = " → ".join(" ".join(box.lines) for box in boxes)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" style="max-width:100%" role="img" '
        f'font-size="13" font-family="sans-serif" fill="currentColor" stroke-width="1.3">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )


def _box(box: Box, middle: float) -> str:
    centre = box.left + box.width / 2
    if box.lines == ("+",):
        ring = f'<circle cx="{centre:g}" cy="{middle:g}" r="13" fill="none" stroke="currentColor"/>'
        return f'{ring}<text x="{centre:g}" y="{middle + 5:g}" text-anchor="middle">+</text>'
    height = max(_HEIGHT, len(box.lines) * _ROW + 12)
    spikes = any(line.startswith("LIF") for line in box.lines)
    shape = (
        f'<rect x="{box.left:g}" y="{middle - height / 2:g}" width="{box.width:g}" height="{height:g}" rx="5" '
        f'fill="#2f80c4" fill-opacity="{0.35 if spikes else 0.07}" stroke="currentColor"/>'
    )
    first = middle + 5 - _ROW * (len(box.lines) - 1) / 2
    words = [
        f'<text x="{centre:g}" y="{first + k * _ROW:g}" text-anchor="middle">{escape(line)}</text>'
        for k, line in enumerate(box.lines)
    ]
    return shape + "".join(words)


def _arrow(start: float, end: float, y: float) -> str:
    head = f"M{end - 6:g} {y - 4:g} L{end:g} {y:g} L{end - 6:g} {y + 4:g}"
    return f'<path d="M{start:g} {y:g} L{end:g} {y:g} {head}" fill="none" stroke="currentColor"/>'


def _arc(start: float, end: float, y: float, top: float, label: str) -> str:
    head = f"M{end - 4:g} {y - 19:g} L{end:g} {y - 13:g} L{end + 4:g} {y - 19:g}"
    path = f"M{start:g} {y:g} L{start:g} {top:g} L{end:g} {top:g} L{end:g} {y - 13:g} {head}"
    middle = (start + end) / 2
    return (
        f'<path d="{path}" fill="none" stroke="currentColor"/>'
        f'<text x="{middle:g}" y="{top - 6:g}" text-anchor="middle">{escape(label)}</text>'
    )
