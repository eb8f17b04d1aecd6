import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rheobase as rb
from rheobase.neurons import LIF, PLIF, Neuron, Triangle
from rheobase.scan import run_triton

pytestmark = pytest.mark.triton
KERNEL = run_triton._kernel


@rb.step(state={"u": 0.0, "v": 0.0})
def current_based(x, u, v, *, tau, leak, threshold, spike):
    u = u + (x - u) / tau
    h = leak * v + u
    s = spike(h - threshold)
    return s, (u, h * (1 - s))


def neuron(**shapes):
    torch.manual_seed(1)
    sizes = {"tau": (), "leak": (), "threshold": ()} | shapes
    params = {name: torch.nn.Parameter(torch.rand(shape) * 0.4 + 0.6) for name, shape in sizes.items()}
    return Neuron(current_based, spike=Triangle(), **params)


def compare(module, x):
    """Spikes and final states of the two fused engines have equal bits; gradients agree."""
    found = []
    for engine in ("triton", "cpu"):
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        with rb.engine(engine):
            y, last = module.sequence(leaf, None)
            loss = y.cumsum(0).sum() + sum(s.square().sum() for s in last)
            found.append((y, last, torch.autograd.grad(loss, [leaf, *module.parameters()])))
    (y, last, grads), (y_, last_, grads_) = found
    assert torch.equal(y, y_)
    assert all(torch.equal(a, b) for a, b in zip(last, last_, strict=True))
    scale = float(grads_[0].abs().sum())
    torch.testing.assert_close(grads[0], grads_[0], rtol=1e-5, atol=1e-5 * float(grads_[0].abs().max()))
    torch.testing.assert_close(grads[1:], grads_[1:], rtol=1e-5, atol=1e-5 * scale)
    return found[0]


@pytest.mark.parametrize("T", [1, 4, 5, 6, 10, 11, 15, 16, 26])
def test_any_number_of_chunks(T, monkeypatch):
    """Chunks are of five steps here: a whole sequence in registers, one chunk more, a buffer of states."""
    assert run_triton._time(run_triton._program(neuron().scan.text()), 26, 0) == (1, 5, 5)
    monkeypatch.setattr(run_triton, "_INTERPRETED_TILE", 128)
    monkeypatch.setattr(run_triton, "_PROGRAMS", 2)
    compare(neuron(leak=(70,)), torch.randn(T, 5, 70) * 2)


@pytest.mark.parametrize(
    ("shapes", "order"),
    [
        ({"tau": (3, 1, 1), "leak": (3, 1, 1)}, "runs"),
        ({"tau": (1, 1, 5), "threshold": (5,)}, "columns"),
        ({"tau": (4, 1), "threshold": (3, 4, 5), "leak": (3, 4, 1)}, "columns"),
        ({"tau": (3, 1, 1), "threshold": (3, 4, 5)}, "runs"),
        ({}, "flat"),
    ],
    ids=str,
)
@pytest.mark.parametrize("programs", [1, 7, 1000])
def test_programs_share_the_lanes_in_every_order(shapes, order, programs, monkeypatch):
    monkeypatch.setattr(run_triton, "_INTERPRETED_TILE", 128)
    monkeypatch.setattr(run_triton, "_PROGRAMS", programs)
    seen, tiling = [], run_triton._tiling

    def spy(*arguments):
        seen.append(tiling(*arguments))
        return seen[-1]

    monkeypatch.setattr(run_triton, "_tiling", spy)
    compare(neuron(**shapes), torch.randn(4, 13, 3, 4, 5) * 2)
    assert [t.order for t in seen] == [order]
    assert seen[0].programs <= max(programs, seen[0].groups)


def test_a_run_too_short_for_a_program_gives_one_gradient_a_lane():
    x, kinds = torch.randn(4, 2, 6, 3), []
    emit = run_triton.emit_triton.emit_backward

    def spy(program, layout):
        kinds.append(dict(layout.params))
        return emit(program, layout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_triton.emit_triton, "emit_backward", spy)
        patch.setattr(run_triton, "_kernel", KERNEL.__wrapped__)
        compare(neuron(tau=(6, 1)), x)
    assert kinds == [{"p_tau": "lane", "p_leak": "sum", "p_threshold": "sum"}]


def test_lane_numbers_of_64_bits(monkeypatch):
    """What a step of 2^30 neurons needs, on a small one."""
    layout = run_triton.TritonLayout
    monkeypatch.setattr(run_triton, "TritonLayout", lambda **fields: layout(**{**fields, "wide": True}))
    compare(neuron(tau=(70,)), torch.randn(12, 5, 70) * 2)
    compare(neuron(tau=(5, 1)), torch.randn(12, 70, 5, 6) * 2)


def test_a_static_input_and_a_cotangent_without_time_are_read_in_place():
    image = torch.randn(5, 70)
    module, found = neuron(), []
    for engine in ("triton", "cpu"):
        leaf = image.clone().requires_grad_()
        with rb.engine(engine):
            y = module(leaf.expand(12, 5, 70))
            (grad,) = torch.autograd.grad(y, leaf, torch.ones(5, 70).expand(12, 5, 70), retain_graph=True)
            again = torch.autograd.grad(y, leaf, image.cos().expand(12, 5, 70))[0]
        found.append((y, grad, again))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0], found[1])


def test_only_what_is_wanted_is_written():
    module = neuron(tau=(5, 1, 1))
    with rb.engine("triton"):
        for wanted in ([module.tau], [module.leak, module.threshold]):
            for p in module.parameters():
                p.requires_grad_(any(p is w for w in wanted))
            torch.manual_seed(0)
            y = module(torch.randn(7, 2, 5, 4, 9) * 2)
            grads = torch.autograd.grad(y.cumsum(0).sum(), wanted)
            assert all(g.shape == p.shape and g.isfinite().all() for g, p in zip(grads, wanted, strict=True))


def test_gradients_are_the_same_every_time():
    module, x = neuron(tau=(5, 1, 1)), torch.randn(9, 4, 5, 8, 8) * 2
    with rb.engine("triton"):
        found = [torch.autograd.grad(module(x).cumsum(0).sum(), [*module.parameters()]) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_chunks_of_a_sequence_give_what_the_whole_gives():
    x, module = torch.randn(23, 2, 40) * 2, neuron()
    with rb.engine("triton"), torch.no_grad():
        whole, last = module.sequence(x, None)
        state, parts = None, []
        for chunk in x.split([1, 9, 13]):
            y, state = module.sequence(chunk, state)
            parts.append(y)
    assert torch.equal(torch.cat(parts), whole)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))


def test_an_empty_batch_is_fine():
    module = PLIF(shape=(7,))
    x = torch.randn(3, 0, 7, requires_grad=True)
    with rb.engine("triton"):
        y, (v,) = module.sequence(x, None)
        y.sum().backward()
    assert y.shape == (3, 0, 7)
    assert v.shape == (0, 7)
    assert torch.equal(module.w.grad, torch.zeros(7))


def test_numbers_that_are_not_ordinary():
    """Subnormal and infinite constants keep their 32 bits; subnormal inputs are not flushed."""

    @rb.step(state={"v": 0.0})
    def odd(x, v, *, k):
        return x * 1e-40 + torch.clamp(x * k, -float("inf"), 3e38) / 1e-39, (v - 1e-41 * x,)

    x = torch.randn(3, 2, 40) * torch.logspace(-40, 5, 40)
    compare_bits(Neuron(odd, k=torch.tensor(1.5)), x)


def test_rounding_keeps_signs_and_specials():
    @rb.step(state={"v": 0.0})
    def rounded(x, v):
        return (torch.round(x), torch.trunc(x), torch.floor(x), torch.ceil(x)), (torch.sign(x) + 0.0 * v,)

    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -0.2, -0.0, 0.0, 8388607.5, -8388609.0, 1e30, float("inf"), -float("inf")])
    compare_bits(Neuron(rounded), torch.cat([x, torch.linspace(-6, 6, 97)]).reshape(1, 1, -1))


def test_minimum_and_maximum_pass_nan_on():
    @rb.step(state={"v": 0.0})
    def extreme(x, v, *, w):
        return (torch.minimum(x, w), torch.maximum(w, x), x.clamp(-1, 1)), (torch.where(x != x, 7.0, v),)

    x = torch.tensor([float("nan"), 1.0, -2.0, float("nan")]).reshape(1, 1, 4)
    compare_bits(Neuron(extreme, w=torch.tensor([1.0, float("nan"), 0.5, float("nan")])), x)


def compare_bits(module, x):
    """Everything that comes out has the bits of the reference, the sign of zero among them; NaN is NaN."""
    found = []
    for engine in ("triton", "reference"):
        with rb.engine(engine):
            y, last = module.sequence(x, None)
        found.append(
            [t.nan_to_num(7.0, float("inf"), -float("inf")) for t in (*(y if type(y) is tuple else (y,)), *last)]
        )
    for a, b in zip(*found, strict=True):
        assert torch.equal(a.view(torch.int32), b.contiguous().view(torch.int32))


def forget(monkeypatch):
    """As in a new process: kernels are found by their files again."""
    monkeypatch.setattr(run_triton, "_kernel", KERNEL.__wrapped__)
    for name in [name for name in sys.modules if name.startswith("rheobase_kernel_")]:
        monkeypatch.delitem(sys.modules, name)


def test_sources_are_kept_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RHEOBASE_KERNELS", str(tmp_path))
    times = []
    for _ in range(2):
        forget(monkeypatch)
        with rb.engine("triton"):
            LIF()(torch.ones(3, 1, 4, requires_grad=True)).sum().backward()
        times.append({p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.py")})
    assert times[0] == times[1]
    assert len(times[0]) == 2
    text = "".join(p.read_text() for p in times[0])
    assert "leaky_integrate_and_fire" in text
    assert "def pull_back(" in text


def test_a_folder_that_cannot_be_written_is_said_and_works(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("RHEOBASE_KERNELS", str(blocked / "kernels"))
    forget(monkeypatch)
    with (
        pytest.warns(RuntimeWarning, match="set RHEOBASE_KERNELS to a folder that can be written"),
        rb.engine("triton"),
    ):
        y = LIF()(torch.full((2, 1, 3), 3.0))
    assert torch.equal(y, torch.ones(2, 1, 3))


def test_what_the_compiler_makes_of_it(tmp_path):
    """For a GPU, which need not be there: no contraction, no approximation, nothing flushed to zero, and memory moved
    four lanes at a time."""
    script = Path(__file__).with_name("triton_compile.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "RHEOBASE_KERNELS": str(tmp_path / "kernels")}
    cases = ["lif-float32", "lif-float16", "plif-bfloat16"]
    job = subprocess.run(
        [sys.executable, str(script), *cases], env=environment, capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stderr
    kernels = job.stdout.splitlines()
    assert [kernel.split()[:2] for kernel in kernels] == [[c, d] for c in cases for d in ("forward", "backward")]
    for kernel in kernels:
        operations = set(kernel.split()[2:])
        assert not {o for o in operations if any(word in o for word in ("fma", "mad.rn", "approx", "full", "ftz"))}
        assert {o for o in operations if o.startswith("ld.global.v")}
        assert {o for o in operations if o.startswith("st.global.v")}
        assert {"add.rn.f32", "mul.rn.f32"} <= operations
        assert kernel.split()[1] == "forward" or "div.rn.f32" in operations
