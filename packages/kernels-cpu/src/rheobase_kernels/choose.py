"""Which kernel to call for a product, by its shape and the density of the spikes."""

from dataclasses import dataclass
from typing import Literal

from rheobase_kernels.shape import Shape, chunks, laid_size

Product = Literal["forward", "weight_gradient", "input_gradient"]
Kernel = Literal["dense", "events", "table"]


@dataclass(frozen=True)
class Events:
    """What adding rows where bits are set costs, in ns.

    Attributes:
        gather: to bring 64 columns of a position together; more than one tap in them costs as much again each.
        scan: to look through 64 columns of a position, for every block of 64 output channels.
        add: for a set bit and 16 output channels.
    """

    gather: float
    scan: float
    add: float


@dataclass(frozen=True)
class Table:
    """What adding rows from tables costs, in ns.

    Attributes:
        gather: as of `Events`.
        add: for 64 columns of a position and 16 output channels, at density 0.
        spread: how much more at density 1, as a share: less of the tables stays in the caches.
    """

    gather: float
    add: float
    spread: float


@dataclass(frozen=True)
class Masked:
    """What the masked input gradient costs, in ns.

    Attributes:
        find: to find the position that reads an input pixel, for a tap and a block of 64 output channels.
        visit: of 64 channels of a pixel by such a position.
        add: for a needed value in such a visit and 16 output channels.
        finish: for a needed value.
    """

    find: float
    visit: float
    add: float
    finish: float


@dataclass(frozen=True)
class Sparse:
    """What a layer with CSR weights costs, in ns.

    Attributes:
        gather_bits: to bring 64 columns of a position together, as bits.
        gather_values: to bring one column of a position together, as a value.
        add: for a weight that is not zero and a position.
    """

    gather_bits: float
    gather_values: float
    add: float


@dataclass(frozen=True)
class Costs:
    """Costs on one thread, in ns.

    Attributes:
        dense: a multiply-add of the dense product, by the format of its operands.
        lay: a value of the weights brought into the laid order, or gathered from one chunk of partial sums.
        forward_events, forward_table, gradient_events, gradient_table, input_gradient, sparse: of the kernels.
    """

    dense: tuple[tuple[str, float], ...]
    lay: float
    forward_events: Events
    forward_table: Table
    gradient_events: Events
    gradient_table: Table
    input_gradient: Masked
    sparse: Sparse


MEASURED = Costs(
    dense=(("float32", 0.020), ("bfloat16", 0.010)),
    lay=1.5,
    forward_events=Events(gather=3.3, scan=8.3, add=0.27),
    forward_table=Table(gather=1.9, add=5.0, spread=0.9),
    gradient_events=Events(gather=2.3, scan=10.4, add=0.28),
    gradient_table=Table(gather=2.6, add=6.5, spread=0.5),
    input_gradient=Masked(find=8.3, visit=3.8, add=0.37, finish=4.0),
    sparse=Sparse(gather_bits=8.5, gather_values=0.62, add=0.048),
)
"""Fitted to times with AVX-512 on one core of an AMD EPYC of the Zen 4 family (1 MiB of second-level cache a core),
beside oneDNN and MKL in torch 2.13: square layers of 16 to 512 channels, kernels 1, 3 and 5, linear layers, densities
5 to 40 %. Half of the estimates are within 10 %."""


def estimate(
    product: Product, shape: Shape, density: float, dense: str = "float32", costs: Costs = MEASURED
) -> dict[Kernel, float]:
    """Nanoseconds that each way takes on one thread, roughly.

    Args:
        product: "forward", "weight_gradient" or "input_gradient".
        shape: of the layer.
        density: the share of the input's bits that are set; of "input_gradient": of the mask's.
        dense: the format of the dense product that there is else, "float32" or "bfloat16".
        costs: of the machine.

    Raises:
        ValueError: there is no such product or format, or the density is not in [0, 1].
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density {density}; expected a share of the bits, from 0 to 1")
    formats = dict(costs.dense)
    if dense not in formats:
        raise ValueError(f"dense format {dense!r}; expected one of {', '.join(formats)}")
    taps, channels = shape.kernel_y * shape.kernel_x, shape.channels // shape.groups
    outputs, columns = shape.out_channels // shape.groups, taps * channels
    blocks, units, pieces = -(-outputs // 64), -(-outputs // 16), -(-columns // 64)
    each, lay = shape.positions * shape.groups, costs.lay * laid_size(shape)
    found: dict[Kernel, float] = {"dense": each * columns * outputs * formats[dense]}
    if product == "input_gradient":
        masked, words, needed = costs.input_gradient, -(-channels // 64), channels * density
        visits = each * taps * (blocks * words * masked.visit + units * needed * masked.add)
        pixels = shape.pixels * shape.groups * (taps * blocks * masked.find + needed * masked.finish)
        return found | {"events": lay + visits + pixels}
    if product == "forward":
        events, table = costs.forward_events, costs.forward_table
    elif product == "weight_gradient":
        events, table, lay = costs.gradient_events, costs.gradient_table, lay * chunks(shape)
    else:
        raise ValueError(f"product {product!r}; expected 'forward', 'weight_gradient' or 'input_gradient'")
    gathers = pieces * max(1.0, min(64, columns) / channels)
    adds = columns * density * units * events.add
    entries = pieces * units * table.add * (1 + table.spread * density)
    return found | {
        "events": lay + each * (gathers * events.gather + pieces * blocks * events.scan + adds),
        "table": lay + each * (gathers * table.gather + entries),
    }


def estimate_sparse(shape: Shape, nonzeros: int, bits: bool, costs: Costs = MEASURED) -> float:
    """Nanoseconds that a layer with CSR weights takes on one thread, roughly.

    Args:
        shape: of the layer.
        nonzeros: weights that are not zero.
        bits: whether it reads bits, by "sparse_bits", or values, by "sparse_dense".
        costs: of the machine.
    """
    columns, sparse = shape.kernel_y * shape.kernel_x * shape.channels // shape.groups, costs.sparse
    gather = -(-columns // 64) * sparse.gather_bits if bits else columns * sparse.gather_values
    return float(shape.positions * (shape.groups * gather + nonzeros * sparse.add))


def choose(product: Product, shape: Shape, density: float, dense: str = "float32", costs: Costs = MEASURED) -> Kernel:
    """The way that `estimate` says is the fastest: "dense", "events" or "table"; dense where they are equal.

    Args, raises: see `estimate`.
    """
    found = estimate(product, shape, density, dense, costs)
    return min(found, key=found.__getitem__)
