import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from rheobase.report import EventView, save_clip, save_events, save_raster

BLUE, ORANGE, WHITE = (47, 128, 196), (217, 106, 0), (255, 255, 255)


def frames(T=4, height=4, width=4):
    counts = np.zeros((T, 2, height, width), np.uint8)
    for t in range(T):
        counts[t, 1, 0, t % width] = 9
        counts[t, 0, height - 1, t % width] = 9
    return counts


def view(count=200, sensor=(8, 6), title="Some events"):
    random = np.random.default_rng(0)
    return EventView(
        t=np.sort(random.random(count)) * 0.3,
        x=random.integers(0, sensor[0], count).astype(np.uint16),
        y=random.integers(0, sensor[1], count).astype(np.uint16),
        p=random.random(count) < 0.25,
        sensor=sensor,
        title=title,
    )


def test_a_gif_plays_the_frames(tmp_path):
    path = save_clip(frames(), tmp_path / "clip.gif", fps=20.0)
    with Image.open(path) as clip:
        assert (clip.n_frames, clip.info["duration"], clip.info["loop"]) == (4, 50, 0)
        for t in range(4):
            clip.seek(t)
            pixels = clip.convert("RGB")
            assert pixels.size == (320, 336)
            for at, colour in (((80 * t + 40, 40), BLUE), ((80 * t + 40, 280), ORANGE), ((40, 120), WHITE)):
                assert np.abs(np.subtract(pixels.getpixel(at), colour)).max() <= 8


def test_a_sheet_has_all_frames(tmp_path):
    with Image.open(save_clip(frames(7), tmp_path / "clip.png", seconds=0.1)) as sheet:
        assert sheet.size == (5 * 326 - 6, 2 * 342 - 6)
        assert sheet.getpixel((40, 40)) == BLUE
        assert sheet.getpixel((326 + 80 + 40, 40)) == BLUE


def test_both_polarities_mix_and_few_events_are_pale(tmp_path):
    counts = np.zeros((1, 2, 1, 4), np.int64)
    counts[0, :, 0, 0] = 8
    counts[0, 1, 0, 1] = 4
    with Image.open(save_clip(counts, tmp_path / "clip.png")) as picture:
        both, pale, none = (np.array(picture.getpixel((80 * k + 40, 40))) for k in range(3))
    assert np.abs(both - (np.array(BLUE) + ORANGE) / 2).max() <= 1
    assert np.abs(pale - (WHITE + 0.5 * (np.array(BLUE) - WHITE))).max() <= 1
    assert tuple(none) == WHITE


def test_frames_without_events_are_drawn(tmp_path):
    assert save_clip(np.zeros((2, 2, 3, 3), np.uint8), tmp_path / "clip.gif").stat().st_size > 0


@pytest.mark.parametrize(
    ("shape", "name", "fps", "message"),
    [
        ((2, 1, 3, 3), "a.gif", 1.0, r"got \[2, 1, 3, 3\]"),
        ((0, 2, 3, 3), "a.gif", 1.0, r"got \[0, 2, 3, 3\]"),
        ((1, 2, 3, 3), "a.gif", 0.0, "fps=0.0"),
        ((1, 2, 3, 3), "a.jpg", 1.0, r"a.jpg ends in '.jpg'; expected .gif or .png"),
    ],
)
def test_save_clip_refuses(tmp_path, shape, name, fps, message):
    with pytest.raises(ValueError, match=message):
        save_clip(np.zeros(shape), tmp_path / name, fps=fps)


def test_a_raster_marks_the_events(tmp_path):
    t, channel = np.array([0.0, 0.5, 1.0]), np.array([0, 3, 9])
    with Image.open(save_raster(t, channel, tmp_path / "raster.png", p=np.array([True, False, True]))) as picture:
        seen = set(map(tuple, np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()))
    assert {BLUE, ORANGE} <= seen
    assert save_raster(np.empty(0), np.empty(0, int), tmp_path / "none.png").stat().st_size > 0
    with pytest.raises(ValueError, match=r"expected t, channel, p of equal shape \[N\] and a .png, got \[3\], \[2\]"):
        save_raster(t, channel[:2], tmp_path / "raster.png")
    with pytest.raises(ValueError, match=r"raster\.gif"):
        save_raster(t, channel, tmp_path / "raster.gif")


def test_frames_of_events_count_them():
    events = view()
    counts = events.frames(5)
    assert counts.shape == (5, 2, 6, 8)
    assert counts.sum() == 200
    assert counts[:, 1].sum() == events.p.sum()
    expected = np.zeros((6, 8), int)
    np.add.at(expected, (events.y, events.x), 1)
    assert (counts.sum(axis=(0, 1)) == expected).all()
    edges = events.t[0] + events.seconds * np.arange(6) / 5
    assert counts.sum(axis=(1, 2, 3)).tolist() == np.histogram(events.t, edges)[0].tolist()


def test_a_page_tells_what_is_in_it_and_fetches_nothing(tmp_path):
    path = save_events(view(title="<b>mine</b>"), tmp_path / "events.html", steps=6)
    text = path.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "&lt;b&gt;mine" in text
    assert "<script" not in text
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "8 × 6" in text
    assert re.search(r"<b>200</b>", text)
    on = int(view().p.sum())
    assert re.search(rf"ON</span><span>{on} <small>{on / 2:.2f}", text)
    assert text.count("<polyline") == 2
    clip = base64.b64decode(re.search(r"data:image/gif;base64,([^\"]+)", text)[1])
    with Image.open(io.BytesIO(clip)) as picture:
        assert picture.n_frames == 6


@pytest.mark.parametrize("name", ["a.png", "a.html"])
def test_one_row_is_a_raster(tmp_path, name):
    sound = view(sensor=(64, 1))
    data = save_events(sound, tmp_path / name).read_bytes()
    assert (b"data:image/png" in data) == (name == "a.html")
    with pytest.raises(ValueError, match=r"one row is drawn as a raster; expected .png or .html, got a.gif"):
        save_events(sound, tmp_path / "a.gif")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.html"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_events_are_drawn(tmp_path, name, count):
    assert save_events(view(count), tmp_path / name).stat().st_size > 0


def test_events_that_cannot_be_drawn_are_refused(tmp_path):
    whole = view()
    with pytest.raises(ValueError, match=r"equal shape \[N\], got \(199,\), \(200,\)"):
        EventView(whole.t[1:], whole.x, whole.y, whole.p, whole.sensor)
    with pytest.raises(ValueError, match="reach x=7, y=5; expected them on a sensor of 7 x 6"):
        EventView(whole.t, whole.x, whole.y, whole.p, (7, 6))
    with pytest.raises(ValueError, match=r"got a.mp4, steps=30"):
        save_events(whole, tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError, match="no folder"):
        save_events(whole, tmp_path / "missing" / "a.html")
