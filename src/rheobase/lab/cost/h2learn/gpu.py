"""A GPU to compare with. It is a roofline, not a measurement, and each of its numbers is an assumption."""

from collections.abc import Iterator
from dataclasses import dataclass

from rheobase.lab.cost.h2learn.design import Design, Silicon, Units, variations
from rheobase.lab.cost.h2learn.simulate import Simulation, Work, simulate


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA V100 in single precision.

    Attributes:
        flops: peak per second.
        efficiency: share of it that convolutions reach.
        bandwidth: bytes per second.
        bandwidth_share: share of it that element-wise work reaches.
        launches: kernels per layer and step.
        launch_seconds: of each.
        batch: samples at once.
        passes: element-wise passes over the states of the neurons, forward and backward.
        state_bytes: of one state.
        power_W: when busy.
        power_share: share of it that is drawn.
        area_mm2: of the die.
    """

    flops: float = 15.7e12
    efficiency: float = 0.4
    bandwidth: float = 900e9
    bandwidth_share: float = 0.7
    launches: float = 12.0
    launch_seconds: float = 8e-6
    batch: int = 64
    passes: float = 20.0
    state_bytes: float = 4.0
    power_W: float = 300.0  # noqa: N815
    power_share: float = 0.8
    area_mm2: float = 815.0

    def seconds(self, work: Work) -> float:
        """Per sample of a batch: products at the peak, passes over the states, and launches."""
        layers, cells = work
        products = sum(2 * each.macs * (2 + each.backward) for each in layers) / (self.flops * self.efficiency)
        moved = cells.updates * self.passes * self.state_bytes / (self.bandwidth * self.bandwidth_share)
        started = self.launches * self.launch_seconds * sum(each.steps for each in layers) / self.batch
        return products + moved + started

    def joules(self, work: Work) -> float:
        """Per sample."""
        return self.power_W * self.power_share * self.seconds(work)


V100 = Gpu()


@dataclass(frozen=True)
class Ratios:
    """The GPU over the accelerator: how many times faster, less energy, smaller."""

    speed: float
    energy: float
    area: float


PUBLISHED = {"speed": (5.74, 10.20), "energy": (5.25, 7.12), "area": (7.38, 7.38)}
"""What arXiv:2107.11746 states against a V100, least and most; to be printed beside our ratios, never as ours."""


def ratios(work: Work, found: Simulation, gpu: Gpu = V100) -> Ratios:
    """The GPU over the accelerator on the same layers; what the accelerator cannot take is left out on both sides."""
    return Ratios(gpu.seconds(work) / found.seconds, gpu.joules(work) / found.joules, gpu.area_mm2 / found.area_mm2)


def sensitivity(work: Work, found: Simulation, gpu: Gpu = V100) -> Iterator[tuple[str, int | float, Ratios, Ratios]]:
    """Every assumption, halved and doubled: its name, its value, and the ratios that come out.

    Masks are not measured again: what they give stays as it is.
    """

    def of(design: Design, units: Units, silicon: Silicon, gpu: Gpu) -> Ratios:
        return ratios(work, simulate(work, design, units, silicon), gpu)

    for name, value, low, high in variations(found.design, found.units, found.silicon, gpu):
        yield name, value, of(*low), of(*high)
