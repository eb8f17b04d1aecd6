import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.lab.compress import compressible, forget, keep_masks, largest, sparsity_of
from rheobase.lab.compress.weights import keep, kept
from rheobase.models import MODELS, create_model


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_weights_of_layers_alone_count():
    assert list(compressible(net())) == ["0.weight", "3.weight"]
    assert list(compressible(net(), ["3"])) == ["0.weight"]


def test_shared_weight_counts_once():
    layer = nn.Linear(3, 3)
    assert list(compressible(nn.Sequential(layer, nn.ReLU(), layer))) == ["0.weight"]


@pytest.mark.parametrize("name", [n for n, entry in MODELS.items() if n.startswith("test_") and entry.any_T])
def test_every_registered_model_has_weights_to_compress(name):
    model = create_model(name)
    found = compressible(model)
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() > 1 and n.endswith("weight"))
    assert sum(p.numel() for p in found.values()) >= 0.5 * matrices


def test_pattern_that_fits_nothing_is_refused():
    with pytest.raises(ValueError, match=r"'head\.\*', which fits no layer"):
        compressible(net(), ["head.*"])
    with pytest.raises(ValueError, match="no weight"):
        compressible(nn.ReLU())


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.95, 1.0])
def test_budgets_are_exact_also_with_ties(sparsity):
    generator = torch.Generator().manual_seed(1)
    weights = {"a": torch.randn(13, 7, generator=generator), "b": torch.ones(11), "c": torch.zeros(5)}
    by_layer = largest(weights, sparsity)
    assert {n: int(m.sum()) for n, m in by_layer.items()} == {
        n: round((1 - sparsity) * w.numel()) for n, w in weights.items()
    }
    assert sum(int(m.sum()) for m in largest(weights, sparsity, "global").values()) == round((1 - sparsity) * 107)


def test_largest_are_kept():
    weights = {"a": torch.tensor([[3.0, -1.0], [0.5, -4.0]]), "b": torch.tensor([0.1, 2.0])}
    assert largest(weights, 0.5)["a"].tolist() == [[True, False], [False, True]]
    assert largest(weights, 0.5, "global")["b"].tolist() == [False, True]


def test_projection_is_the_nearest_sparse_tensor_and_idempotent():
    v = torch.randn(6, generator=torch.Generator().manual_seed(2))
    mask = largest({"v": v}, 0.5)["v"]
    projected = v * mask
    distances = []
    for chosen in torch.combinations(torch.arange(6), 3):
        other = torch.zeros(6)
        other[chosen] = v[chosen]
        distances.append(float((v - other).norm()))
    assert float((v - projected).norm()) == pytest.approx(min(distances))
    assert torch.equal(projected * largest({"v": projected}, 0.5)["v"], projected)


def test_shares_by_pattern():
    weights = {"conv1.weight": torch.rand(100), "conv2.weight": torch.rand(100), "fc.weight": torch.rand(100)}
    shares = {"conv1": 0.83, "conv*": 0.92, "fc*": 0.99}
    assert [int(m.sum()) for m in largest(weights, shares).values()] == [17, 8, 1]
    with pytest.raises(ValueError, match=r"no share for fc\.weight"):
        largest(weights, {"conv*": 0.5})
    with pytest.raises(ValueError, match="scope 'global'"):
        largest(weights, shares, "global")
    with pytest.raises(ValueError, match=r"sparsity is 1\.5"):
        largest(weights, 1.5)


def test_what_is_kept_travels_with_the_model_and_can_be_forgotten():
    model = net()
    keep(model, "0.weight", "dual", torch.full((4, 1, 3, 3), 2.0))
    other = net()
    keep(other, "0.weight", "dual", torch.zeros(4, 1, 3, 3))
    other.load_state_dict(model.state_dict())
    assert float(kept(other, "0.weight", "dual").sum()) == 72
    forget(other)
    assert list(other.state_dict()) == list(net().state_dict())
    with pytest.raises(AttributeError):
        kept(other, "0.weight", "dual")


def test_masks_drop_at_once():
    model = net()
    weights = {name: p.data for name, p in compressible(model).items()}
    keep_masks(model, largest(weights, 0.75))
    assert sparsity_of(weights) == pytest.approx(1 - (9 + 2) / 44)


def test_packing_layers_are_found():
    assert list(compressible(nn.Sequential(rb.nn.Conv2d(1, 2, 3), rb.nn.Linear(2, 2)))) == ["0.weight", "1.weight"]
