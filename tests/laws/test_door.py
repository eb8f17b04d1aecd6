"""Laws of the door: what is exported, what an import costs, what the verbs say, and that the README runs."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rheobase.cli import VERBS

ROOT = Path(__file__).parents[2]
ROOMS = [
    "rheobase",
    *(
        f"rheobase.{room}"
        for room in (
            "scan",
            "neurons",
            "nn",
            "models",
            "data",
            "train",
            "report",
            "recipes",
            "lab",
            "lab.attack",
            "lab.cost",
        )
    ),
]


def python(code, cwd=None):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd).stdout


@pytest.mark.parametrize("room", ROOMS)
def test_all_is_sorted_and_true(room):
    module = importlib.import_module(room)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.slow
def test_import_is_light():
    """Nothing heavy is imported; the time itself is measured by hand, never in a test."""
    loaded = python(
        "import sys, torch; a = set(sys.modules); import rheobase; print(*sorted(set(sys.modules) - a))"
    ).split()
    heavy = {"numba", "llvmlite", "sklearn", "matplotlib", "scipy", "jinja2", "rich", "tyro", "triton"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in loaded)
    assert "torch._dynamo" not in loaded


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_and_a_line_in_the_docs(verb, capsys):
    from rheobase.cli import main

    try:
        code = main([verb, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code in (0, None)
    assert "usage" in capsys.readouterr().out.lower()
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    assert f"rheobase {verb}" in pages
    assert f"rheobase {verb}" in (ROOT / "README.md").read_text()


PAGES = [
    "README.md",
    *(
        f"docs/{page}.md"
        for page in (
            *("tutorials/digits", "tutorials/neuron"),
            *("howto/stream", "howto/order", "howto/fast", "howto/memory"),
            *("howto/data", "howto/events", "howto/augment", "howto/cost", "howto/attack"),
        )
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_code_on_a_page_runs(page, tmp_path):
    """The blocks of a page are one program; a loss that it prints last is small."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    losses = re.findall(r"loss ([\d.]+)", python("\n".join(blocks), cwd=tmp_path))
    assert not losses or float(losses[-1]) < 0.5


def test_the_project_speaks_of_itself_alone():
    """No word of a workplace: its paths do not belong into a file that is shipped."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in files:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".cff", ".csv", ""} and path.is_file() and path != Path(__file__):
            text = path.read_text(errors="ignore")
            assert "/work/" not in text, name
