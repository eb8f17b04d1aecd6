r"""Surrogates: the only place where gradients are invented.

Each is the derivative $g$ of a smooth primitive $P$ that rises from 0 to 1 around 0 and stands in for the step $H$:
forward $s = H(x)$, backward $\partial s / \partial x := g(x) = P'(x)$, with x the distance of the membrane from the
threshold. A surrogate is a frozen dataclass, called like the step itself inside a neuron: `s = spike(h - threshold)`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rheobase.scan import spike


@dataclass(frozen=True)
class Surrogate:
    """Base of all surrogates: a spike whose derivative is that of a smooth primitive.

    Attributes:
        closes: the derivative is zero beyond some distance, so that gradients pass few spikes.
    """

    closes: ClassVar[bool] = False

    def primitive(self, x: Tensor) -> Tensor:
        """The smooth step $P(x)$."""
        raise NotImplementedError

    def derivative(self, x: Tensor) -> Tensor:
        """$P'(x)$, used as the derivative of the spike."""
        raise NotImplementedError

    def window(self, x: Tensor) -> Tensor:
        """Where the derivative is not zero, as bool: where gradients pass the spike."""
        return self.derivative(x) != 0

    def __call__(self, x: Tensor, strict: bool = False) -> Tensor:
        """1 where x >= 0 (x > 0 if `strict`), else 0, in x's dtype; its derivative is `derivative(x)`."""
        return spike(x, self, strict)


@dataclass(frozen=True)
class Smooth(Surrogate):
    """The primitive in place of the spike: a neuron made with it is differentiable, and its gradient can be checked."""

    surrogate: Surrogate

    def primitive(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.surrogate.primitive(x)

    def derivative(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.surrogate.derivative(x)

    def __call__(self, x: Tensor, strict: bool = False) -> Tensor:  # noqa: ARG002
        """$P(x)$, whatever `strict` says."""
        return self.surrogate.primitive(x)


@dataclass(frozen=True)
class Atan(Surrogate):
    r"""$P(x) = \frac{1}{\pi}\arctan(\frac{\pi}{2}\alpha x) + \frac12$.

    $g(x) = \frac{\alpha/2}{1 + (\frac{\pi}{2}\alpha x)^2}$.

    Source: Fang et al. 2021, arXiv:2007.05785.
    """

    alpha: float = 2.0

    def primitive(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.atan(x * (math.pi / 2 * self.alpha)) / math.pi + 0.5

    def derivative(self, x: Tensor) -> Tensor:  # noqa: D102
        z = x * (math.pi / 2 * self.alpha)
        return (self.alpha / 2) / (z * z + 1)


@dataclass(frozen=True)
class Rectangle(Surrogate):
    r"""$P(x) = \mathrm{clip}(x/w + \frac12, 0, 1)$, $g(x) = 1/w$ for $|x| < w/2$, else 0.

    Source: Wu et al. 2018, arXiv:1706.02609, eq. 27 (there a is the width w).
    """

    width: float = 1.0
    closes: ClassVar[bool] = True

    def primitive(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.clamp(x / self.width + 0.5, 0.0, 1.0)

    def derivative(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.where(x.abs() < self.width / 2, 1 / self.width, 0.0).to(x.dtype)

    def window(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.abs() < self.width / 2


@dataclass(frozen=True)
class Triangle(Surrogate):
    r"""$g(x) = \max(0, 1 - |x|/w)/w$; $P$ is its integral, two parabolas joined at $P(0) = \frac12$.

    Source: Bellec et al. 2018, arXiv:1803.09574 (with a factor 0.3 in front; here the area is one).
    """

    width: float = 1.0
    closes: ClassVar[bool] = True

    def primitive(self, x: Tensor) -> Tensor:  # noqa: D102
        z = torch.clamp(x / self.width, -1.0, 1.0)
        return 0.5 + z - 0.5 * z * z.abs()

    def derivative(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.clamp_min(1 - x.abs() / self.width, 0.0) / self.width


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    r"""$P(x) = \sigma(\alpha x)$, $g(x) = \alpha\,\sigma(\alpha x)(1 - \sigma(\alpha x))$.

    Source: Zenke and Vogels 2021, doi:10.1162/neco_a_01367.
    """

    alpha: float = 4.0

    def primitive(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.sigmoid(x * self.alpha)

    def derivative(self, x: Tensor) -> Tensor:  # noqa: D102
        p = torch.sigmoid(x * self.alpha)
        return p * (1 - p) * self.alpha


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    r"""SuperSpike: $g(x) = 1/(1 + \alpha|x|)^2$.

    $P(x) = \frac12 + \frac{x}{1 + \alpha|x|}$ rises by $2/\alpha$ in all: the peak of g is 1, not its area.

    Source: Zenke and Ganguli 2018, arXiv:1705.11146, eq. 5.
    """

    alpha: float = 10.0

    def primitive(self, x: Tensor) -> Tensor:  # noqa: D102
        return x / (1 + self.alpha * x.abs()) + 0.5

    def derivative(self, x: Tensor) -> Tensor:  # noqa: D102
        z = 1 + self.alpha * x.abs()
        return 1 / (z * z)


@dataclass(frozen=True)
class Gaussian(Surrogate):
    r"""$P(x) = \frac12(1 + \mathrm{erf}(\frac{x}{\sqrt2\sigma}))$.

    $g(x) = \frac{1}{\sqrt{2\pi}\sigma} e^{-x^2/(2\sigma^2)}$.

    Source: Yin et al. 2021, arXiv:2103.12593 (there a sum of three; here one).
    """

    sigma: float = 0.5

    def primitive(self, x: Tensor) -> Tensor:  # noqa: D102
        return 0.5 * (1 + torch.erf(x / (math.sqrt(2) * self.sigma)))

    def derivative(self, x: Tensor) -> Tensor:  # noqa: D102
        z = x / self.sigma
        return torch.exp(-0.5 * z * z) / (math.sqrt(2 * math.pi) * self.sigma)


@dataclass(frozen=True)
class Shifted(Surrogate):
    r"""Another surrogate whose window lies elsewhere: $P(x) = Q(x + b)$, $g(x) = Q'(x + b)$.

    A neuron with threshold $\vartheta + b$ and this surrogate fires at $\vartheta + b$, and its gradient is that of a
    neuron with threshold $\vartheta$.

    Args:
        surrogate: has the primitive Q.
        by: b.
    """

    surrogate: Surrogate
    by: float

    def primitive(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.surrogate.primitive(x + self.by)

    def derivative(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.surrogate.derivative(x + self.by)


SURROGATES: dict[str, type[Surrogate]] = {
    "atan": Atan,
    "fast_sigmoid": FastSigmoid,
    "gaussian": Gaussian,
    "rectangle": Rectangle,
    "sigmoid": Sigmoid,
    "triangle": Triangle,
}
