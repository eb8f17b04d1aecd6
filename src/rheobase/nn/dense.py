"""A linear layer at every step that declares what it reads."""

from rheobase.nn.packing import Linear
from rheobase.nn.time import PerStep
from rheobase.nn.values import Values


class Dense(PerStep):
    """A linear layer at every step that declares what it reads.

    Args:
        c_in: values that it reads.
        c_out: values that it puts out.
        reads: what the input holds. In training a "binary" one is checked, and kept for backward as bits.
        bias: whether it has one.
    """

    def __init__(self, c_in: int, c_out: int, reads: Values, bias: bool = False) -> None:
        super().__init__(Linear(c_in, c_out, bias, binary_input=reads == "binary"))
        self.reads: Values = reads

    def extra_repr(self) -> str:
        """What it reads."""
        return f"reads={self.reads!r}"
