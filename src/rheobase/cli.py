"""The command line, `rheobase VERB ...`: each verb a function of the library; `rheobase --help` names them.

Each verb takes `--json` and then prints its result as one JSON object on the last line of standard output. Whatever the
user can mend ends in one message on standard error and exit code 2.

`train` runs in several processes when a launcher starts it so; then process 0 alone prints results.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

Checkpoint = Literal["best", "last"]
Kind = Literal["models", "neurons", "recipes", "studies", "data"]


@dataclass(frozen=True)
class EvalArguments:
    """Measure a trained network on its test split, or let it name the classes of your own images."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, such as runs/digits/20260101-120000."""
    checkpoint: Checkpoint | None = None
    """Which weights; those that the recipe measures if left out."""
    images: Path | None = None
    """An .npy file of images [N, C, H, W] in [0, 1] to classify instead of the test split."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class ReportArguments:
    """Write report.html into a run: curves, confusion matrix, rasters, firing rates."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    checkpoint: Checkpoint | None = None
    """Which weights; those that the recipe measures if left out."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class CostArguments:
    """Price a trained network on its test split: what its matrix products read, operations, energy. Writes cost.csv."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    rule: str | None = None
    """How to count: papers, papers-T, strict, spikingformer-tool, exact, exact-spikes or memory; strict if left out."""
    samples: int | None = None
    """How many of the first test samples to run; all if left out; of --h2learn, of a training batch."""
    h2learn: Literal["ref-S", "ref-L"] | None = None
    """Instead, simulate a training step on this design of an accelerator. Writes h2learn.csv."""
    units: Literal["45nm", "sata", "45nm-prosperity"] | None = None
    """Table of energies for --h2learn; 45nm if left out."""
    checkpoint: Checkpoint | None = None
    """Which weights; those that the recipe measures if left out."""
    report: bool = False
    """Write report.html too, with what was counted."""
    results: Path | None = None
    """A CSV file to append spikes per neuron and energy to."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class CompressArguments:
    """Prune, quantise or quieten a trained run: a new run with the smaller network, which every other verb accepts.

    Methods follow each other in the order prune, quantise; activity is regularised in both.
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Run folder to compress; it is only read."""
    method: Literal["lats", "magnitude", "gradual", "admm", "channels"] | None = None
    """How to prune; not at all if left out."""
    sparsity: float | None = None
    """Share of weights that is to be zero, of channels with --method channels; 0.9 if left out."""
    D: float | None = None
    """Of lats, in the place of the sparsity: the last threshold."""
    schedule: str = "lats"
    """Of lats: lats, lats-closed, s-lats, pgh, linear, sine or constant."""
    beta: float = 0.1
    """Of the schedule pgh: how far the pressure falls."""
    scope: Literal["layer", "global"] = "layer"
    """Of all methods but lats: whether each layer gets the sparsity, or all together, as lats does."""
    rho: float | None = None
    """Of ADMM: strength of the pull; 0.01 for pruning, 0.1 for quantising if left out."""
    bits: int | None = None
    """Quantise to so many bits, 1 to 8."""
    levels: Literal["auto", "power", "uniform"] = "auto"
    """Of quantised weights: powers of two, uniform, or what suits the bits."""
    activity: float | None = None
    """Regularise activity with this strength."""
    epochs: int = 10
    """Of each method."""
    lr: float | None = None
    """Base learning rate; that of the run if left out."""
    optimizer: Literal["sgd", "adamw", "adam"] | None = None
    """Optimiser; that of the run if left out."""
    clip_norm: float | None = None
    """Largest 2-norm of the gradients; that of the run if left out."""
    exclude: tuple[str, ...] = ()
    """Patterns of layers to leave alone, such as 'head.*'."""
    checkpoint: Checkpoint | None = None
    """Which weights; those that the recipe measures if left out."""
    samples: int | None = 1000
    """Operations and spikes are counted on so many of the first test samples."""
    runs: Path = Path("runs")
    """Where run folders are made."""
    resume: Path | None = None
    """A run that compression was making when it was stopped: go on with it."""
    report: bool = False
    """Write report.html when done."""
    results: Path | None = None
    """A CSV file to append the measured row to."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class AttackArguments:
    """Attack a trained network on its test split: flips of spikes, changes of images. Writes attack.csv."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    samples: int = 100
    """How many test samples, the first of each class."""
    iterations: int = 25
    """Of each attack."""
    threshold: float = 1.0
    """Of the last hidden layer while gradients are computed, in the attacks that move it."""
    transfer: Path | None = None
    """Another run on the same data, on which the attacked inputs are tried."""
    seed: int = 0
    """Of all draws."""
    checkpoint: Checkpoint | None = None
    """Which weights; those that the recipe measures if left out."""
    report: bool = False
    """Write report.html too, with what was reached."""
    results: Path | None = None
    """A CSV file to append the headline to."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class ListArguments:
    """Say what there is."""

    kind: Annotated[Kind | None, tyro.conf.Positional] = None
    """models, neurons, recipes, studies or data; everything if left out."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class DataListArguments:
    """Say which data sets there are, of what kind, and whether they are on this machine."""

    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class DataInfoArguments:
    """Say what is known of a data set: source, licence, split, size, and where it was looked for."""

    name: Annotated[str, tyro.conf.Positional]
    """Data set."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class FloorOptions:
    """What happens around the measurement."""

    download: bool = False
    """Fetch the data set from its official source if it is not on this machine."""
    results: Path | None = None
    """A CSV file to append the measured rows to."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class StudyOptions:
    """What is measured, and where it goes."""

    seed: int = 0
    """Of whatever is drawn."""
    results: Path | None = None
    """A CSV file to append the measured rows to."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class DataPrepareArguments:
    """Load a data set once, so that what it keeps on the disk is there when it is trained on: that of all its folds."""

    name: Annotated[str, tyro.conf.Positional]
    """Data set."""
    T: int | None = None
    """Steps of its sequences; recordings become frames only if it is given."""
    size: int | None = None
    """Pixels of a side (channels of sound) that the frames of recordings are summed to; None keeps all."""
    download: bool = False
    """Fetch the data set from its official source if it is not on this machine."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class ViewArguments:
    """Draw a file of events: a moving .gif, a .png, or an .html page with what it counts."""

    file: Annotated[Path, tyro.conf.Positional]
    """Events file of a known format."""
    out: Path | None = None
    """File to write, .gif, .png or .html; NAME.html in the current folder if left out."""
    sensor: str | None = None
    """Width and height as W,H, for files that do not say."""
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """Of the times, for files that do not say."""
    format: str | None = None
    """Name of the format, for files that neither their bytes nor their suffix tell: aedat2, cochlea."""
    sort: bool = False
    """Put events in the order of their times where the file breaks it."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class RunOptions:
    """What happens around the training."""

    runs: Path = Path("runs")
    """Where run folders are made."""
    download: bool = False
    """Fetch the data set from its official source if it is not on this machine."""
    report: bool = False
    """Write report.html when done."""
    results: Path | None = None
    """A CSV file to append the measured row to."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


_TRAIN_HELP = """usage: rheobase train RECIPE [--FIELD VALUE ...]
       rheobase train --resume RUN [--checkpoint best|last] [--report] [--json]

Train a recipe in a new run folder, or go on with a run that was stopped.
`rheobase train RECIPE --help` shows the recipe's fields and their values.

recipes: {recipes}"""

_DATA_HELP = """usage: rheobase data list [--json]
       rheobase data info NAME [--json]
       rheobase data prepare NAME [--T T] [--size SIZE] [--download] [--json]

Say which data sets there are, what is known of one, or load one so that what it keeps on the disk is made."""

_USAGE = """usage: rheobase VERB ...

  train RECIPE   train a recipe, make a run folder; --resume RUN goes on with a stopped one
  eval RUN       measure a run on its test split, or classify your own images
  report RUN     write report.html into a run
  cost RUN       what its matrix products read, and operations and energy by a named rule
  compress RUN   prune, quantise, quieten: a new, smaller run
  attack RUN     what attacks reach, with intervals: flips of spikes, changes of images
  floor RECIPE   what a linear classifier and the nearest neighbour reach on a recipe's samples
  study NAME     measure what needs no training, such as gradients through deep stacks
  data list      data sets: kind, here or missing; info NAME tells more, prepare NAME makes what it keeps
  view FILE      draw a file of events as .gif, .png or .html
  list [KIND]    models, neurons, recipes, studies, data

`rheobase VERB --help` tells more; `rheobase --version` the version."""


def _parse(kind: Any, arguments: Sequence[str], prog: str, default: Any = None) -> Any:
    options = {} if default is None else {"default": default}
    return tyro.cli(
        kind,
        prog=prog,
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
        **options,
    )


def _train(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase import recipes
    from rheobase.train import Processes

    if not arguments or arguments[0] in ("-h", "--help"):
        print(_TRAIN_HELP.format(recipes=", ".join(recipes.list_recipes())))
        raise SystemExit(0 if arguments else 2)
    if "--resume" in arguments:
        return _resume(arguments)
    name, rest = arguments[0], arguments[1:]
    default = _with_augment(recipes.recipe(name)())

    Arguments = make_dataclass("Arguments", [("config", type(default)), ("options", RunOptions, RunOptions())])
    Arguments.__doc__ = recipes.recipe(name).__doc__
    given = _parse(Arguments, rest, f"rheobase train {name}", Arguments(default))
    config, options = _without_idle_augment(given.config), given.options
    with _progress(config.train.epochs) as (on_epoch, on_step):
        run, result = recipes.train(
            name, config, options.runs, download=options.download, on_epoch=on_epoch, on_step=on_step
        )
    if options.results is not None:
        Processes.current().first(partial(recipes.record, run, options.results))
    return _finished(run, result, options.report)


def _with_augment(config: Any) -> Any:
    """The config with all of augmentation off in the place of None, so that each of its fields is an option."""
    from rheobase.data import Augment

    return replace(config, augment=config.augment or Augment()) if hasattr(config, "augment") else config


def _without_idle_augment(config: Any) -> Any:
    """The config with None in the place of augmentation that does nothing."""
    from rheobase.data import Augment

    return replace(config, augment=None) if getattr(config, "augment", None) == Augment() else config


@dataclass(frozen=True)
class ResumeArguments:
    """Go on with a run that was stopped."""

    resume: Path
    """Run folder."""
    checkpoint: Checkpoint = "last"
    """Where to go on: the last checkpoint, or the best one if the last is damaged."""
    report: bool = False
    """Write report.html when done."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


def _resume(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase import recipes
    from rheobase.train import RunFolder

    given = _parse(ResumeArguments, arguments, "rheobase train")
    run = RunFolder.open(given.resume)
    epochs = recipes.config_of(run).train.epochs
    with _progress(epochs) as (on_epoch, on_step):
        result = recipes.resume(run, which=given.checkpoint, on_epoch=on_epoch, on_step=on_step)
    return _finished(run, result, given.report)


def _finished(run: Any, result: dict[str, Any], wants_report: bool) -> dict[str, Any]:
    from rheobase import recipes
    from rheobase.train import Processes

    found = {"run": str(run.path), **result}
    print(
        f"test accuracy {result['test_accuracy']:.2%} on {result['test_count']} samples ({result['checkpoint']} epoch"
        + (f", {len(result['folds'])} folds)" if "folds" in result else ")")
    )
    print(f"run {run.path}")
    if wants_report:
        found["report"] = str(Processes.current().first(lambda: recipes.report(run)))
        print(f"report {found['report']}")
    return found


def _eval(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase import recipes
    from rheobase.train import RunFolder

    given = _parse(EvalArguments, arguments, "rheobase eval")
    run = RunFolder.open(given.run)
    if given.images is not None:
        predictions = recipes.classify(run, _images(given.images), which=given.checkpoint)
        for k, name in enumerate(predictions):
            print(f"{k}\t{name}")
        return {"run": str(run.path), "checkpoint": given.checkpoint, "predictions": predictions}
    result = recipes.measure(run, which=given.checkpoint)
    return _finished(run, result, False)


def _images(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not an .npy array ({error}); write it with numpy.save(path, images)") from error


def _report(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase import recipes
    from rheobase.train import RunFolder

    given = _parse(ReportArguments, arguments, "rheobase report")
    path = recipes.report(RunFolder.open(given.run), which=given.checkpoint)
    print(f"report {path}")
    return {"run": str(given.run), "report": str(path)}


def _cost(arguments: Sequence[str]) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Column, Table

    from rheobase import recipes
    from rheobase.recipes.cost import summary
    from rheobase.recipes.cost_page import cost_remarks
    from rheobase.train import RunFolder

    given = _parse(CostArguments, arguments, "rheobase cost")
    run = RunFolder.open(given.run)
    if given.h2learn is not None:
        if given.rule is not None or given.results is not None:
            raise ValueError("--rule and --results belong to the price by a rule; leave them out with --h2learn")
        return _h2learn(given, run)
    if given.units is not None:
        raise ValueError("--units names the energies of an accelerator; name one with --h2learn, or leave it out")
    rule = given.rule or "strict"
    report, price, path = recipes.cost(run, which=given.checkpoint, rule=rule, samples=given.samples)
    table = Table(Column("layer", overflow="fold"), "reads", "density", "spikes only", "MACs", "ACs", "nJ")
    for product, layer in zip(report.products, price.layers, strict=True):
        seen = product.activations
        table.add_row(
            product.name or "(model)",
            " x ".join(str(operand.holds) for operand in seen),
            " x ".join(f"{operand.density:.3f}" for operand in seen),
            product.verdict,
            f"{layer.macs:,.0f}",
            f"{layer.acs:,.0f}",
            f"{layer.energy_pJ / 1e3:,.2f}",
        )
    others = price.total_pJ - sum(layer.energy_pJ for layer in price.layers)
    if others:
        table.add_row("neurons and sums", "", "", "", "", "", f"{others / 1e3:,.2f}", end_section=True)
    table.add_row("sum", "", "", "", f"{price.macs:,.0f}", f"{price.acs:,.0f}", f"{price.total_pJ / 1e3:,.2f}")
    console = Console()
    console.print(table)
    found = {"run": str(run.path), **summary(report, price), "csv": str(path)}
    console.print(_by_rule(found["rules"]))
    share = f"{report.mac_share:.2%} of the MACs need a multiplier"
    print(f"spike-driven: {'yes' if report.spike_driven else f'no, {share}'}")
    print(
        f"{price.total_pJ / 1e3:,.2f} nJ a sample by the rule {price.rule!r} ({report.samples} samples, T = {report.T})"
    )
    for remark in cost_remarks(found):
        print(remark)
    for name, sums in found["quantised"].items():
        print(
            f"{name}: {sums['ratio']:.2f} times the {sums['bits']}-bit quantised network of the same shape "
            f"({sums['snn_pJ'] / 1e3:,.1f} and {sums['ann_pJ'] / 1e3:,.1f} nJ in whole numbers)"
        )
    spikes = found["spikes_per_neuron"]
    print(f"{'-' if spikes is None else format(spikes, '.3f')} spikes a neuron")
    print(f"csv {path}")
    if given.results is not None:
        recipes.record_cost(run, given.results)
    if given.report:
        found["report"] = str(recipes.report(run, which=given.checkpoint))
        print(f"report {found['report']}")
    return found


def _h2learn(given: CostArguments, run: Any) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Column, Table

    from rheobase import recipes
    from rheobase.recipes.h2learn import accelerated_summary
    from rheobase.recipes.h2learn_page import h2learn_remarks, published_ranges

    assert given.h2learn is not None
    made, path = recipes.h2learn(
        run, design=given.h2learn, units=given.units or "45nm", which=given.checkpoint, samples=given.samples
    )
    found = {"run": str(run.path), **accelerated_summary(made), "csv": str(path)}
    engines = ("forward", "backward", "update")
    heads = ("rate", "d_in", "d_out", "silent", *engines)
    table = Table(Column("layer", overflow="fold"), *heads, title="cycles a sample")
    for layer in made.found.layers:
        work, phases = layer.work, (layer.forward, layer.backward, layer.update)
        shares = (f"{share:.2f}" for share in (work.rate, work.d_in, work.d_out, work.silent))
        cycles = ("-" if phase is None else f"{phase.cycles(made.found.design):,.0f}" for phase in phases)
        table.add_row(work.name, *shares, *cycles)
    for name, sums in (("sum", found["cycles"]), ("sum, tables exposed", found["cycles_exposed"])):
        table.add_row(name, "", "", "", "", *(f"{sums[engine]:,.0f}" for engine in engines))
    table.add_row("busy", "", "", "", "", *(f"{found['utilisation'][engine]:.0%}" for engine in engines))
    parts = Table(Column("with", overflow="fold"), *engines, "ms a sample")
    for name, each in found["ablation"].items():
        cycles = (f"{each['cycles'][engine]:,.0f}" for engine in engines)
        parts.add_row(name, *cycles, f"{each['ms_per_sample']:.4g}")
    console = Console()
    console.print(table)
    console.print(parts)
    kinds = ("speed", "energy", "area")
    against = Table(Column("times the GPU model, a roofline", overflow="fold"), *kinds)
    for name, each in found["ratios"].items():
        against.add_row(name, *(f"{each[kind]:.2f}" for kind in kinds))
    against.add_row("published", *published_ranges(found))
    console.print(against)
    weighed = Table(Column("assumption", overflow="fold"), "value", *(f"{kind}, / 2 and x 2" for kind in kinds))
    for name, value, low, high in made.assumptions:
        ratios = (f"{getattr(low, kind):.2f} {getattr(high, kind):.2f}" for kind in kinds)
        weighed.add_row(name, f"{value:.4g}", *ratios)
    console.print(weighed)
    for each in found["unmapped"]:
        print(f"not mapped: {each['name'] or 'the model'}: {each['reason']}")
    for remark in h2learn_remarks(found):
        print(remark)
    joules = sum(found["energy_pJ"].values())
    print(
        f"{found['ms_per_sample']:.4g} ms and {joules / 1e9:.4g} mJ a sample on {made.name}, simulated "
        f"({made.step.batch} samples traced, T = {made.step.T}, energies {made.units})"
    )
    print(f"csv {path}")
    if given.report:
        found["report"] = str(recipes.report(run, which=given.checkpoint))
        print(f"report {found['report']}")
    return found


def _attack(arguments: Sequence[str]) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Column, Table

    from rheobase import recipes
    from rheobase.recipes.attack import Settings
    from rheobase.recipes.attack_page import attack_text
    from rheobase.train import RunFolder

    given = _parse(AttackArguments, arguments, "rheobase attack")
    run = RunFolder.open(given.run)
    other = None if given.transfer is None else RunFolder.open(given.transfer)
    settings = Settings(given.iterations, given.threshold, given.seed)
    rows, path = recipes.attack(run, which=given.checkpoint, samples=given.samples, settings=settings, other=other)
    narrow = (Column(name, no_wrap=True) for name in ("goal", "bound", "success", "95 %", "of", "changed"))
    table = Table(Column("attack", overflow="fold"), *narrow)
    for row in rows:
        if row.at is not None and row.attack.startswith("flips"):
            continue  # the curve; it is in the file
        low, high = row.share.interval
        table.add_row(
            row.attack,
            row.goal,
            "" if row.at is None else f"{row.at:.3g}",
            f"{row.share.value:.1%}",
            f"{100 * low:.0f}-{100 * high:.0f} %",
            str(row.share.count),
            "" if row.perturbation is None else f"{row.perturbation:.3g}",
        )
    Console().print(table)
    found = {"run": str(run.path), **run.result()["attack"], "csv": str(path)}
    print(attack_text(found))
    print(f"csv {path}")
    if given.results is not None:
        recipes.record_attack(run, given.results)
    if given.report:
        found["report"] = str(recipes.report(run, which=given.checkpoint))
        print(f"report {found['report']}")
    return found


def _by_rule(rules: dict[str, dict[str, float]]) -> Any:
    """The sums of every rule as a table."""
    from rich.table import Column, Table

    table = Table(Column("rule", no_wrap=True), "MACs", "ACs", "computing", "memory", "sum, nJ")
    for name, sums in rules.items():
        parts = (sums["products_pJ"] + sums["neurons_pJ"], sums["memory_pJ"], sums["energy_pJ"])
        table.add_row(name, f"{sums['macs']:,.0f}", f"{sums['acs']:,.0f}", *(f"{part / 1e3:,.1f}" for part in parts))
    return table


def _compress(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase import recipes
    from rheobase.recipes.compress_page import compress_remarks
    from rheobase.train import RunFolder

    given = _parse(CompressArguments, arguments, "rheobase compress")
    if (given.run is None) == (given.resume is None):
        raise ValueError("name one run: to compress it, or after --resume to go on with what was stopped")
    with _progress(None) as (on_epoch, on_step):
        if given.resume is not None:
            run = RunFolder.open(given.resume)
            result = recipes.resume_compress(run, on_epoch=on_epoch, on_step=on_step)
        else:
            run, result = recipes.compress_run(
                RunFolder.open(given.run),
                _compression(given),
                given.runs,
                which=given.checkpoint,
                samples=given.samples,
                on_epoch=on_epoch,
                on_step=on_step,
            )
    for remark in compress_remarks(result["compress"]):
        print(remark)
    if given.results is not None:
        recipes.record_compression(run, given.results)
    return _finished(run, result, given.report)


def _compression(given: CompressArguments) -> Any:
    from rheobase.lab import compress
    from rheobase.recipes import Compression

    epochs = given.epochs
    wanted: Any = 0.9 if given.sparsity is None and given.D is None else given.sparsity
    pull: dict[str, Any] = {} if given.rho is None else {"rho": given.rho}
    methods: list[Any] = []
    if given.method == "lats":
        methods.append(compress.Lats(epochs, wanted, given.D, given.schedule, given.beta))
    elif given.D is not None:
        raise ValueError(f"D is {given.D} without --method lats; it is that method's threshold: leave it out")
    elif given.method == "channels":
        methods.append(compress.Channels(epochs, wanted, scope=given.scope))
    elif given.method is not None:
        kind: Any = compress.METHODS[given.method]
        extra = pull if given.method == "admm" else {}
        methods.append(kind(epochs, wanted, given.scope, **extra))
    elif given.sparsity is not None:
        raise ValueError(f"sparsity is {given.sparsity} without a method; name one with --method")
    if given.bits is not None:
        methods.append(compress.Quantise(epochs, given.bits, given.levels, **pull))
    if given.activity is not None:
        methods.append(compress.Activity(epochs, given.activity))
    if not methods:
        raise ValueError("nothing to do; give --method, --bits or --activity")
    return Compression(tuple(methods), given.exclude, given.lr, given.optimizer, given.clip_norm)


def _floor(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase import recipes

    names = ", ".join(recipes.list_recipes())
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: rheobase floor RECIPE [--FIELD VALUE ...] [--results FILE.csv]\n\nrecipes: {names}")
        raise SystemExit(0 if arguments else 2)
    name, rest = arguments[0], arguments[1:]
    default = _with_augment(recipes.recipe(name)())

    Arguments = make_dataclass("Arguments", [("config", type(default)), ("options", FloorOptions, FloorOptions())])
    Arguments.__doc__ = (
        "Measure trivial methods on the samples of a recipe: a linear classifier, the nearest neighbour."
    )
    given = _parse(Arguments, rest, f"rheobase floor {name}", Arguments(default))
    config = _without_idle_augment(given.config)
    found = recipes.floors(config, download=given.options.download)
    for method, value in found.items():
        if method != "count":
            print(f"{method:<14} {value:.2%} on {found['count']} samples")
    if given.options.results is not None:
        recipes.record_floors(name, config, found, given.options.results)
    return {"recipe": name, **found}


def _study(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase import recipes

    if not arguments or arguments[0] in ("-h", "--help"):
        names = ", ".join(recipes.list_studies())
        print(f"usage: rheobase study NAME [--seed SEED] [--results FILE.csv]\n\nstudies: {names}")
        raise SystemExit(0 if arguments else 2)
    name, rest = arguments[0], arguments[1:]
    measure = recipes.study(name)

    @dataclass(frozen=True)
    class Arguments(StudyOptions):
        pass

    Arguments.__doc__ = measure.__doc__
    given = _parse(Arguments, rest, f"rheobase study {name}")
    rows = []
    for found in measure(given.seed):
        beside = f"  ({found.published})" if found.published else ""
        print(f"{found.subject:<30} {found.size:>6}  {found.metric}  {found.value:.4g}{beside}", flush=True)
        if given.results is not None:
            recipes.record_measurement(name, given.seed, found, given.results)
        rows.append(asdict(found))
    return {"study": name, "seed": given.seed, "rows": rows}


def _list(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase.data import list_datasets
    from rheobase.models import list_models
    from rheobase.neurons import list_neurons
    from rheobase.recipes import list_recipes, list_studies

    given = _parse(ListArguments, arguments, "rheobase list")
    makers: dict[str, Callable[[], list[str]]] = {
        "models": list_models,
        "neurons": list_neurons,
        "recipes": list_recipes,
        "studies": list_studies,
        "data": list_datasets,
    }
    found = {kind: make() for kind, make in makers.items() if given.kind in (None, kind)}
    for kind, names in found.items():
        print("\n".join(names) if given.kind else f"{kind}: {', '.join(names)}")
    return found


def _data(arguments: Sequence[str]) -> dict[str, Any]:
    actions = {"list": _data_list, "info": _data_info, "prepare": _data_prepare}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_DATA_HELP)
        raise SystemExit(0 if arguments else 2)
    if arguments[0] not in actions:
        raise ValueError(f"there is no action {arguments[0]!r}; expected one of {', '.join(actions)}")
    return actions[arguments[0]](arguments[1:])


def _data_list(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase.data import list_datasets

    _parse(DataListArguments, arguments, "rheobase data list")
    rows = [{"name": name, **_known(name)} for name in list_datasets()]
    for row in rows:
        print(f"{row['name']:<20} {row['kind']:<10} {'here' if row['here'] else 'missing'}")
    return {"data": rows}


def _known(name: str) -> dict[str, Any]:
    """Kind of a data set, and whether it is here: nothing to download, or a path of its layout exists."""
    from rheobase.data import about, files_of

    try:
        known = about(name)
    except ValueError:  # registered without
        return {"kind": "unknown", "here": False}
    return {"kind": known.kind, "here": not known.layout or bool(files_of(name))}


def _data_info(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase.data import about, data_root, files_of

    given = _parse(DataInfoArguments, arguments, "rheobase data info")
    known, found = about(given.name), [str(path) for path in files_of(given.name)]
    here, root = not known.layout or bool(found), data_root()
    for key in ("title", "kind", "source", "licence", "citation", "split", "size"):
        print(f"{key:<10} {getattr(known, key)}")
    for name, digest in known.checksums.items():
        print(f"{'checksum':<10} {digest}  {name}")
    print(f"{'here' if here else 'missing':<10} below {root}")
    for path in known.layout:
        print(f"{'':<10} {'found ' if str(root / path) in found else 'absent'} {path}")
    about_it = {**asdict(known), "checksums": dict(known.checksums)}
    return {"name": given.name, **about_it, "root": str(root), "here": here, "found": found}


def _data_prepare(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase.data import EventDataset, folds_of, list_datasets, load, options_of

    given = _parse(DataPrepareArguments, arguments, "rheobase data prepare")
    options: dict[str, Any] = {"download": given.download}
    known = options_of(given.name) if given.name in list_datasets() else ()
    if given.T is not None and "T" in known:
        options["T"] = given.T
    with _rows_done(given.name) as on_progress:
        if "on_progress" in known:
            options["on_progress"] = on_progress
        loaded = load(given.name, **options)
        if isinstance(loaded, EventDataset) and given.T is not None:
            folds = [load(given.name, **options, fold=k) for k in range(1, folds_of(given.name))]
            for recordings in (loaded, *folds):
                recordings.frames(given.T, size=given.size, on_progress=on_progress)
        elif isinstance(loaded, EventDataset) and given.size is not None:
            raise ValueError(f"--size is {given.size} without --T; recordings become frames only of T steps: pass --T")
        elif wrong := [f"--{key}" for key in ("T", "size") if getattr(given, key) is not None and key not in options]:
            raise ValueError(f"{given.name} takes no {' and no '.join(wrong)}; expected recordings; leave it out")
    sizes = {
        part: len(getattr(loaded, part))
        for part in ("train", "test")
        if hasattr(getattr(loaded, part, None), "__len__")
    }
    print(", ".join([f"{given.name} is ready", *(f"{size} in {part}" for part, size in sizes.items())]))
    return {"name": given.name, **sizes}


@contextmanager
def _rows_done(name: str) -> Any:
    """A callback that shows rows being made: a moving bar on a terminal, a line every tenth elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not Console().is_terminal:
        told = -1

        def line(done: int, total: int) -> None:
            nonlocal told
            tenth = 10 * done // total
            if tenth != told:
                told = tenth
                print(f"{name}: {done} of {total}", flush=True)

        yield line
        return
    with Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _view(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase.report import EventView, save_events

    given = _parse(ViewArguments, arguments, "rheobase view")
    sensor = None if given.sensor is None else _sensor(given.sensor)
    from rheobase.data.events import TICKS_PER_SECOND
    from rheobase.data.formats import read_events

    events = read_events(given.file, sensor=sensor, unit=given.unit, format=given.format, sort=given.sort)
    seconds = events.t / TICKS_PER_SECOND[events.unit]
    view = EventView(seconds, events.x, events.y, events.p, events.sensor, given.file.name)
    path = save_events(view, given.out or Path(f"{given.file.stem}.html"))
    width, height = events.sensor
    print(f"{len(events)} events in {view.seconds:g} s on {width} x {height}, {int(events.p.sum())} of them ON")
    print(f"view {path}")
    return {
        "file": str(given.file),
        "events": len(events),
        "seconds": view.seconds,
        "sensor": [width, height],
        "on": int(events.p.sum()),
        "view": str(path),
    }


def _sensor(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split(","))
    except ValueError:
        raise ValueError(f"--sensor is {text!r}; expected W,H such as 34,34") from None
    return width, height


@contextmanager
def _progress(epochs: int | None) -> Any:
    """Callbacks that show a training: a moving bar on a terminal, one plain line an epoch elsewhere.

    None: of several trainings, whose metrics say how many epochs each has.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    def line(metrics: dict[str, Any]) -> str:
        part = f"fold {metrics['fold']}  " if "fold" in metrics else ""
        part += f"{metrics['phase']}  " if "phase" in metrics else ""
        return (
            f"{part}epoch {metrics['epoch'] + 1}/{epochs or metrics['epochs']}  loss {metrics['train_loss']:.4f}  "
            f"train {metrics['train_accuracy']:.2%}  validation {metrics['validation_accuracy']:.2%}  "
            f"{metrics['seconds']:.1f} s"
        )

    console = Console()
    if not console.is_terminal:
        yield lambda metrics: print(line(metrics), flush=True), None
        return
    bar = Progress(TextColumn("training"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
    with bar:
        task = bar.add_task("training")
        yield (
            lambda metrics: bar.console.print(line(metrics), highlight=False),
            lambda done, total: bar.update(task, completed=done, total=total),
        )


@contextmanager
def _processes(verb: str) -> Iterator[None]:
    """Inside, a training is one of the processes that a launcher started, and all but the first are silent."""
    if verb != "train" or os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    from rheobase.train import join

    with join() as processes, Path(os.devnull).open("w") as nowhere:
        if processes.rank == 0:
            yield
            return
        with redirect_stdout(nowhere):
            yield


VERBS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "train": _train,
    "eval": _eval,
    "report": _report,
    "cost": _cost,
    "compress": _compress,
    "attack": _attack,
    "floor": _floor,
    "study": _study,
    "data": _data,
    "view": _view,
    "list": _list,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from rheobase import __version__

        print(__version__)
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        print(f"rheobase: there is no verb {verb!r}; expected one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        from rheobase.scan.allocator import keep_memory

        keep_memory()
        with _processes(verb):
            result = VERBS[verb](rest)
            if "--json" in rest:
                print(json.dumps(result))
    except (ValueError, OSError, ImportError) as error:
        print(f"rheobase {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "go on with `rheobase train --resume RUN`" if verb == "train" else "the same command goes on"
        print(f"rheobase {verb}: interrupted; {again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
