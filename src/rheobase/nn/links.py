"""Links of a graph as sorted rows, and what is summed, multiplied and normalised along them, with exact gradients.

Everything here is made of operators `rheobase::...` that run loops over rows on the CPU, see graph_kernels.py; on other
devices, and under `rb.engine("reference")`, of torch's own index operations, in the same order. Sums of 16-bit numbers
are made in float32.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rheobase.scan.engine import resolve
from rheobase.scan.kernels import kernels_of

_ROWS = "Tensor start, Tensor column, Tensor? link"
_library = torch.library.Library("rheobase", "FRAGMENT")
_library.define(
    f"add_neighbours(Tensor x, Tensor? weight, {_ROWS}, Tensor back_start, Tensor back_column, Tensor? back_link)"
    " -> Tensor"
)
_library.define("along_links(Tensor g, Tensor x, Tensor start, Tensor column, SymInt count) -> Tensor")
_library.define(
    "add_ends(Tensor left, Tensor right, Tensor start, Tensor column, Tensor back_start, Tensor back_link) -> Tensor"
)
_library.define("add_links(Tensor g, Tensor start, Tensor? link) -> Tensor")
_library.define("softmax_in_rows(Tensor scores, Tensor start) -> Tensor")
_library.define("softmax_in_rows_backward(Tensor grad, Tensor a, Tensor start) -> Tensor")


@dataclass(frozen=True, eq=False)
class Links:
    """Which rows read which columns: the non-zeros of a matrix `[rows, columns]`, in the order of rows, and by columns.

    Made once with `Links.of_graph` or `Links.of_matrix`, it serves any number of calls. The E links are numbered in
    the order of rows; those from `start[-1]` on are left out.

    Attributes:
        start: int64 `[rows + 1]`; row i has the links start[i] to start[i + 1].
        row, column: of each link, int64 `[E]`.
        back_start: the same by columns, int64 `[columns + 1]`.
        back_row, back_link: row and number of each link in the order of columns, int64 `[E]`.
        self_loops: of a graph: every node got one link to itself.
    """

    start: Tensor
    row: Tensor
    column: Tensor
    back_start: Tensor
    back_row: Tensor
    back_link: Tensor
    self_loops: bool = False

    @classmethod
    def of_graph(cls, edge_index: Int64[Tensor, "2 E"], N: int, self_loops: bool = True) -> "Links":
        """The links of a graph of N nodes: row i reads the nodes j of the pairs (j, i).

        A pair that comes k times counts k times.

        Args:
            edge_index: pairs of source and target, in PyG's order; an undirected graph has both directions.
            N: how many nodes there are.
            self_loops: give every node one link to itself, whatever links to itself `edge_index` has; if not, it has
                those alone, and an isolated node reads nothing.

        Raises:
            ValueError: not int64 `[2, E]`, or a node that does not exist.
        """
        if not isinstance(edge_index, Tensor) or edge_index.dtype != torch.int64:
            got = edge_index.dtype if isinstance(edge_index, Tensor) else type(edge_index).__name__
            raise ValueError(f"edge_index is {got}; expected an int64 tensor [2, E] of source and target nodes")
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(f"edge_index has shape {tuple(edge_index.shape)}; expected [2, E]; perhaps transpose it")
        source, target = edge_index
        _check_range("edge_index", edge_index, N, "nodes")
        dropped = torch.zeros_like(source, dtype=torch.bool)
        if self_loops:
            own = torch.arange(N, device=source.device)
            dropped = torch.cat([source == target, torch.zeros_like(own, dtype=torch.bool)])
            source, target = torch.cat([source, own]), torch.cat([target, own])
        return cls._sorted(target, source, dropped, N, N, self_loops)

    @classmethod
    def of_matrix(cls, row: Int64[Tensor, " E"], column: Int64[Tensor, " E"], rows: int, columns: int) -> "Links":
        """The non-zeros of a matrix `[rows, columns]`, which must be in the order of rows, then columns.

        Raises:
            ValueError: a row or column that does not exist.
        """
        _check_range("row", row, rows, "rows")
        _check_range("column", column, columns, "columns")
        return cls._sorted(row, column, torch.zeros_like(row, dtype=torch.bool), rows, columns, False)

    @classmethod
    def _sorted(
        cls, row: Tensor, column: Tensor, dropped: Tensor, rows: int, columns: int, self_loops: bool
    ) -> "Links":
        key = torch.where(dropped, rows * columns, row * columns + column)
        order = torch.argsort(key, stable=True)
        key, row, column, dropped = key[order], row[order], column[order], dropped[order]
        start = torch.searchsorted(key, columns * torch.arange(rows + 1, device=key.device))
        back_key = torch.where(dropped, columns, column)
        back = torch.argsort(back_key, stable=True)
        back_start = torch.searchsorted(back_key[back], torch.arange(columns + 1, device=key.device))
        return cls(start, row, column, back_start, row[back], back, self_loops)

    def __repr__(self) -> str:
        return f"Links({self.rows} x {self.columns}, {len(self.row)} links)"

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.start.shape[0] - 1

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return self.back_start.shape[0] - 1

    @property
    def kept(self) -> Tensor:
        """Which links are not left out, bool `[E]`."""
        return torch.arange(len(self.row), device=self.row.device) < self.start[-1]

    def degrees(self) -> tuple[Tensor, Tensor]:
        """Links of each row and of each column, int64."""
        return self.start.diff(), self.back_start.diff()

    def to(self, device: torch.device | str) -> "Links":
        """The links on a device."""
        parts: dict[str, Any] = {n: part.to(device) for n, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **parts)


def _check_range(name: str, index: Tensor, count: int, what: str) -> None:
    """Raise ValueError unless all numbers are from 0 to count - 1; not in the compiler, which knows no values."""
    if torch.compiler.is_compiling() or not index.numel():
        return
    low, high = (int(bound) for bound in index.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"{name} runs from {low} to {high}; there are {what} 0 to {count - 1}")


def add_neighbours(
    x: Float[Tensor, "T M *rest"], links: Links, weight: Float[Tensor, "S E H"] | None = None
) -> Float[Tensor, "T N *rest"]:
    r"""$y_{t,i} = \sum_{e: i \leftarrow j} w_{t,e}\, x_{t,j}$: for every row the sum over the columns that it reads.

    Args:
        x: `[T, columns, C]`, or `[T, columns, H, C]` with weights.
        links: of E links.
        weight: `[T, E, H]`, or `[1, E, H]` for all steps; None is 1.

    Returns:
        `[T, rows, C]` or `[T, rows, H, C]`; 0 for a row that reads nothing.

    Raises:
        ValueError: shapes that do not fit.
    """
    if x.dim() != (3 if weight is None else 4) or x.shape[1] != links.columns:
        raise ValueError(
            f"add_neighbours: x has shape {tuple(x.shape)}; expected [T, {links.columns}, "
            f"{'C' if weight is None else 'H, C'}] for {links.columns} nodes"
        )
    if weight is not None:
        expected = (len(x), len(links.row), x.shape[2])
        if weight.shape not in (expected, (1, *expected[1:])):
            raise ValueError(f"add_neighbours: weight has shape {tuple(weight.shape)}; expected {expected}, or T = 1")
        weight = weight.to(x.dtype)
    if resolve(x.device) != "cpu":
        return _added(x, links, weight)
    there, back = (links.start, links.column, None), (links.back_start, links.back_row, links.back_link)
    y: Tensor = torch.ops.rheobase.add_neighbours(x, weight, *there, *back)
    return y


def add_ends(left: Float[Tensor, "T N H"], right: Float[Tensor, "T M H"], links: Links) -> Float[Tensor, "T E H"]:
    r"""$s_{t,e} = l_{t,i} + r_{t,j}$ for every link e from column j to row i; 0 for links that are left out."""
    if resolve(left.device) != "cpu":
        both = left.index_select(1, links.row) + right.index_select(1, links.column)
        return torch.where(links.kept.unsqueeze(1), both, 0.0)
    s: Tensor = torch.ops.rheobase.add_ends(left, right, links.start, links.column, links.back_start, links.back_link)
    return s


def softmax_in_rows(scores: Float[Tensor, "T E H"], links: Links) -> Float[Tensor, "T E H"]:
    r"""$a_e = \exp(s_e) / \sum_{e'} \exp(s_{e'})$ over the links of a row; 0 for links that are left out."""
    if resolve(scores.device) != "cpu":
        return _softmaxed(scores, links)
    a: Tensor = torch.ops.rheobase.softmax_in_rows(scores, links.start)
    return a


def _added(x: Tensor, links: Links, weight: Tensor | None) -> Tensor:
    exact = torch.promote_types(x.dtype, torch.float32)
    kept = links.kept.to(exact).view(-1, *(1,) * (x.dim() - 2))
    weight = kept if weight is None else weight.to(exact).unsqueeze(-1) * kept
    values = x.to(exact).index_select(1, links.column) * weight
    return values.new_zeros(len(x), links.rows, *x.shape[2:]).index_add(1, links.row, values).to(x.dtype)


def _softmaxed(scores: Tensor, links: Links) -> Tensor:
    index = links.row.view(1, -1, 1).expand(scores.shape)
    hidden = scores.masked_fill(~links.kept.unsqueeze(1), float("-inf"))
    empty = scores.new_full((len(scores), links.rows, scores.shape[2]), float("-inf"))
    largest = empty.scatter_reduce(1, index, hidden.detach(), "amax")
    e = (hidden - largest.index_select(1, links.row)).exp()
    total = torch.zeros_like(empty).index_add(1, links.row, e)
    return e / total.index_select(1, links.row)


@lru_cache
def _kernels() -> ModuleType:
    return kernels_of(Path(__file__).with_name("graph_kernels.py"))


def _ready(x: Tensor) -> Any:
    """The values as the loops read them: contiguous, float32 or float64."""
    exact = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to(exact).contiguous().numpy()


def _array(index: Tensor) -> Any:
    return index.contiguous().numpy()


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _neighbours(
    x: Tensor, weight: Tensor | None, start: Tensor, column: Tensor, link: Tensor | None, *_: Tensor | None
) -> Tensor:
    y = torch.empty(x.shape[0], start.shape[0] - 1, *x.shape[2:], dtype=_exact(x))
    if weight is None:
        _kernels().add_neighbours(_ready(x.flatten(2)), _array(start), _array(column), y.flatten(2).numpy())
    else:
        link = torch.arange(weight.shape[1]) if link is None else link
        places = _array(start), _array(column), _array(link)
        _kernels().weigh_neighbours(_ready(x), _ready(weight), *places, y.numpy())
    return y.to(x.dtype)


def _neighbours_fake(x: Tensor, weight: Tensor | None, start: Tensor, *_: Tensor | None) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape[0], start.shape[0] - 1, *x.shape[2:])


def _along(g: Tensor, x: Tensor, start: Tensor, column: Tensor, count: int) -> Tensor:
    out = torch.zeros(len(g), count, g.shape[2], dtype=_exact(g))
    _kernels().along_links(_ready(g), _ready(x), _array(start), _array(column), out.numpy())
    return out.to(g.dtype)


def _along_fake(g: Tensor, x: Tensor, start: Tensor, column: Tensor, count: int) -> Tensor:  # noqa: ARG001
    return g.new_empty(len(g), count, g.shape[2])


def _ends(left: Tensor, right: Tensor, start: Tensor, column: Tensor, *_: Tensor) -> Tensor:
    out = torch.zeros(len(left), len(column), left.shape[2], dtype=_exact(left))
    _kernels().add_ends(_ready(left), _ready(right), _array(start), _array(column), out.numpy())
    return out.to(left.dtype)


def _ends_fake(left: Tensor, right: Tensor, start: Tensor, column: Tensor, *_: Tensor) -> Tensor:  # noqa: ARG001
    return left.new_empty(len(left), len(column), left.shape[2])


def _links_added(g: Tensor, start: Tensor, link: Tensor | None) -> Tensor:
    link = torch.arange(g.shape[1]) if link is None else link
    out = torch.empty(len(g), len(start) - 1, g.shape[2], dtype=_exact(g))
    _kernels().add_links(_ready(g), _array(start), _array(link), out.numpy())
    return out.to(g.dtype)


def _links_added_fake(g: Tensor, start: Tensor, link: Tensor | None) -> Tensor:  # noqa: ARG001
    return g.new_empty(len(g), start.shape[0] - 1, g.shape[2])


def _softmax(scores: Tensor, start: Tensor) -> Tensor:
    out = torch.full(scores.shape, float("-inf"), dtype=_exact(scores))
    _kernels().less_largest(_ready(scores), _array(start), out.numpy())
    out.exp_()
    _kernels().divide_by_sum(out.numpy(), _array(start))
    return out.to(scores.dtype)


def _softmax_backward(grad: Tensor, a: Tensor, start: Tensor) -> Tensor:
    out = torch.zeros(grad.shape, dtype=_exact(grad))
    _kernels().softmax_gradient(_ready(grad), _ready(a), _array(start), out.numpy())
    return out.to(grad.dtype)


for _name, _run, _fake in (
    ("add_neighbours", _neighbours, _neighbours_fake),
    ("along_links", _along, _along_fake),
    ("add_ends", _ends, _ends_fake),
    ("add_links", _links_added, _links_added_fake),
    ("softmax_in_rows", _softmax, lambda scores, *_: torch.empty_like(scores)),
    ("softmax_in_rows_backward", _softmax_backward, lambda grad, *_: torch.empty_like(grad)),
):
    _library.impl(_name, _run, "CPU")
    torch.library.register_fake(f"rheobase::{_name}", _fake, lib=_library)


def _keep_neighbours(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, weight, *places = inputs
    ctx.save_for_backward(x if weight is not None else None, weight, *places)


def _neighbours_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, *places = ctx.saved_tensors
    to_x = to_weight = None
    if ctx.needs_input_grad[0]:
        to_x = torch.ops.rheobase.add_neighbours(grad, weight, *places[3:], *places[:3])
    if ctx.needs_input_grad[1]:
        to_weight = torch.ops.rheobase.along_links(grad, x, *places[:2], weight.shape[1])
        if len(weight) < len(to_weight):
            to_weight = to_weight.sum(0, keepdim=True)
    return to_x, to_weight, *(None,) * 6


def _keep_ends(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    _, _, start, _, *back = inputs
    ctx.save_for_backward(start, *back)


def _ends_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    start, back_start, back_link = ctx.saved_tensors
    added = torch.ops.rheobase.add_links
    return added(grad, start, None), added(grad, back_start, back_link), *(None,) * 4


def _keep_softmax(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output, inputs[1])


def _softmax_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.rheobase.softmax_in_rows_backward(grad, *ctx.saved_tensors), None


def _no_second_derivative(*_: Any) -> Any:
    raise RuntimeError(
        "attention on links has no second derivative; run forward and backward under rb.engine('reference')"
    )


for _name, _back, _keep in (
    ("add_neighbours", _neighbours_backward, _keep_neighbours),
    ("add_ends", _ends_backward, _keep_ends),
    ("softmax_in_rows", _softmax_gradient, _keep_softmax),
    ("along_links", _no_second_derivative, None),
    ("add_links", _no_second_derivative, None),
    ("softmax_in_rows_backward", _no_second_derivative, None),
):
    torch.library.register_autograd(f"rheobase::{_name}", _back, setup_context=_keep, lib=_library)
