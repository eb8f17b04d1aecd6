"""The models: a file per family, built by name."""

from rheobase.models.ann import mobilenet_v1, resnet50
from rheobase.models.conv_snn import ConvSNN, cifar_conv7, conv_snn
from rheobase.models.dense_snn import DenseSNN, dense_snn
from rheobase.models.graph_snn import GraphLayer, GraphNet, ga_snn, gat, gc_snn, gcn, graph_lif
from rheobase.models.ms_resnet import cifar_resnet, imagenet_ms_resnet, plain_stack
from rheobase.models.psn_nets import dvs_vgg_snn, imagenet_sew_resnet, sequential_cifar_snn, static_cifar_snn
from rheobase.models.qkformer import Layout, qkformer
from rheobase.models.registry import MODELS, Entry, create_model, list_models, register, ring
from rheobase.models.resnet import ResNet, Stem
from rheobase.models.resnet_tdbn import imagenet_tdbn_resnet, stbp_lif, tdbn_resnet19
from rheobase.models.spike_driven_transformer import spike_driven_transformer
from rheobase.models.spiking_pool import SpikingPoolNet, attacked_lif, pooled_ann, pooled_snn, wide_pooled_snn
from rheobase.models.spikingformer import spikformer, spikingformer
from rheobase.models.transformer import SpikingTransformer, TransformerBlock, event_lif, transformer_lif

__all__ = [
    "MODELS",
    "ConvSNN",
    "DenseSNN",
    "Entry",
    "GraphLayer",
    "GraphNet",
    "Layout",
    "ResNet",
    "SpikingPoolNet",
    "SpikingTransformer",
    "Stem",
    "TransformerBlock",
    "attacked_lif",
    "cifar_conv7",
    "cifar_resnet",
    "conv_snn",
    "create_model",
    "dense_snn",
    "dvs_vgg_snn",
    "event_lif",
    "ga_snn",
    "gat",
    "gc_snn",
    "gcn",
    "graph_lif",
    "imagenet_ms_resnet",
    "imagenet_sew_resnet",
    "imagenet_tdbn_resnet",
    "list_models",
    "mobilenet_v1",
    "plain_stack",
    "pooled_ann",
    "pooled_snn",
    "qkformer",
    "register",
    "resnet50",
    "ring",
    "sequential_cifar_snn",
    "spike_driven_transformer",
    "spikformer",
    "spikingformer",
    "static_cifar_snn",
    "stbp_lif",
    "tdbn_resnet19",
    "transformer_lif",
    "wide_pooled_snn",
]
