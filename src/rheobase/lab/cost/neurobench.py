"""Operations and sparsities as NeuroBench counts them."""

from dataclasses import dataclass

from rheobase.lab.cost.report import Report


@dataclass(frozen=True)
class NeuroBench:
    """What NeuroBench reports of a network.

    Attributes:
        effective_macs: Effective_MACs per sample.
        effective_acs: Effective_ACs per sample.
        dense: Dense operations per sample.
        activation_sparsity: share of zeros in what neurons emit; None without neurons.
        connection_sparsity: share of weights that are zero; None without weights.
    """

    effective_macs: float
    effective_acs: float
    dense: float
    activation_sparsity: float | None
    connection_sparsity: float | None


def neurobench(report: Report) -> NeuroBench:
    """Count a report as NeuroBench does.

    Dense operations leave out zero-padded borders; effective ones also values and weights that are zero. They are ACs
    in those steps at which the layer read -1, 0 and 1 alone, else MACs, so one layer can have both. Biases, products
    of two activations and neurons do not count.

    Raises:
        ValueError: values are unknown, as the trace ran on the meta device.

    Source: Yik et al. 2023, arXiv:2304.04640; package neurobench 2.3.0, metrics SynapticOperations, ActivationSparsity
    and ConnectionSparsity. Departures: it looks at modules (Linear, Conv1d to Conv3d, recurrent cells), this at every
    product with weights; it asks what a layer read at each call, this at each step of each batch; it rounds the
    connection sparsity to three decimals.
    """
    macs = acs = dense = 0.0
    zeros = weights = 0.0
    for product in report.products:
        if product.kind == "matmul":
            continue
        _ = product.spike_driven  # raises if values are unknown
        effective, selected = product.effective or 0.0, product.selected or 0.0
        macs += (effective - selected) * product.executed
        acs += selected * product.executed
        dense += product.inside * product.executed
        for operand in product.operands:
            if operand.weight and operand.density is not None:
                zeros += round((1 - operand.density) * operand.size)
                weights += operand.size
    updates = sum(layer.updates for layer in report.neurons)
    fired = sum((layer.rate or 0.0) * layer.updates for layer in report.neurons)
    return NeuroBench(macs, acs, dense, 1 - fired / updates if updates else None, zeros / weights if weights else None)
