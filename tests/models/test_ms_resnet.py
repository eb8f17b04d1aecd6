import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.models import (
    MODELS,
    ResNet,
    Stem,
    cifar_resnet,
    create_model,
    imagenet_ms_resnet,
    list_models,
    plain_stack,
)
from rheobase.neurons import IF, LIF, PLIF, IterativeLIF, Neuron
from rheobase.nn.norm import TdBN, fold_all
from rheobase.nn.residual import BLOCKS, Conv, Residual

TINY = list_models("test_*_resnet")

pytestmark = pytest.mark.usefixtures("one_thread")


def settled(name, **options):
    """A tiny model in double precision and eval mode that has seen data, with branches that do something."""
    model = create_model(name, last_gamma=0.4, **options).double()
    for module in model.modules():
        if isinstance(module, TdBN):
            module.momentum = 1.0
    model(torch.randn(4, 8, 3, 8, 8, dtype=torch.float64))
    return model.eval()


def alive(spikes):
    """Whether every layer fires, and none all the time: else equal spikes say nothing."""
    return all(0 < s.mean() < 1 for s in spikes.values())


def inputs_of_convolutions(model, x):
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, Conv):
            module.register_forward_hook(lambda module, args, _, name=name: seen.update({name: (module, args[0])}))
    model(x)
    return seen


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 272_474), (32, 466_906), (44, 661_338), (56, 855_770), (110, 1_730_714), (482, 7_758_106)]
)
def test_parameters_of_the_cifar_nets(depth, count):
    model = create_model(f"ms_resnet{depth}")
    assert sum(p.numel() for p in model.parameters()) == count
    assert len(model.blocks()) == (depth - 2) // 2


@pytest.mark.parametrize(("depth", "count"), [(18, 11_693_736), (34, 21_801_896), (104, 77_350_504)])
def test_parameters_of_the_imagenet_nets(depth, count):
    with torch.device("meta"):
        model = create_model(f"imagenet_ms_resnet{depth}")
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 104])
def test_stages_of_the_imagenet_nets(depth, outputs):
    """Five halvings, the last of one pixel or two."""
    side = 64 if depth == 18 else 128
    model = create_model(f"imagenet_ms_resnet{depth}", classes=5)
    seen = inputs_of_convolutions(model, torch.randn(1, 2, 3, side, side))
    _, blocks = outputs(model, torch.randn(1, 2, 3, side, side), Residual)
    sizes = list(dict.fromkeys(tuple(y.shape[2:]) for y in blocks.values()))
    assert sizes == [(64 * 2**k, side // 2 ** (k + 2), side // 2 ** (k + 2)) for k in range(4)]
    counts = {18: [2, 2, 2, 2], 104: [3, 8, 32, 8]}[depth]
    assert [sum(y.shape[2] == 64 * 2**k for y in blocks.values()) for k in range(4)] == counts
    real = {name for name, (conv, _) in seen.items() if conv.reads != "binary"}
    first = [sum(counts[:k]) for k in range(4)]
    stem = {"stem.0"} if depth == 18 else {"stem.0", "stem.1", "stem.2"}
    assert real == stem | {f"body.{k}.shortcut.conv" for k in first}
    assert all(((x == 0) | (x == 1)).all() for name, (_, x) in seen.items() if name not in real)
    if depth == 104:
        assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.2]
        assert seen["body.0.shortcut.conv"][1].shape[-1] == side // 4


def test_pooled_shortcuts_average():
    block = BLOCKS["ms"](3, 5, 2, IterativeLIF, pool_shortcut=True)
    x = torch.randn(2, 3, 3, 6, 6)
    with torch.no_grad():
        averaged = nn.functional.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, (2, 3))
        expected = block.shortcut.norm(block.shortcut.conv(averaged))
        assert torch.allclose(block.shortcut(x), expected, atol=1e-6)
    with pytest.raises(ValueError, match="pooled shortcuts are for 'ms' blocks; got block 'sew'"):
        ResNet("sew", [(4, 2)], 3, 10, 1, IterativeLIF, None, pool_shortcut=True)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_pooled_shortcuts_fit_odd_maps(side):
    block = BLOCKS["ms"](3, 5, 2, IterativeLIF, pool_shortcut=True)
    x = torch.randn(2, 3, 3, side, side)
    assert block(x).shape == block.shortcut(x).shape == (2, 3, 5, -(-side // 2), -(-side // 2))


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_share_their_parameters(block):
    model = create_model(f"{block}_resnet20")
    assert sum(p.numel() for p in model.parameters()) == 272_474
    assert [module for module in model.modules() if isinstance(module, Residual)] == model.blocks()
    assert sum(isinstance(module, Conv) for module in model.modules()) == 1 + 18 + 2
    neurons = {"ms": 18 + 1, "vanilla": 1 + 18, "sew": 1 + 18 + 2}[block]
    assert sum(isinstance(module, Neuron) for module in model.modules()) == neurons


@pytest.mark.parametrize("name", [*list_models("*_resnet*"), "plain_stack"])
def test_every_name_can_be_built_and_takes_its_example(name):
    entry = MODELS[name]
    assert entry.example() == (1 if name == "plain_stack" else 3, *entry.example()[1:])
    assert entry.example(in_channels=2)[0] == 2
    if name in (*TINY, "plain_stack"):
        model = create_model(name, in_channels=2, classes=7)
        y = model(torch.rand(3, 2, *entry.example(in_channels=2, classes=7)))
        assert y.shape == (3, 2, 7)
        y.sum().backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (2, 5)])
def test_small_images_and_one_step(block, channels, side):
    model = cifar_resnet(8, block, in_channels=channels, width=4)
    assert model(torch.rand(1, 2, channels, side, side)).shape == (1, 2, 10)


def test_sizes_of_the_stages(outputs):
    model = cifar_resnet(14)
    _, seen = outputs(model, torch.rand(1, 2, 3, 32, 32), Residual)
    shapes = [tuple(y.shape[2:]) for y in seen.values()]
    assert shapes == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2


def test_plain_stack_keeps_its_width(outputs):
    model = plain_stack(4, "sew")
    _, seen = outputs(model, torch.rand(2, 3, 1, 8, 8), Residual)
    assert [y.shape for y in seen.values()] == [(2, 3, 16, 8, 8)] * 4
    assert model.head[-1].module.in_features == 64
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == 2 * 4 + 2


def test_wrong_arguments():
    for depth, near in ((21, "20 or 26"), (2, "8"), (7, "8"), (-9, "8")):
        with pytest.raises(ValueError, match=rf"depth is {depth}; expected 6n\+2, so take {near}$"):
            cifar_resnet(depth)
    with pytest.raises(ValueError, match="no residual block 'mss'; expected one of ms, vanilla, sew"):
        cifar_resnet(block="mss")
    with pytest.raises(ValueError, match="no neuron is called 'life'"):
        cifar_resnet(neuron="life")
    with pytest.raises(ValueError, match="blocks is 0; expected at least 1"):
        plain_stack(0)
    with pytest.raises(ValueError, match="depth is 50; expected 18, 34 or 104"):
        imagenet_ms_resnet(50)


@pytest.mark.parametrize("neuron", ["lif", LIF, lambda: PLIF(tau=3.0), lambda: IF(torch.tensor(0.4)), nn.ReLU])
def test_any_neuron(neuron):
    model = create_model("test_ms_resnet", neuron=neuron)
    model(torch.randn(2, 2, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_default_neuron_is_that_of_the_paper():
    neuron = create_model("test_ms_resnet").head[0]
    assert isinstance(neuron, IterativeLIF)
    u = torch.tensor([[-0.1, 0.001, 0.3, 0.5, 0.501, 0.999, 1.1]], requires_grad=True)
    s = neuron(u.unsqueeze(0))
    s.sum().backward()
    assert s.flatten().tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert u.grad.flatten().tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert neuron(torch.full((3, 1, 1), 0.4)).flatten().tolist() == [0, 0, 1]  # 0.4, 0.5, 0.525


@pytest.mark.parametrize("block", BLOCKS)
def test_declared_inputs_are_true(block):
    model = cifar_resnet(14, block, width=8, last_gamma=0.5)
    seen = inputs_of_convolutions(model, torch.randn(4, 2, 3, 8, 8))
    for name, (conv, x) in seen.items():
        binary, whole = bool(((x == 0) | (x == 1)).all()), bool((x == x.round()).all())
        assert binary or conv.reads != "binary", name
        assert whole or conv.reads == "real", name
    other = {name for name, (conv, _) in seen.items() if conv.reads != "binary"}
    shortcuts = {"body.2.shortcut.conv", "body.4.shortcut.conv"}
    if block == "ms":
        assert other == {"stem.0", *shortcuts}
        assert {name for name, (_, x) in seen.items() if x.unique().numel() > 2} == other
    elif block == "vanilla":
        assert other == {"stem.0"}
    else:
        assert other == {"stem.0", *shortcuts, *(f"body.{i}.branch.conv1" for i in range(1, 6))}


def test_sums_of_spikes_grow_in_sew_blocks():
    model = plain_stack(12, "sew")
    seen = inputs_of_convolutions(model, torch.randn(4, 4, 1, 8, 8))
    largest = [seen[f"body.{i}.branch.conv1"][1].max().item() for i in range(12)]
    assert largest[:2] == [1, 2]
    assert largest == sorted(largest)
    assert largest[-1] >= 4


@pytest.mark.parametrize("name", TINY)
def test_streamed_equals_whole(name, outputs):
    model, x = settled(name), torch.randn(7, 2, 3, 8, 8, dtype=torch.float64)
    whole, spikes = outputs(model, x, Neuron)
    with torch.no_grad():
        found = []
        for sizes in ([7], [1] * 7, [3, 4]):
            with rb.stream(model, exact=True) as run:
                found.append(torch.cat([run(chunk) for chunk in x.split(sizes)]))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
        torch.testing.assert_close(found[0], whole)
        with rb.stream(model) as run:
            torch.testing.assert_close(torch.cat([run(x[:3]), run(x[3:])]), whole)
    assert alive(spikes)


@pytest.mark.parametrize("name", TINY)
def test_a_call_leaves_nothing_behind(name):
    model, x = settled(name), torch.randn(4, 2, 3, 8, 8, dtype=torch.float64)
    first = model(x)
    model(torch.randn_like(x))
    assert torch.equal(model(x), first)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TINY)
def test_an_expanded_image_is_as_good_as_copies(name, training):
    source, image = settled(name).train(training), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = []
    for copied in (False, True):
        model = create_model(name).double().train(training)
        model.load_state_dict(source.state_dict())
        a = image.clone().requires_grad_()
        x = a.expand(4, *image.shape)
        y = model(x.contiguous() if copied else x)
        y.square().sum().backward()
        found.append([y.detach(), a.grad, *(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(*found)
    assert found[0][1].abs().max() > 0


def test_the_order_of_frames_does_not_change_the_statistics():
    x, found = torch.randn(5, 4, 3, 8, 8), []
    for frames in (x, x[[3, 0, 4, 2, 1]]):
        torch.manual_seed(1)
        norm = create_model("test_ms_resnet").train().stem
        norm(frames)
        found.append([norm[1].running_mean, norm[1].running_var])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", TINY)
def test_a_folded_model_fires_the_same_spikes(name, outputs):
    model, x = settled(name), torch.randn(4, 2, 3, 8, 8, dtype=torch.float64)
    folded = fold_all(model)
    assert not [module for module in folded.modules() if isinstance(module, TdBN)]
    expected, spikes = outputs(model, x, Neuron)
    found, folded_spikes = outputs(folded, x, Neuron)
    assert spikes.keys() == folded_spikes.keys()
    assert all(torch.equal(folded_spikes[key], s) for key, s in spikes.items())
    assert alive(spikes)
    torch.testing.assert_close(found, expected)
    single = fold_all(model.float())
    assert (single(x.float()) - model(x.float())).abs().max() < 1e-4


@pytest.mark.parametrize("name", TINY)
def test_saved_and_loaded_is_the_same(name, tmp_path):
    model, x = settled(name), torch.randn(4, 2, 3, 8, 8, dtype=torch.float64)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = create_model(name).double().eval()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other(x), model(x))


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TINY)
def test_compiled_and_exported_equal_eager(name):
    torch.compiler.reset()
    model, other, x = create_model(name), create_model(name), torch.randn(3, 2, 3, 8, 8)
    other.load_state_dict(model.state_dict())
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    model(x).square().sum().backward()
    compiled(x).square().sum().backward()
    for (key, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
    torch.testing.assert_close(other.state_dict(), model.state_dict())
    exported = torch.export.export(model.eval(), (x,))
    assert torch.equal(exported.module()(x), model(x))


@pytest.mark.usefixtures("untyped")
def test_a_stem_pools_as_it_says():
    with pytest.raises(ValueError, match="the stem's pool is 'maximum'; expected 'max', 'average' or None"):
        ResNet("ms", [(4, 1)], 3, 10, 1, IterativeLIF, None, stem=Stem(((4, 3, 1),), pool="maximum"))
