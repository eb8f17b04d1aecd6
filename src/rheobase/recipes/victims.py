"""Networks to be attacked: small enough that one core trains one in minutes, with the constants of the paper."""

from rheobase.recipes.classification import Classification
from rheobase.recipes.registry import register
from rheobase.train import TrainConfig


def victim(data: str, model: str, encoder: str, T: int = 15) -> Classification:
    """A network that learns from 10000 samples; nothing but the data, the model and the encoder changes."""
    return Classification(
        data=data,
        model=model,
        encoder=encoder,
        T=T,
        batch_size=50,
        validation=0.02,
        train_samples=10000,
        threads=1,
        train=TrainConfig(epochs=2, optimizer="adam", lr=1e-3),
    )


@register
def attacked_mnist() -> Classification:
    """Two convolutions and a hidden layer whose pooling fires too, on MNIST as Bernoulli spikes of 15 steps.

    Constants and loss of Liang et al., arXiv:2001.01587; a smaller network, Adam, and a sixth of the training images.
    Made to be attacked; `--loss mse` is the other loss of the paper. Command: `rheobase train attacked-mnist`
    """
    return victim("mnist", "pooled_snn", "poisson")


@register
def attacked_fashion_mnist() -> Classification:
    """The network of attacked-mnist on Fashion-MNIST.

    Constants and loss of Liang et al., arXiv:2001.01587. Command: `rheobase train attacked-fashion-mnist`
    """
    return victim("fashion_mnist", "pooled_snn", "poisson")


@register
def attacked_event_digits() -> Classification:
    """The network of attacked-mnist on generated events of MNIST, a spike where a step has any event at a pixel.

    Constants and loss of Liang et al., arXiv:2001.01587, which attacks recorded N-MNIST; these events are generated.
    Command: `rheobase train attacked-event-digits`
    """
    return victim("event_digits", "event_pooled_snn", "presence")


@register
def attacked_mnist_direct() -> Classification:
    """The network of attacked-mnist with the image as a constant current: the control between spikes and ReLU.

    Constants and loss of Liang et al., arXiv:2001.01587. Command: `rheobase train attacked-mnist-direct`
    """
    return victim("mnist", "pooled_snn", "direct")


@register
def attacked_mnist_ann() -> Classification:
    """The network of attacked-mnist with ReLU, under the same budget of samples and epochs.

    To compare with, as Liang et al., arXiv:2001.01587. Command: `rheobase train attacked-mnist-ann`
    """
    return victim("mnist", "pooled_ann", "direct", T=1)
