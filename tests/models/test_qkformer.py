import pytest
import torch

from rheobase.models import TransformerBlock, create_model, qkformer
from rheobase.models.qkformer import CIFAR, IMAGENET, Layout
from rheobase.nn import SelfAttention, TokenAttention
from rheobase.nn.residual import Conv

pytestmark = pytest.mark.usefixtures("one_thread")

TWICE = Layout(False, ((False,), (True, True), (False, True)), (1, 1))


@pytest.mark.parametrize(
    ("name", "count", "published"),
    [
        ("imagenet_qkformer_10_384", 16_473_688, 16.47),
        ("imagenet_qkformer_10_512", 29_079_336, 29.08),
        ("imagenet_qkformer_10_768", 64_962_760, 64.96),
    ],
)
def test_parameters(name, count, published):
    with torch.device("meta"):
        found = sum(p.numel() for p in create_model(name).parameters())
    assert found == count
    assert round(found / 1e6, 2) == published


@pytest.mark.parametrize(
    ("layout", "depth", "side", "sizes"),
    [(IMAGENET, 10, 64, (16, 8, 4)), (CIFAR, 4, 32, (32, 16, 8)), (TWICE, 4, 32, (32, 8, 4))],
)
def test_stages(layout, depth, side, sizes):
    model, seen = qkformer(depth, 16, 2, layout), []
    for block in model.blocks():
        block.register_forward_hook(lambda block, _, y: seen.append((type(block).__name__, tuple(y.shape[2:]))))
    model(torch.randn(1, 2, 3, side, side))
    shapes = [(width, size, size) for width, size in zip((4, 8, 16), sizes, strict=True)]
    assert list(dict.fromkeys(shape for _, shape in seen)) == shapes
    counts = [sum(kind == "TransformerBlock" for kind, shape in seen if shape == own) for own in shapes]
    assert counts == [*layout.token_blocks, depth - sum(layout.token_blocks)]
    assert [kind for kind, _ in seen].count("Residual") == 3
    attentions = [block.attention.branch.attention for block in model.blocks() if isinstance(block, TransformerBlock)]
    tokens = sum(layout.token_blocks)
    assert [type(made) for made in attentions] == [TokenAttention] * tokens + [SelfAttention] * (depth - tokens)


def test_what_is_read_is_declared_and_true():
    model, seen = create_model("test_qkformer"), {}
    for name, module in model.named_modules():
        if isinstance(module, Conv):
            module.register_forward_hook(lambda conv, args, _, name=name: seen.update({name: (conv.reads, args[0])}))
    model(torch.randn(4, 4, 3, 16, 16) * 2)
    assert {name for name, (declared, _) in seen.items() if declared == "real"} == {"tokenizer.0"}
    graded = {name for name, (declared, _) in seen.items() if declared == "graded"}
    assert {name for name, (_, x) in seen.items() if x.unique().numel() > 2} - {"tokenizer.0"} <= graded
    assert {"body.2.branch.0", "body.2.shortcut.conv", "body.1.attention.branch.attention.q.conv"} <= graded
    assert {"body.0.branch.0", "body.0.shortcut.conv", "body.1.attention.branch.conv"}.isdisjoint(graded)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="depth is 2 and width 384; expected more than 2 blocks"):
        qkformer(2)
    with pytest.raises(ValueError, match="TokenAttention: 7 heads do not divide 96 channels"):
        qkformer(heads=7)
