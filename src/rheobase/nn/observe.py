"""Looking into a model while it runs: what its temporal layers emit, and where a NaN appears first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from rheobase.nn.memory import recomputing
from rheobase.scan import Temporal


@contextmanager
def observe(model: nn.Module, see: Callable[[str, Temporal, Tensor], None]) -> Iterator[None]:
    """Inside, call `see(name, layer, output)` each time a `Temporal` layer of the model has run.

    Not again when `rb.memory("bits")` runs a layer a second time, for its backward pass.

    Args:
        model: any module.
        see: gets the layer's qualified name, the layer, and its output `[T, B, ...]`.
    """

    def hook(name: str) -> Callable[..., None]:
        return lambda layer, _, output: None if recomputing() else see(name, layer, output)

    handles = [
        layer.register_forward_hook(hook(name)) for name, layer in model.named_modules() if isinstance(layer, Temporal)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def check(model: nn.Module) -> Iterator[None]:
    """Inside, raise ValueError at the first layer of the model that puts out NaN or Inf, naming it."""

    def hook(name: str) -> Callable[..., None]:
        def look(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                bad = int((~output.isfinite()).sum())
                raise ValueError(
                    f"{name or 'the model'} ({type(layer).__name__}) put out {bad} NaN or Inf of {output.numel()} "
                    f"values; look at its input and weights, or lower the learning rate"
                )

        return look

    handles = [layer.register_forward_hook(hook(name)) for name, layer in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
