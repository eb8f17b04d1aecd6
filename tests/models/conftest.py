"""Looking into models."""

import pytest


@pytest.fixture
def outputs():
    """`outputs(model, x, kind)`: the logits, and what each layer of a kind put out, by name."""

    def run(model, x, kind):
        seen = {}
        handles = [
            module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y}))
            for name, module in model.named_modules()
            if isinstance(module, kind)
        ]
        y = model(x)
        for handle in handles:
            handle.remove()
        return y, seen

    return run
