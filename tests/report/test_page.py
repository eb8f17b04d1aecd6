import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from rheobase.report import LayerActivity, Sample, render, write

VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = "<script>alert(1)</script>\"'&</style><img src=http://evil.test/x onerror=alert(1)>"


class Page(HTMLParser):
    """Elements, attributes and text of a page; refuses one whose tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def assert_self_contained(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "action", "data", "poster"} or name.endswith(":href"):
                assert value is not None
                assert value.startswith(("data:", "#"))


@pytest.fixture
def everything(make_report, make_layer):
    """A report with every kind of part."""
    layers = [make_layer(0), make_layer(1, graded=True), LayerActivity("none", np.zeros(0), np.zeros((4, 0)))]
    return make_report(layers=layers, sample=Sample(np.eye(4), "3", "5"))


def test_a_page_is_whole_and_needs_nothing_else(everything):
    text = render(everything)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert_self_contained(page)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert len([tag for tag, _ in page.elements if tag == "h1"]) == 1


def test_pictures_and_tables_can_be_read_without_eyes(everything):
    page = Page(render(everything))
    assert page.all("img")
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in page.all("svg"))
    assert all(attributes.get("scope") in {"row", "col"} for attributes in page.all("th"))
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_the_headline_says_what_was_reached(report):
    text = Page(render(report)).text
    for fact in ("97.31 %", "digits-lif", "1,234,567", "4 min 41 s", f"{report.spikes_per_neuron:.4f}"):
        assert fact in text
    assert report.command in text


def test_config_and_environment_are_flattened(report):
    text = Page(render(report)).text
    for fact in ("model.tau 2.0", "epochs 24", "augment ('flip', 'crop')", "empty {}", "versions.torch 2.13.0"):
        assert fact in text


def test_the_same_report_gives_the_same_page(everything):
    assert render(everything) == render(everything)


def test_hostile_names_stay_text(report, make_layer):
    hostile = replace(
        report,
        title=HOSTILE,
        recipe=HOSTILE,
        command=HOSTILE,
        environment={HOSTILE: HOSTILE, "device": HOSTILE},
        config={HOSTILE: {HOSTILE: HOSTILE}},
        class_names=[f"{HOSTILE}{number}" for number in range(10)],
        layers=[replace(make_layer(0, graded=True), name=HOSTILE), replace(make_layer(1), name=HOSTILE)],
        sample=Sample(np.eye(3), HOSTILE, HOSTILE + "2"),
    )
    calm, page = Page(render(report)), Page(render(hostile))
    assert_self_contained(page)
    assert page.text.count("<script>alert(1)</script>") > 20
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in calm.elements}


def test_nan_and_missing_history_is_left_out_and_counted(report):
    history = [dict(line) for line in report.history]
    history[3]["train_loss"] = math.nan
    history[4]["validation_loss"] = math.inf
    del history[5]["train_loss"]
    history[6]["validation_accuracy"] = None
    text = render(replace(report, history=history))
    lengths = [len(points.split()) for points in re.findall(r'<polyline[^>]* points="([^"]*)"', text)]
    assert lengths[:4] == [22, 23, 24, 23]
    assert "2 values were NaN or infinite and cannot be drawn" in Page(text).text
    assert not re.search(r"[^\w.](nan|inf)[^\w.]", text)


@pytest.mark.parametrize("history", [[], [{}], [{"epoch": 1, "train_loss": math.nan}], [{"epoch": math.nan}]])
def test_a_history_with_nothing_to_draw(report, history):
    page = Page(render(replace(report, history=history)))
    assert "No loss was recorded." in page.text
    assert "No accuracy was recorded." in page.text


def test_one_epoch_is_one_dot(report):
    text = render(replace(report, history=report.history[:1]))
    assert "1 entry, by epoch." in Page(text).text
    assert text.count('<circle class="end') >= 4


@pytest.mark.parametrize(
    ("history", "axis"),
    [
        ([{"epoch": 1, "step": 5}, {"epoch": 2, "step": 9}], "epoch"),
        ([{"epoch": 1, "step": 5}, {"epoch": 1, "step": 9}], "step"),
        ([{"epoch": 2}, {"epoch": 1}], "line"),
        ([{"step": 5}, {"train_loss": 1.0}], "line"),
    ],
)
def test_curves_run_along_what_grows(report, history, axis):
    assert f"2 entries, by {axis}." in Page(render(replace(report, history=history))).text


def test_a_long_history_is_thinned_and_says_so(report):
    history = [{"step": step, "train_loss": 1 / (1 + step)} for step in range(50_000)]
    text = render(replace(report, history=history))
    points = re.findall(r'<polyline class="curve faint" points="([^"]*)"', text)
    assert [len(curve.split()) for curve in points] == [400]
    assert "At most 400 points of each curve are drawn" in Page(text).text
    assert len(text) < 300_000


def test_best_is_the_least_loss_and_the_highest_accuracy(report):
    history = [
        {"epoch": 1, "train_loss": 2.0, "validation_accuracy": 0.5},
        {"epoch": 2, "train_loss": 1.0, "validation_accuracy": 0.9},
        {"epoch": 3, "train_loss": 3.0, "validation_accuracy": 0.7},
    ]
    text = Page(render(replace(report, history=history))).text
    assert "train 3 best 1 at epoch 2" in text
    assert "validation 70.00 % best 90.00 % at epoch 2" in text


def test_without_layers_sample_and_confusion(make_report):
    page = Page(render(make_report(layers=[], sample=None, confusion=None, class_names=[], test_accuracy=math.nan)))
    assert "no layer recorded" in page.text
    assert "test accuracy –" not in page.text
    for heading in ("Confusion", "Layers", "Firing rates", "One sample through the network"):
        assert heading not in page.text


def test_a_sample_without_layers(make_report):
    assert "No spiking layer was recorded." in Page(render(make_report(layers=[]))).text


def test_ten_classes_show_every_count(report):
    text = render(report)
    cells = [int(n) for n in re.findall(r'<td class="(?:right)?(?: nil)?" style="--f:[\d.]+">(\d+)</td>', text)]
    np.testing.assert_array_equal(np.array(cells).reshape(10, 10), report.confusion)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
def test_the_worst_mistakes_are_listed_first(make_report, dtype):
    confusion = np.array([[5, 0, 2], [0, 7, 0], [4, 1, 0]], dtype)
    text = Page(render(make_report(confusion=confusion, class_names=["cat", "dog", "owl"]))).text
    assert "12 of 19 test samples are on the diagonal" in text
    mistakes = text[text.index("Most frequent mistakes") :]
    order = ["owl taken for cat 4 80.00", "cat taken for owl 2 28.57", "owl taken for dog 1 20.00"]
    assert [mistakes.index(line) for line in order] == sorted(mistakes.index(line) for line in order)


def test_a_hundred_classes_become_a_picture_and_a_table(make_report):
    report = make_report(classes=100, class_names=[f"class-{number}" for number in range(100)])
    text = render(report)
    page = Page(text)
    assert 'class="matrix"' not in text
    assert any("100 classes" in (image["alt"] or "") for image in page.all("img"))
    assert all(page.text.count(name) for name in report.class_names)
    assert len(text) < 400_000


def test_a_class_without_samples_has_no_recall(make_report):
    text = Page(render(make_report(confusion=np.diag([3, 0]), class_names=["a", "b"]))).text
    assert "b 0 0 –" in text
    assert "Most frequent mistakes None." in text


def test_many_layers_are_all_in_the_table_and_few_are_drawn(make_report):
    report = make_report(depth=482)
    text = render(report)
    page = Page(text)
    assert len([image for image in page.all("img") if (image["alt"] or "").startswith("Spike raster")]) == 12
    assert text.count("Firing rates of ") == 24
    for shown in (12, 24):
        assert f"{shown} of 482 layers are drawn, evenly spaced from the first to the last" in page.text
    table = text[text.index(">Layers</h2>") :]
    assert all(f'<th scope="row">{layer.name}</th>' in table for layer in report.layers)
    assert len(text) < 500_000


def test_twenty_long_layers_stay_small(make_report, make_layer):
    layers = [make_layer(index, neurons=8192, steps=500) for index in range(20)]
    assert len(render(make_report(layers=layers)).encode()) < 2_000_000


def test_a_subset_of_neurons_keeps_its_numbers(make_report):
    shown = np.array([7, 50, 99])
    layer = LayerActivity("a", np.full(100, 0.1), np.ones((4, 3)), shown=shown)
    page = Page(render(make_report(layers=[layer])))
    assert "3 of 100 neurons 99 7 step 1 4" in page.text


def test_a_wrong_prediction_is_named(make_report):
    text = Page(render(make_report(sample=Sample(np.eye(2), "cat", "dog")))).text
    assert "cat but predicted dog" in text
    assert "cat and predicted so" in Page(render(make_report(sample=Sample(np.eye(2), "cat", "cat")))).text


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(9.96, "10.0 s"), (59.99, "1 min 00 s"), (60.0, "1 min 00 s"), (3599.7, "1 h 00 min"), (7265.0, "2 h 01 min")],
)
def test_training_time(report, seconds, written):
    assert f"Training time {written}" in Page(render(replace(report, seconds=seconds))).text


def test_write_replaces_the_file(report, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write(report, str(path)) == path
    assert path.read_text("utf-8") == render(report)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(report, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(report, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_into_no_folder(report, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing for report\.html; make it first"):
        write(report, tmp_path / "missing" / "report.html")


def test_a_name_that_is_not_unicode_does_not_lose_the_report(report, tmp_path):
    path = write(replace(report, title="run \udc80"), tmp_path / "report.html")
    assert "run ?" in path.read_text("utf-8")


def test_drawing_is_imported_late_and_without_pyplot():
    code = (
        "import sys, rheobase.report as report\n"
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "report.render(report.RunReport('t', 'r', 'c', 0.5, 1, 1.0, {}, {}, [{'epoch': 1, 'train_loss': 1.0}]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
