"""What a real browser makes of the page; skipped where there is none."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest

from rheobase.report import LayerActivity, Sample, render, write

CHROMIUM = shutil.which("chromium")
WIDTHS = (1280, 768, 390, 360)
LONG = "a_very_long_name_without_any_place_to_break_it" * 4

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs the `chromium` executable (Debian: apt install chromium)"
)


def browse(tmp_path: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(CHROMIUM),
        "--headless",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--v=0",
        f"--user-data-dir={tmp_path / 'profile'}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_is_drawn_and_the_console_stays_clean(report, tmp_path):
    from matplotlib.image import imread

    picture = tmp_path / "page.png"
    page = write(report, tmp_path / "report.html")
    done = browse(tmp_path, page, "--window-size=1280,1600", "--hide-scrollbars", f"--screenshot={picture}")
    assert console(done) == []
    pixels = imread(picture)
    assert pixels.shape[:2] == (1600, 1280)
    assert len(np.unique((255 * pixels[::4, ::4, :3]).astype(np.uint8).reshape(-1, 3), axis=0)) > 50


def test_nothing_sticks_out_at_any_width(report, make_report, make_layer, tmp_path):
    """Every page in a frame of every width, all details open; the frame's title tells how wide its content is."""
    broad = replace(
        report,
        title=LONG,
        recipe=LONG,
        command=f"rheobase train {LONG} {LONG}",
        config={LONG: LONG},
        environment={"device": LONG},
        class_names=[LONG + str(number) for number in range(10)],
        layers=[
            replace(make_layer(0, steps=3000), name=LONG),
            LayerActivity("b", np.full(10**5, 0.5), np.ones((4, 10**5))),
        ],
        sample=Sample(np.eye(40)[:, :3], LONG, LONG),
    )
    many = make_report(classes=100, depth=40, class_names=[LONG + str(number) for number in range(100)])
    frames = "".join(
        f'<iframe style="width:{width}px;height:600px;border:0" srcdoc="{escape(render(page))}"></iframe>'
        for page in (report, broad, many)
        for width in WIDTHS
    )
    script = """addEventListener("load", () => {
    document.title = [...document.querySelectorAll("iframe")].map(frame => {
      const root = frame.contentDocument.documentElement;
      root.querySelectorAll("details").forEach(part => { part.open = true; });
      return frame.clientWidth + ":" + root.scrollWidth;
    }).join(" "); });"""
    wrapper = tmp_path / "frames.html"
    wrapper.write_text(f"<!DOCTYPE html><title></title><script>{script}</script>{frames}", encoding="utf-8")
    done = browse(tmp_path, wrapper, "--window-size=1400,900", "--hide-scrollbars", "--dump-dom")
    title = re.search(r"<title>([^<]+)</title>", done.stdout)
    assert title is not None
    assert console(done) == []
    assert title[1].split() == [f"{width}:{width}" for _ in range(3) for width in WIDTHS]
