"""Still images: the offline demonstration and the two classic sets."""

from rheobase.recipes.classification import Classification
from rheobase.recipes.registry import register
from rheobase.train import TrainConfig


@register
def digits() -> Classification:
    """MS-ResNet-20 learns scikit-learn's handwritten digits: no download, under four minutes on two cores.

    Network: Hu et al. 2024, arXiv:2112.08954. Claim: at least 97 % on the 497 held-out digits.
    Measured: 99.8 % (one seed), 26 s on one core. Command: `rheobase train digits --report`
    """
    return Classification(
        data="digits",
        model="ms_resnet20",
        T=4,
        batch_size=50,
        threads=1,
        train=TrainConfig(epochs=12, optimizer="sgd", lr=0.1, weight_decay=1e-4, warmup_epochs=1),
    )


@register
def mnist() -> Classification:
    """MS-ResNet-8 on MNIST, 28x28.

    Network: Hu et al. 2024, arXiv:2112.08954, at depth 8. Not measured yet. Command: `rheobase train mnist`
    """
    return Classification(
        data="mnist",
        model="ms_resnet8",
        T=4,
        batch_size=100,
        validation=0.05,
        train=TrainConfig(epochs=4, optimizer="sgd", lr=0.1, weight_decay=1e-4, autocast="bf16"),
    )


@register
def fashion_mnist() -> Classification:
    """MS-ResNet-8 on Fashion-MNIST, 28x28.

    Network: Hu et al. 2024, arXiv:2112.08954, at depth 8. Claim: at least 88 % test accuracy within 30 minutes on two
    cores. Measured: 90.4 % (one seed), 18 minutes on one core. Command: `rheobase train fashion-mnist`
    """
    return Classification(
        data="fashion_mnist",
        model="ms_resnet8",
        T=4,
        batch_size=100,
        validation=0.05,
        train=TrainConfig(epochs=5, optimizer="sgd", lr=0.1, weight_decay=1e-4, warmup_epochs=1, autocast="bf16"),
    )
