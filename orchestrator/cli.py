"""The command line: what `foldgrid` does with each of its words."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.atomic import reason
from orchestrator.data_cli import data
from orchestrator.errors import FoldgridError, printable
from orchestrator.interrupts import EXIT_CODE, watched
from orchestrator.streams import lasting
from orchestrator.winner_cli import add_to

if TYPE_CHECKING:
    from features.near_duplicates import NearDuplicate
    from orchestrator.runs import Run

app = typer.Typer(
    help="Cross-validated grid search for audio classification, distributed with Ray.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Typer brings a click of its own or uses the installed one, depending on its version; what it
# raises is only to be had through the classes that it exports.
_ClickException: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)

Spec = Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="The specification.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="path.to.key=value", help="Override one value (YAML)."),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Run directory [results/<name>].")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def main() -> None:
    """Run the command line and exit with its code."""
    with watched(), lasting() as lost:
        code = _code()
        sys.stdout.flush()
        if lost.reason:
            _complain([f"standard output: cannot write: {lost.reason}"])
            code = code or 1
    sys.exit(code)


def _code() -> int:
    logging.getLogger("orchestrator").addHandler(logging.NullHandler())
    for name in ("orchestrator", "features", "models"):
        logging.getLogger(name).propagate = False
    try:
        code = app(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except FoldgridError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        _complain(error.lines())
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_CODE
    except _ClickException as error:
        _complain([f"foldgrid: {error.format_message()}"])  # type: ignore[attr-defined]
        return 2
    except OSError as error:
        # Nobody has said what it means here, but a disk that fails is no reason for a traceback.
        if "--debug" in sys.argv:
            traceback.print_exc()
        place = f"{error.filename}: " if error.filename else ""
        _complain([f"foldgrid: {place}{reason(error)}"])
        return 1


def _complain(lines: list[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"foldgrid {version('foldgrid')}")
        raise typer.Exit


@app.callback()
def _foldgrid(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    spec: Spec,
    overrides: Set = None,
    out: Out = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add trials to a finished plan.")
    ] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Do not run failed trials again.")
    ] = False,
    executor: Annotated[str, typer.Option(metavar="ray|serial", help="Where trials run.")] = "ray",
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="An existing Ray cluster.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most trials at once.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Start a sweep, or continue it: finished trials are never run again."""
    from orchestrator import api

    result = api.run(
        spec,
        out,
        overrides=overrides or (),
        executor=executor,
        address=address,
        jobs=jobs,
        extend=extend,
        keep_failed=keep_failed,
        quiet=quiet,
    )
    for line in _closing(result, _command(sys.argv)):
        print(printable(line))
    return result.exit_code


def _closing(result: Run, command: str) -> list[str]:
    """What is said at the end of a run."""
    from orchestrator.experiment import several

    total = result.total
    lines = [f"{result.finished} of {total} trials finished, {result.failed} failed"]
    if result.pruned:
        lines[0] += f"; {result.pruned} more were pruned"
    if result.estimate is not None:
        found = result.estimate
        each = ", ".join(f"{value:.4f}" for value in found.values)
        lines.append(
            f"nested cross-validation: {found.metric} mean {found.mean:.4f}, standard deviation"
            f" {found.std:.4f} over {several(len(found.values), 'outer trial')}: {each}"
        )
    if result.best is not None:
        best = result.best
        values = [fold.value for fold in best.folds if fold.value is not None]
        each = ", ".join(f"{value:.4f}" for value in values)
        # Several seeds, or test folds in turn, give no further folds.
        folds = {fold.trial.fold for fold in best.folds}
        noun = "fold" if len(folds) == len(best.folds) else "trial"
        lines.append(
            f"best configuration: {best.configuration.id}"
            f" ({best.metric} mean {best.mean:.4f}, standard deviation {best.std:.4f}"
            f" over {several(len(values), noun)}: {each})"
        )
        parameters = best.configuration.parameters
        varying = [path for path in result.plan.varying if path in parameters]
        chosen = [f"{path}={parameters[path]}" for path in varying]
        if chosen:
            lines.append(f"  {', '.join(chosen)}")
    if result.selection:
        lines.append(result.selection)
    lines.append(f"tables: {result.path / 'tables'}")
    if result.report is not None:
        lines.append(f"report: {result.report}")
    if result.finished < total:
        lines.append(f"to continue: {command}")
    return lines


def _command(argv: list[str]) -> str:
    import shlex

    return shlex.join(["foldgrid", *argv[1:]])


@app.command()
def plan(
    spec: Spec,
    overrides: Set = None,
    out: Out = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    debug: Debug = False,
) -> int:
    """Show what a run would do; starts nothing."""
    from orchestrator import api
    from orchestrator.capacity import measure, refuse_too_large
    from orchestrator.forecast import forecast
    from orchestrator.ledger import Ledger
    from orchestrator.plan_view import as_lines, as_values
    from orchestrator.run_directory import RunDirectory

    experiment = api.plan(spec, overrides or (), out)
    capacity = measure(experiment)
    run_dir = out or Path("results") / experiment.plan.name
    at_once = None if capacity.measured else capacity.concurrency
    time = forecast(experiment, Ledger(RunDirectory(run_dir)), at_once)
    if as_json:
        print(json.dumps(as_values(experiment, capacity, time), indent=2))
    else:
        print("\n".join(map(printable, as_lines(experiment, capacity, time, run_dir))))
    refuse_too_large(experiment, capacity)
    return 0


@app.command()
def features(spec: Spec, overrides: Set = None, quiet: Quiet = False, debug: Debug = False) -> int:
    """Extract the features of a specification into the cache."""
    from orchestrator import api, leakage
    from orchestrator.errors import SpecificationError
    from orchestrator.extraction import bad_clip_lines, extract
    from orchestrator.interrupts import interruptible
    from orchestrator.progress import stderr_console
    from orchestrator.session import warned

    console = stderr_console(quiet)
    experiment = api.plan(spec, overrides or ())
    faults: list[str] = []
    near: tuple[NearDuplicate, ...] = ()
    for feature in experiment.features:
        with warned(console), interruptible() as stop:
            extraction = extract(experiment, feature, console, stop.is_set)
        how = "from the cache" if extraction.cached else "extracted"
        shape = list(extraction.array.shape)
        print(f"{feature.kind}: {shape} {extraction.array.dtype}, {how}, key {extraction.key}")
        bad = [(left.clip, left.problem) for left in extraction.bad]
        faults += bad_clip_lines(experiment.sweep, bad)
        near = extraction.near_duplicates
    if faults and experiment.sweep.settings.data.on_bad_clip == "refuse":
        raise SpecificationError(*faults)
    with warned(console):
        found = leakage.guarded(experiment, near)
        leakage.warn(experiment.dataset.clips, found)
    return 0


@app.command()
def report(run_dir: RunDir, debug: Debug = False) -> int:
    """Rebuild tables, plots and report from a run directory alone."""
    from orchestrator.errors import LostError
    from orchestrator.progress import stderr_console
    from orchestrator.session import warned
    from orchestrator.summary import summarize

    with warned(stderr_console(quiet=False)):
        summary = summarize(run_dir.absolute())
    if summary.selection:
        print(summary.selection)
    print(f"{len(summary.tables)} tables in {run_dir / 'tables'}")
    if summary.report is None:
        raise LostError(f"{run_dir}: no plots and no report: {summary.problem}")
    print(f"{len(summary.plots)} plots in {run_dir / 'plots'}")
    print(f"report: {summary.report}")
    return 0


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove every entry.")] = False,
    debug: Debug = False,
) -> int:
    """Show the size of the feature cache, or clear it."""
    from features.cache import cache_root, cache_size, clear_cache
    from orchestrator.capacity import size
    from orchestrator.errors import LostError

    root = cache_root()
    try:
        entries, count = clear_cache(root) if clear else cache_size(root)
    except OSError as error:
        raise LostError(f"{root}: {error.strerror or error}") from error
    noun = "entry" if entries == 1 else "entries"
    print(f"{root}: {entries} {noun}, {size(count)}{' removed' if clear else ''}")
    return 0


@app.command()
def schema(debug: Debug = False) -> int:
    """Print the JSON Schema of a specification, for editors."""
    from orchestrator.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


app.add_typer(data, name="data")
add_to(app)


if __name__ == "__main__":
    main()
