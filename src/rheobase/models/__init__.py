"""The models: a file per family, built by name."""

from rheobase.models.conv_snn import ConvSNN, conv_snn
from rheobase.models.dense_snn import DenseSNN, dense_snn
from rheobase.models.ms_resnet import ResNet, cifar_resnet, plain_stack
from rheobase.models.registry import MODELS, Entry, create_model, list_models, register

__all__ = [
    "MODELS",
    "ConvSNN",
    "DenseSNN",
    "Entry",
    "ResNet",
    "cifar_resnet",
    "conv_snn",
    "create_model",
    "dense_snn",
    "list_models",
    "plain_stack",
    "register",
]
