"""Which weights are compressed, and what is remembered beside them while they are."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rheobase.nn import DelayedLinear

Scope = Literal["layer", "global"]
Kind = Literal["mask", "latent", "target", "dual", "scale"]
"""What a buffer beside a weight is: which weights are kept; the weight that learns while another is used; Z and U of
ADMM; the scale of quantised weights."""

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, DelayedLinear)


def compressible(model: nn.Module, exclude: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """The weights of all convolutions and linear layers by their names; a weight that several share once.

    Biases, norms, neurons and embeddings are not compressed.

    Args:
        model: any module.
        exclude: patterns of names of layers to leave alone, such as "head.*".

    Raises:
        ValueError: a pattern fits no layer, or nothing is left.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    for pattern in exclude:
        if not any(fnmatch(name, pattern) for name in layers):
            raise ValueError(f"exclude has {pattern!r}, which fits no layer; there are {', '.join(layers)}")
    left_out = {id(layer.weight) for name, layer in layers.items() if any(fnmatch(name, p) for p in exclude)}
    ids = {id(layer.weight) for layer in layers.values()} - left_out
    found = {name: p for name, p in model.named_parameters() if id(p) in ids}
    if not found:
        raise ValueError("the model has no weight of a convolution or linear layer that is to be compressed")
    return found


def share_of(name: str, sparsity: float | Mapping[str, float]) -> float:
    """The share of a layer's weights that is to be zero: one for all, or the first whose pattern fits its name.

    Raises:
        ValueError: no pattern fits.
    """
    if not isinstance(sparsity, Mapping):
        return sparsity
    for pattern, share in sparsity.items():
        if fnmatch(name, pattern) or fnmatch(name.removesuffix(".weight"), pattern):
            return share
    raise ValueError(f"sparsity names no share for {name}; add a pattern such as '*'")


def sparsity_of(weights: Mapping[str, Tensor]) -> float:
    """The share of zeros."""
    return sum(int((w == 0).sum()) for w in weights.values()) / sum(w.numel() for w in weights.values())


def keep(model: nn.Module, name: str, kind: Kind, value: Tensor) -> Tensor:
    """Keep a copy of a tensor in the model's state_dict, beside a parameter; it replaces what was there."""
    owner, buffer = _place(model, name, kind)
    owner.register_buffer(buffer, value.detach().clone())
    return kept(model, name, kind)


def kept(model: nn.Module, name: str, kind: Kind) -> Tensor:
    """What `keep` has put beside a parameter.

    Raises:
        AttributeError: nothing.
    """
    owner, buffer = _place(model, name, kind)
    return owner.get_buffer(buffer)


def has_kept(model: nn.Module, name: str, kind: Kind) -> bool:
    """Whether `keep` has put something there."""
    owner, buffer = _place(model, name, kind)
    return buffer in owner._buffers


def forget(model: nn.Module, kinds: Sequence[Kind] = get_args(Kind)) -> None:
    """Remove from a model all that `keep` has put there."""
    for module in model.modules():
        for buffer in [b for b in module._buffers if any(b.endswith(_suffix(kind)) for kind in kinds)]:
            del module._buffers[buffer]
            module._non_persistent_buffers_set.discard(buffer)


def _place(model: nn.Module, name: str, kind: Kind) -> tuple[nn.Module, str]:
    owner, _, parameter = name.rpartition(".")
    return model.get_submodule(owner), parameter + _suffix(kind)


def _suffix(kind: Kind) -> str:
    return f"_compress_{kind}"


def largest(
    weights: Mapping[str, Tensor], sparsity: float | Mapping[str, float], scope: Scope = "layer"
) -> dict[str, Tensor]:
    """Masks that keep the largest absolute values: exactly round((1 - sparsity) N), of equal ones the first.

    Args:
        weights: by name.
        sparsity: share of zeros, in [0, 1]; with scope "layer" also a mapping from patterns of names to shares.
        scope: whether N counts the weights of each "layer", or of all together ("global").

    Raises:
        ValueError: a share out of range, or a mapping with the scope "global".
    """
    if scope == "global":
        if isinstance(sparsity, Mapping):
            raise ValueError("sparsity names shares of layers, which scope 'global' does not know; give one number")
        joined = torch.cat([w.detach().abs().flatten() for w in weights.values()])
        return dict(_split(_largest(joined, sparsity), weights))
    return {
        name: _largest(w.detach().abs().flatten(), share_of(name, sparsity)).view(w.shape)
        for name, w in weights.items()
    }


def _largest(size: Tensor, sparsity: float) -> Tensor:
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity is {sparsity}; expected a share in [0, 1]")
    mask = torch.zeros_like(size, dtype=torch.bool)
    mask[size.sort(descending=True, stable=True).indices[: round((1 - sparsity) * len(size))]] = True
    return mask


def _split(joined: Tensor, like: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    parts = joined.split([w.numel() for w in like.values()])
    for (name, w), part in zip(like.items(), parts, strict=True):
        yield name, part.view(w.shape)
