"""numba loops that draw neighbours, see `rheobase.data.neighbours`. Kept and compiled as the generated kernels are."""

import numpy as np
from numba import njit

CACHE: bool
"""Whether to keep the machine code beside this file; set by who runs it."""
OPTIONS = {"error_model": "numpy", "boundscheck": False, "fastmath": False, "nogil": True}
STEP = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=CACHE, **OPTIONS)
def mixed(x):  # type: ignore[no-untyped-def]
    """64 bits that look random, of 64 bits that count: the output function of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=CACHE, **OPTIONS)
def compress(sources, targets, indptr, indices):  # type: ignore[no-untyped-def]
    """The sources of each node, one node after the other; indptr `[N + 1]` is zero before."""
    for v in targets:
        indptr[v + 1] += 1
    indptr[:] = indptr.cumsum()
    free = indptr.copy()
    for k in range(len(targets)):
        indices[free[targets[k]]] = sources[k]
        free[targets[k]] += 1


@njit(cache=CACHE, **OPTIONS)
def number_of(v, nodes, count, table):  # type: ignore[no-untyped-def]
    """The place of v among nodes[:count], where it is put last if it is new; `table` holds places plus one by hash."""
    last = np.uint64(len(table) - 1)
    slot = mixed(np.uint64(v)) & last
    while table[slot]:
        if nodes[table[slot] - 1] == v:
            return table[slot] - 1
        slot = (slot + np.uint64(1)) & last
    nodes[count] = v
    table[slot] = count + 1
    return count


@njit(cache=CACHE, **OPTIONS)
def with_room(known, more):  # type: ignore[no-untyped-def]
    """The known nodes with room for so many more, and the table of them."""
    size = 2 ** int(2 + np.log2(1 + len(known) + more))  # at most half full
    nodes, table = np.empty(len(known) + more, np.int64), np.zeros(size, np.int64)
    for i in range(len(known)):
        number_of(known[i], nodes, i, table)
    return nodes, table


@njit(cache=CACHE, **OPTIONS)
def draw(indptr, indices, seeds, fan_outs, key):  # type: ignore[no-untyped-def]
    """Nodes, seeds first, and edges `[E, 2]` (neighbour, node) by their places; fewer nodes than seeds if one is twice.

    Neighbours are drawn by Floyd's algorithm: the last places of the list in turn, each exchanged for a random place
    before it unless that is taken.
    """
    edges = np.empty((0, 2), np.int64)
    start = count = np.int64(0)
    nodes, table = with_room(seeds[:0], len(seeds))
    for v in seeds:
        count = max(count, number_of(v, nodes, count, table) + 1)
    for hop in range(len(fan_outs) if count == len(seeds) else 0):
        drawn = np.minimum(indptr[nodes[start:count] + 1] - indptr[nodes[start:count]], fan_outs[hop])
        nodes, table = with_room(nodes[:count], drawn.sum())
        found, e, low, start = np.empty((drawn.sum(), 2), np.int64), 0, start, count
        for i in range(low, start):
            first, degree, begin = indptr[nodes[i]], indptr[nodes[i] + 1] - indptr[nodes[i]], e
            state = mixed(key + mixed(np.uint64(nodes[i]) + STEP * np.uint64(hop + 1)))
            for j in range(degree - drawn[i - low], degree):
                state += STEP
                pick = np.int64(((mixed(state) >> np.uint64(32)) * np.uint64(j + 1)) >> np.uint64(32))
                if degree <= fan_outs[hop] or np.any(found[begin:e, 0] == pick):
                    pick = np.int64(j)
                found[e, 0], found[e, 1] = pick, i
                e += 1
            for k in range(begin, e):
                found[k, 0] = number_of(indices[first + found[k, 0]], nodes, count, table)
                count = max(count, found[k, 0] + 1)
        edges = np.concatenate((edges, found))
    return nodes[:count], edges
