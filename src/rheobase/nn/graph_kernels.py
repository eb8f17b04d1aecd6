"""numba loops over the links of a graph, row by row: sums over neighbours, products along links, softmax in a row.

Kept and compiled as the generated kernels are. Row i has the places start[i] to start[i + 1]; place p lies at neighbour
column[p] and has the weights, or scores, of link edge[p]. All numbers were checked when the links were made. A row adds
up in the order of its places, so results do not depend on anything else.
"""

from typing import Any

from numba import njit

CACHE: bool
"""Whether to keep the machine code beside this file; set by who runs it."""
OPTIONS = {"error_model": "numpy", "boundscheck": False, "fastmath": False, "nogil": True}


@njit(cache=CACHE, **OPTIONS)
def add_neighbours(x: Any, start: Any, column: Any, y: Any) -> None:
    """Set y[t, i, c] to the sum of x[t, column[p], c] over the places of row i."""
    for t in range(len(y)):
        for i in range(len(start) - 1):
            total = y[t, i]
            total[:] = 0
            for p in range(start[i], start[i + 1]):
                row = x[t, column[p]]
                for c in range(len(total)):
                    total[c] += row[c]


@njit(cache=CACHE, **OPTIONS)
def weigh_neighbours(x: Any, weight: Any, start: Any, column: Any, edge: Any, y: Any) -> None:
    """Set y[t, i, h, c] to the sum of weight[t, edge[p], h] * x[t, column[p], h, c] over the places of row i.

    A weight with one step serves all steps.
    """
    for t in range(len(y)):
        weights = weight[t if len(weight) > 1 else 0]
        for i in range(len(start) - 1):
            y[t, i] = 0
            for p in range(start[i], start[i + 1]):
                for h in range(y.shape[2]):
                    w, row, total = weights[edge[p], h], x[t, column[p], h], y[t, i, h]
                    for c in range(len(total)):
                        total[c] += w * row[c]


@njit(cache=CACHE, **OPTIONS)
def along_links(g: Any, x: Any, start: Any, column: Any, out: Any) -> None:
    """Set out[t, p, h] to the product of g[t, i, h] and x[t, column[p], h], summed over c, for the places of row i."""
    for t in range(len(g)):
        for i in range(len(start) - 1):
            for p in range(start[i], start[i + 1]):
                for h in range(g.shape[2]):
                    left, right = g[t, i, h], x[t, column[p], h]
                    total = out.dtype.type(0)
                    for c in range(len(left)):
                        total += left[c] * right[c]
                    out[t, p, h] = total


@njit(cache=CACHE, **OPTIONS)
def add_ends(left: Any, right: Any, start: Any, column: Any, out: Any) -> None:
    """Set out[t, p, h] to left[t, i, h] + right[t, column[p], h] for the places of row i."""
    for t in range(len(left)):
        for i in range(len(start) - 1):
            for p in range(start[i], start[i + 1]):
                for h in range(out.shape[2]):
                    out[t, p, h] = left[t, i, h] + right[t, column[p], h]


@njit(cache=CACHE, **OPTIONS)
def add_links(g: Any, start: Any, edge: Any, out: Any) -> None:
    """Set out[t, i, h] to the sum of g[t, edge[p], h] over the places of row i."""
    for t in range(len(out)):
        for i in range(len(start) - 1):
            total = out[t, i]
            total[:] = 0
            for p in range(start[i], start[i + 1]):
                for h in range(len(total)):
                    total[h] += g[t, edge[p], h]


@njit(cache=CACHE, **OPTIONS)
def less_largest(scores: Any, start: Any, out: Any) -> None:
    """Set out[t, p, h] to scores[t, p, h] less the largest of its row."""
    for t in range(len(scores)):
        for i in range(len(start) - 1):
            for h in range(scores.shape[2]):
                if start[i] < start[i + 1]:
                    largest = scores[t, start[i], h]
                    for p in range(start[i] + 1, start[i + 1]):
                        largest = max(largest, scores[t, p, h])
                    for p in range(start[i], start[i + 1]):
                        out[t, p, h] = scores[t, p, h] - largest


@njit(cache=CACHE, **OPTIONS)
def divide_by_sum(out: Any, start: Any) -> None:
    """Divide out[t, p, h] by the sum of its row, in place."""
    for t in range(len(out)):
        for i in range(len(start) - 1):
            for h in range(out.shape[2]):
                total = out.dtype.type(0)
                for p in range(start[i], start[i + 1]):
                    total += out[t, p, h]
                for p in range(start[i], start[i + 1]):
                    out[t, p, h] /= total


@njit(cache=CACHE, **OPTIONS)
def softmax_gradient(g: Any, a: Any, start: Any, out: Any) -> None:
    """Set out to a (g - the sum of a g over the row)."""
    for t in range(len(g)):
        for i in range(len(start) - 1):
            for h in range(g.shape[2]):
                total = out.dtype.type(0)
                for p in range(start[i], start[i + 1]):
                    total += a[t, p, h] * g[t, p, h]
                for p in range(start[i], start[i + 1]):
                    out[t, p, h] = a[t, p, h] * (g[t, p, h] - total)
