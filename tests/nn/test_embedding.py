import pytest
import torch

import rheobase as rb
from rheobase.nn import TemporalEmbedding


def test_every_step_gets_its_own_number():
    embedding, x = TemporalEmbedding(4), torch.randn(4, 2, 3, 5, 5)
    assert embedding.weight.shape == (4, 1, 1, 1, 1)
    y = embedding(x)
    assert torch.equal(y, x + embedding.weight)
    assert torch.equal(embedding(x[:2]), y[:2])
    assert embedding(x.bfloat16()).dtype == torch.bfloat16
    assert 0.015 < TemporalEmbedding(4096).weight.std() < 0.025


def test_a_stream_counts_its_steps():
    embedding, x = TemporalEmbedding(4, axes=2), torch.randn(4, 2, 3)
    with rb.stream(embedding) as run:
        assert torch.equal(torch.cat([run(x[:1]), run(x[1:3]), run(x[3:])]), embedding(x))
        with pytest.raises(ValueError, match="got 1 steps after 4; expected no more than T=4 in all"):
            run(x[:1])


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="T is 0; expected at least 1"):
        TemporalEmbedding(0)
    with pytest.raises(ValueError, match="got 5 steps after 0"):
        TemporalEmbedding(4)(torch.zeros(5, 1, 1, 1, 1))
