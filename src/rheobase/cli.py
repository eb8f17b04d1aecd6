"""The command line: `rheobase train | eval | report | list`. Thin: every verb is a function of the library.

Each verb takes `--json` and then prints its result as one JSON object on the last line of standard output. Whatever the
user can mend ends in one message on standard error and exit code 2.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

Checkpoint = Literal["best", "last"]
Kind = Literal["models", "neurons", "recipes", "data"]


@dataclass(frozen=True)
class EvalArguments:
    """Measure a trained network on its test split, or let it name the classes of your own images."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, such as runs/digits/20260101-120000."""
    checkpoint: Checkpoint = "best"
    """Which weights."""
    images: Path | None = None
    """An .npy file of images [N, C, H, W] in [0, 1] to classify instead of the test split."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class ReportArguments:
    """Write report.html into a run: curves, confusion matrix, rasters, firing rates."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    checkpoint: Checkpoint = "best"
    """Which weights."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


@dataclass(frozen=True)
class ListArguments:
    """Say what there is."""

    kind: Annotated[Kind | None, tyro.conf.Positional] = None
    """models, neurons, recipes or data; everything if left out."""
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

_USAGE = """usage: rheobase VERB ...

  train RECIPE   train a recipe, make a run folder; --resume RUN goes on with a stopped one
  eval RUN       measure a run on its test split, or classify your own images
  report RUN     write report.html into a run
  list [KIND]    models, neurons, recipes, data

`rheobase VERB --help` tells more; `rheobase --version` the version."""


def _parse(kind: Any, arguments: Sequence[str], prog: str, default: Any = None) -> Any:
    options = {} if default is None else {"default": default}
    return tyro.cli(
        kind,
        prog=prog,
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        **options,
    )


def _train(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase import recipes

    if not arguments or arguments[0] in ("-h", "--help"):
        print(_TRAIN_HELP.format(recipes=", ".join(recipes.list_recipes())))
        raise SystemExit(0 if arguments else 2)
    if "--resume" in arguments:
        return _resume(arguments)
    name, rest = arguments[0], arguments[1:]
    default = recipes.recipe(name)()

    @dataclass(frozen=True)
    class Arguments:
        config: recipes.Classification
        options: RunOptions = RunOptions()

    Arguments.__doc__ = recipes.recipe(name).__doc__
    given = _parse(Arguments, rest, f"rheobase train {name}", Arguments(default))
    options: RunOptions = given.options
    with _progress(given.config.train.epochs) as (on_epoch, on_step):
        run, result = recipes.train(
            name, given.config, options.runs, download=options.download, on_epoch=on_epoch, on_step=on_step
        )
    if options.results is not None:
        recipes.record(run, options.results)
    return _finished(run, result, options.report)


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

    found = {"run": str(run.path), **result}
    print(
        f"test accuracy {result['test_accuracy']:.2%} on {result['test_count']} samples ({result['checkpoint']} epoch)"
    )
    print(f"run {run.path}")
    if wants_report:
        found["report"] = str(recipes.report(run))
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


def _list(arguments: Sequence[str]) -> dict[str, Any]:
    from rheobase.data import list_datasets
    from rheobase.models import list_models
    from rheobase.neurons import list_neurons
    from rheobase.recipes import list_recipes

    given = _parse(ListArguments, arguments, "rheobase list")
    makers: dict[str, Callable[[], list[str]]] = {
        "models": list_models,
        "neurons": list_neurons,
        "recipes": list_recipes,
        "data": list_datasets,
    }
    found = {kind: make() for kind, make in makers.items() if given.kind in (None, kind)}
    for kind, names in found.items():
        print("\n".join(names) if given.kind else f"{kind}: {', '.join(names)}")
    return found


@contextmanager
def _progress(epochs: int) -> Any:
    """Callbacks that show a training: a moving bar on a terminal, one plain line an epoch elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    def line(metrics: dict[str, Any]) -> str:
        return (
            f"epoch {metrics['epoch'] + 1}/{epochs}  loss {metrics['train_loss']:.4f}  "
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


VERBS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "train": _train,
    "eval": _eval,
    "report": _report,
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
        result = VERBS[verb](rest)
    except (ValueError, OSError) as error:
        print(f"rheobase {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"rheobase {verb}: interrupted; go on with `rheobase train --resume RUN`", file=sys.stderr)
        return 130
    if "--json" in rest:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
