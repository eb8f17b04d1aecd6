from dataclasses import replace

import pytest
import torch
from benchmarks.conv import CASES, PHASES, Case, check, equal_nets, measure, training_step
from benchmarks.lif import spikingjelly_twin
from benchmarks.measure import Effort
from benchmarks.memory import check_bits, peak, saved_bytes, status
from benchmarks.nets import (
    MSResNet,
    Rheobase,
    dense,
    gradients,
    load,
    ms_resnet,
    neurons,
    parts,
    plain,
    spikes,
    vgg,
    without,
)
from torch import nn

import rheobase as rb
from benchmarks import fc, memory
from benchmarks import measure as measuring
from rheobase.neurons import LIF
from rheobase.nn import TdBN

QUICK = Effort(quick=True, loaded=True)
SHAPE = (2, 2, 3, 8, 8)


class Stranger(Rheobase):
    """Another library: layers of the same kind under the peer's names, in another order of operations."""

    name, version = "stranger", "1"

    def __init__(self, neuron=spikingjelly_twin):
        super().__init__(neuron)

    def ms_resnet(self, plan):
        return MSResNet(self, plan)

    def finish(self, net):
        return net


NETS = {
    "plain": lambda kit: plain(kit, ((4, 1), (8, 2))),
    "vgg": lambda kit: vgg(kit, ((4, True), (8, False))),
    "ms": lambda kit: ms_resnet(kit, ((4, 1), (8, 2))),
}


def case(name, **more):
    return Case(name, NETS[name], SHAPE, 0.0, **more)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    short = measuring.alternate
    monkeypatch.setattr(measuring, "alternate", lambda contests, *_: short(contests, 0.0, least=1))


@pytest.mark.parametrize("name", NETS)
def test_two_kits_build_the_same_network(name):
    found = check(case(name), Rheobase(spikingjelly_twin), Stranger())
    assert found.holds, found.text
    assert found.text.startswith("spikes equal")


def test_the_dense_network_fires_in_every_layer():
    torch.manual_seed(0)
    net = dense(Rheobase(), (70, 32, 32, 20))
    x, labels = Case("dense", lambda _: net, (50, 8, 70), 0.0, 20, True).batch()
    assert set(x.unique().tolist()) == {0.0, 1.0}
    found, y = spikes(Rheobase(), net, x)
    assert [float(layer.mean()) for layer in found] == pytest.approx([0.17] * 3, abs=0.07)
    assert y.shape == (50, 8, 20)
    training_step(net, x, labels)
    assert all(float(g.abs().max()) > 0 for g in gradients(net).values())


def test_networks_of_other_layers_do_not_load_into_each_other():
    with pytest.raises(ValueError, match=r"not the same network: only one has 0.1"):
        load(NETS["plain"](Rheobase()), plain(Rheobase(), ((4, 1),)))


def test_the_cases_are_the_networks_that_are_asked_for():
    plain7, resnet, vgg11 = (c.build(Rheobase()) for c in CASES)
    count = {net: sum(isinstance(m, nn.Conv2d) for m in net.modules()) for net in (plain7, resnet, vgg11)}
    assert list(count.values()) == [7, 1 + 16 + 3, 8]
    assert neurons(Rheobase(), plain7, CASES[0].batch()[0]) == 16 * (3 * 64 * 1024 + 2 * 128 * 256 + 2 * 256 * 64)
    assert sum(p.numel() for p in resnet.parameters()) == pytest.approx(11.17e6, rel=2e-3)
    assert [net.shape[:3] for net in (fc.net(100), fc.net(500))] == [(100, 64, 700), (500, 64, 700)]


def test_products_are_run_alone_with_what_they_get_in_the_network():
    kit, net = Rheobase(), NETS["ms"](Rheobase())
    x, _ = case("ms").batch()
    products = parts(net, kit.is_product, x)
    assert len(products) == 1 + 4 + 1 + 1
    assert not products[0].arguments[0].requires_grad
    assert products[1].arguments[0].requires_grad
    ran = []
    handles = [part.module.register_forward_hook(lambda m, *_: ran.append(m)) for part in products]
    for part in products:
        part()
        part()
    for handle in handles:
        handle.remove()
    assert len(ran) == 2 * len(products)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", NETS)
def test_without_its_products_a_network_does_all_else(name):
    kit, net = Rheobase(), NETS[name](Rheobase())
    x, labels = case(name).batch()
    found, y = spikes(kit, net, x)
    multiplied = []
    without(net, kit.is_product, x)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda *_: multiplied.append(1))
    again, z = spikes(kit, net, torch.zeros_like(x))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert torch.equal(y, z)
    training_step(net, x, labels)
    first = gradients(net)
    training_step(net, x, labels)
    assert all(torch.equal(g, first[name]) for name, g in gradients(net).items())
    assert not multiplied
    norms = [module for module in net.modules() if isinstance(module, TdBN)]
    assert all(norm.weight.grad.abs().max() > 0 for norm in norms)
    assert all(m.weight.grad is None for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_rows_of_a_network_have_all_phases_of_both(facts):
    rows = measure("conv", case("plain"), Rheobase(spikingjelly_twin), Rheobase(), [Stranger()], QUICK, facts)
    assert [(row.phase, row.contestant) for row in rows] == [(p, c) for p in PHASES for c in ("rheobase", "stranger")]
    assert all(row.median_ms > 0 and row.ratio > 0 for row in rows)
    assert {row.N for row in rows} == {2 * (4 * 64 + 8 * 16)}


def test_a_network_that_disagrees_is_not_timed(facts):
    wrong = Rheobase(lambda: LIF(tau=3.0))
    rows = measure("conv", case("plain"), wrong, Rheobase(), [Stranger()], QUICK, facts)
    assert all(row.median_ms is None and row.note == "refused: does not agree" for row in rows)
    assert "spikes differ" in rows[0].agreement


def test_both_networks_start_with_equal_weights():
    mine, theirs = equal_nets(case("ms"), Rheobase(), Stranger())
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


class Kept(nn.Module):
    """Keeps its input twice (one storage), and its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return (x * self.weight + x[:, :2].repeat(1, 2) * self.weight).sum()


def test_saved_storages_count_once_and_parameters_not():
    x = torch.ones(1000, 4)
    assert saved_bytes(nn.Sequential(Kept()), x) == 2 * x.numel() * 4  # x, and the repeated copy
    assert saved_bytes(nn.Flatten(), x) == 0


@pytest.mark.skipif(not hasattr(rb, "memory"), reason="rb.memory is not there")
def test_bits_change_no_gradient():
    net = NETS["ms"](Rheobase())
    assert check_bits(case("ms"), net).holds


def test_the_peak_is_that_of_the_step():
    try:
        status("VmHWM")
    except OSError:
        pytest.skip("no /proc/self/status here")
    small = replace(CASES[0], shape=(4, 4, 3, 32, 32))
    # Four maps of the first layer at least: its output, the normalised one, spikes, and a gradient.
    assert peak(small, "rheobase") > 4 * (4 * 4 * 64 * 32 * 32 * 4)


def test_memory_rows_name_what_is_missing(facts, monkeypatch):
    monkeypatch.setattr(memory, "SpikingJelly", Stranger)
    monkeypatch.setattr(memory, "CONTESTANTS", ("rheobase", "rheobase-bits", "stranger"))
    monkeypatch.setattr(memory, "peak", lambda *_: 2**21)
    monkeypatch.delattr(rb, "memory", raising=False)
    rows = memory.measure(case("plain"), QUICK, facts)
    bits = [row for row in rows if row.contestant == "rheobase-bits"]
    assert {row.note for row in bits} == {"not here: rb.memory"}
    timed = {(row.contestant, row.phase): row for row in rows}
    assert timed["rheobase", "peak of a step"].mib == 2.0
    assert timed["stranger", "saved for backward"].ratio > 0
    assert timed["stranger", "training step"].median_ms > 0


def test_a_peak_that_cannot_be_had_is_told(facts, monkeypatch):
    def broken(*_):
        raise OSError("no such file")

    monkeypatch.setattr(memory, "SpikingJelly", Stranger)
    monkeypatch.setattr(memory, "CONTESTANTS", ("rheobase", "stranger"))
    monkeypatch.setattr(memory, "peak", broken)
    rows = [row for row in memory.measure(case("plain"), QUICK, facts) if row.phase == "peak of a step"]
    assert [(row.mib, row.note) for row in rows] == [(None, "no peak: no such file")] * 2


def test_a_process_that_fails_is_told_with_its_last_words():
    with pytest.raises(RuntimeError, match="there is no case 'nothing'"):
        memory.peak(Case("nothing", NETS["plain"], SHAPE, 0.0), "rheobase")
