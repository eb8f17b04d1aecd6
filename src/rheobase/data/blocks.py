"""Generated graphs: blocks of nodes that are linked more among themselves, the stochastic block model.

Source: P. W. Holland, K. B. Laskey, S. Leinhardt, Stochastic blockmodels: first steps, 1983.
"""

import os
from itertools import combinations_with_replacement

import numpy as np
import torch

from rheobase.data.dataset import random_of
from rheobase.data.graph import Graph, both_ways, random_split
from rheobase.data.registry import About, register

_ABOUT = About(
    title="blocks of nodes that are linked more among themselves, with words of which each block prefers some",
    kind="generated",
    source="https://doi.org/10.1016/0378-8733(83)90021-7",
    licence="none: generated",
    citation=(
        "P. W. Holland, K. B. Laskey, S. Leinhardt. Stochastic blockmodels: first steps. Social Networks 5 (1983), "
        "pp. 109-137"
    ),
    split="drawn by the option `seed`; by default 80 train, 80 validation, 340 test",
    size="nothing",
)


@register(about=_ABOUT)
def stochastic_blocks(
    *,
    root: str | os.PathLike[str] | None = None,  # noqa: ARG001
    download: bool = False,  # noqa: ARG001
    nodes: int = 500,
    classes: int = 4,
    p_in: float = 0.03,
    p_out: float = 0.004,
    features: int = 300,
    words: int = 15,
    focus: float = 0.2,
    train: int = 20,
    val: int = 20,
    seed: int = 0,
) -> Graph:
    r"""Return a graph of the stochastic block model: blocks are classes, and differ in size by one node at most.

    Two nodes are linked with probability p_in in one block, p_out between blocks: for each pair of blocks the number of
    links is drawn from Binomial(pairs, p), then so many different pairs, all equally likely. Each node draws `words`
    words, repetitions allowed: with probability `focus` one of the `features // classes` that its block prefers, else
    one of all; x is 1 at the words that it drew. The time is that of the links; a million nodes with ten million links
    are made in seconds.

    The block model's features are ours; the other defaults are those of a calculation for arXiv:2107.06865.

    Args:
        root, download: unused.
        nodes: N.
        classes: blocks.
        p_in, p_out: probabilities of a link.
        features: words that there are.
        words: draws of each node.
        focus: share of the draws that tell the block.
        train, val: nodes of each class for training and validation; all others are for testing.
        seed: fixes everything, in [0, 2**32).

    Raises:
        ValueError: an option out of range.
    """
    for name, value, fine, expected in (
        ("classes", classes, classes >= 1, "at least 1"),
        ("nodes", nodes, nodes >= classes, f"at least the {classes} classes"),
        ("p_in", p_in, 0 <= p_in <= 1, "in [0, 1]"),
        ("p_out", p_out, 0 <= p_out <= 1, "in [0, 1]"),
        ("features", features, features >= classes, f"at least the {classes} classes"),
        ("words", words, words >= 0, "at least 0"),
        ("focus", focus, 0 <= focus <= 1, "in [0, 1]"),
    ):
        if not fine:
            raise ValueError(f"stochastic_blocks: {name} is {value}; expected {expected}")
    random = random_of("stochastic_blocks", seed=seed)
    y = random.permutation(np.arange(nodes) % classes)
    members = [np.flatnonzero(y == label) for label in range(classes)]
    links = []
    for a, b in combinations_with_replacement(range(classes), 2):
        m, n = len(members[a]), len(members[b])
        if a == b:
            first, second = _triangle(_distinct(random, m * (m - 1) // 2, p_in))
        else:
            pairs = _distinct(random, m * n, p_out)
            first, second = pairs // n, pairs % n
        links.append(np.stack([members[a][first], members[b][second]]))
    drawn = torch.from_numpy(np.concatenate(links, axis=1))
    labels = torch.from_numpy(y.astype(np.int64))
    sets = random_split(labels, seed, train, val)
    return Graph(
        "stochastic_blocks",
        _words(random, y, classes, features, words, focus),
        both_ways(drawn, nodes),
        labels,
        *sets,
        tuple(map(str, range(classes))),
        source=_ABOUT.source,
        licence=_ABOUT.licence,
        citation=_ABOUT.citation,
        listed=drawn.shape[1],
    )


def _distinct(random: np.random.RandomState, count: int, p: float) -> np.ndarray:
    """Each of the numbers 0 to count - 1 with probability p, sorted."""
    wanted = int(random.binomial(count, p))
    if 2 * wanted > count:  # dense: draw those that stay out
        left = np.ones(count, bool)
        left[_draw(random, count, count - wanted)] = False
        return np.flatnonzero(left)
    return _draw(random, count, wanted)


def _draw(random: np.random.RandomState, count: int, wanted: int) -> np.ndarray:
    """`wanted` different numbers below count, every such set as likely as another, sorted."""
    found = np.empty(0, np.int64)
    while len(found) < wanted:
        more = random.randint(0, count, wanted - len(found), dtype=np.int64)
        found = np.sort(np.concatenate([found, more]))
        found = found[np.append(True, found[1:] != found[:-1])]
    return found


def _triangle(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs j < i that whole numbers stand for: i (i - 1) / 2 + j."""
    i = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.int64)
    i -= i * (i - 1) // 2 > numbers  # the root is rounded
    i += i * (i + 1) // 2 <= numbers
    return i, numbers - i * (i - 1) // 2


def _words(
    random: np.random.RandomState, y: np.ndarray, classes: int, features: int, words: int, focus: float
) -> torch.Tensor:
    """The words of each node, 0 or 1, float32 `[N, features]`."""
    preferred = features // classes
    x = np.zeros((len(y), features), np.float32)
    rows = np.arange(len(y))
    for _ in range(words):
        own = y * preferred + random.randint(0, preferred, len(y))
        x[rows, np.where(random.random_sample(len(y)) < focus, own, random.randint(0, features, len(y)))] = 1
    return torch.from_numpy(x)
