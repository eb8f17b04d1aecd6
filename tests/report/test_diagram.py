from xml.etree import ElementTree as ET

import pytest

from rheobase.report.diagram import diagram


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter("text")]


def test_boxes_stand_in_order_and_the_shortcut_ends_in_the_sum():
    svg = diagram(["LIF", "conv 3x3 | <norm>", "sum", "LIF"], "identity")
    assert texts(svg) == ["x", "LIF", "conv 3x3", "<norm>", "+", "LIF", "identity"]
    boxes = [float(element.get("x")) for element in ET.fromstring(svg).iter("rect")]
    assert boxes == sorted(boxes)
    assert len(boxes) == 3


def test_every_sum_has_its_own_shortcut():
    assert texts(diagram(["a", "sum", "b", "sum"], "x")).count("+") == 2
    assert len(ET.fromstring(diagram(["a", "sum", "b", "sum"])).findall("path")) == 5 + 2


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="there are no layers"):
        diagram([])
