from dataclasses import replace

import pytest

from rheobase.report import Curves, Grid, Section, Stack, render

GRID = Grid("Rules", ("rule", "sum"), (("papers", 1234.0), ("<b>own</b>", None)), total=("all", "12 %"))
STACK = Stack("Energy", "nJ", ("first", "second"), (("products", (1.0, 2.0)), ("memory", (3.0, 0.0))))


def test_a_section_shows_its_tables_and_bars(report):
    page = render(replace(report, sections=[Section("What it costs", "Per sample.", (GRID, STACK))]))
    assert "<h2>What it costs</h2>" in page
    assert "<td>1,234</td>" in page
    assert "&lt;b&gt;own&lt;/b&gt;" in page
    assert "<td>–</td>" in page
    assert '<tfoot><tr><th scope="row">all</th><td>12 %</td></tr></tfoot>' in page
    assert 'class="part0" style="width:25.0%"' in page  # 1 of the largest bar's 4
    assert 'class="part1" style="width:75.0%"' in page
    assert page.index("What it costs") < page.index("How it was made")


def test_a_folded_table_is_opened_by_a_click(report):
    page = render(replace(report, sections=[Section("Cost", "", (replace(GRID, folded=True),))]))
    assert "<summary>Rules <small>2 rows</small></summary>" in page


def test_the_largest_bars_are_drawn_in_order_and_counted(report):
    values = tuple(float(k % 50) for k in range(100))
    stack = Stack("Energy", "nJ", tuple(f"layer{k}" for k in range(100)), (("all", values),))
    page = render(replace(report, sections=[Section("Cost", "", (stack,))]))
    assert "the 40 largest of 100" in page
    assert "layer49<" in page
    assert "layer29<" not in page
    assert page.index(">layer49<") < page.index(">layer99<")


def test_curves_share_a_chart_and_a_legend(report):
    lines = (("with <flips>", (0.0, 0.5, 1.5), (0.1, 0.4, 0.975)), ("chance", (0.0, 1.5), (0.0, 0.25)))
    page = render(replace(report, sections=[Section("Attacks", "", (Curves("Success", "flipped", lines),))]))
    assert 'class="key line1"></i>chance <b>25.00' in page
    assert "with &lt;flips&gt; <b>97.50" in page
    assert page.count('class="curve line') == 2
    assert "<text" in page
    assert ">0.5</text>" in page  # marks between whole numbers
    none = Curves("Success", "flipped", (("empty", (), ()),))
    assert "Nothing to draw." in render(replace(report, sections=[Section("Attacks", "", (none,))]))


def test_nothing_to_draw_is_no_error(report):
    empty = Section("Cost", "", (Stack("Energy", "nJ", (), (("all", ()),)), Grid("Rules", ("rule",), ())))
    assert "<h2>Cost</h2>" in render(replace(report, sections=[empty]))
    zero = Section("Cost", "", (Stack("Energy", "nJ", ("a",), (("all", (0.0,)),)),))
    assert "width:0.0%" in render(replace(report, sections=[zero]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grid("Rules", ("a", "b"), (("x",),)), "a row has 1 cells, expected 2"),
        (lambda: Grid("Rules", ("a",), (), total=("x", "y")), "a row has 2 cells, expected 1"),
        (lambda: Stack("E", "J", ("a",), (("p", (1.0, 2.0)),)), "part 'p' has 2 values for 1 labels"),
        (lambda: Stack("E", "J", ("a",), (("p", (-1.0,)),)), "holds negative numbers"),
        (lambda: Stack("E", "J", ("a",), (("p", (float("nan"),)),)), "holds negative numbers, NaN"),
        (lambda: Stack("E", "J", (), tuple((str(k), ()) for k in range(5))), "5 parts, expected at most 4"),
        (lambda: Curves("E", "x", tuple((str(k), (), ()) for k in range(5))), "5 lines, expected at most 4"),
        (lambda: Curves("E", "x", (("p", (1.0,), ()),)), "line 'p' has 1 x and 0 y"),
        (lambda: Curves("E", "x", (("p", (1.0,), (float("inf"),)),)), "line 'p' holds NaN or Inf"),
    ],
)
def test_what_disagrees_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
