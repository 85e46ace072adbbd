"""The command line of `foldgrid data`: check, repair and fetch clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import FoldgridError, LostError, listing, printable

data = typer.Typer(
    help="Check, repair or fetch clips.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@data.command()
def check(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="The specification.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="path.to.key=value", help="Override one value (YAML)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="The table [<name>_check.csv].")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Read every clip and say what was found; exit code 1 where a run would refuse something."""
    from orchestrator import api
    from orchestrator.data_check import as_lines, check_data, write_csv
    from orchestrator.experiment import load_dataset
    from orchestrator.progress import counted, stderr_console

    sweep = api.load_spec(spec, overrides or ())
    dataset = load_dataset(sweep)
    with counted(stderr_console(quiet), "checking", len(dataset.clips)) as progress:
        found = check_data(sweep, dataset, progress)
    path = out or Path(f"{sweep.settings.name}_check.csv")
    write_csv(found, path.absolute())
    print("\n".join(printable(line) for line in as_lines(found)))
    print(f"table: {path}")
    return 0 if found.usable else 1


@data.command()
def repair(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of clips.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The clean copy.")],
    rate: Annotated[
        int | None,
        typer.Option(min=1000, max=384_000, metavar="HZ", help="Of every file [its own]."),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Write a clean copy, 16-bit WAV; exit code 1 where a file could not be saved."""
    from features.journal import JOURNAL
    from features.repair import Action, Repair, RepairError, lost
    from orchestrator.interrupts import interruptible
    from orchestrator.progress import counted, stderr_console

    try:
        work = Repair(source, target, rate)
        console = stderr_console(quiet)
        with counted(console, "repairing", work.files, "files") as bar, interruptible() as stop:
            rows = work.run(bar, stop.is_set)
    except RepairError as error:
        raise FoldgridError(str(error)) from error
    except OSError as error:
        place = error.filename or target
        raise LostError(f"{place}: cannot write: {error.strerror or error}") from error
    if rows is None:
        print("interrupted; the same command goes on")
        return 130
    counts = Counter(row.action for row in rows)
    for action in Action:
        if counts[action]:
            print(f"{counts[action]:6} {action}")
    for row in rows:
        if row.action in (Action.SAVED, Action.LEFT_OUT):
            print(printable(f"{row.action}  {row.source}: {row.remark}"))
    print(f"table: {target / JOURNAL}")
    return 1 if any(lost(row) for row in rows) else 0


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="esc10, esc50 or urbansound8k.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Where to put it.")],
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Download a data set from its official place."""
    from features.fetch import SOURCES, FetchError, fetch_dataset

    if name not in SOURCES:
        raise FoldgridError(f"NAME: found {name}; allowed {listing(list(SOURCES))}")
    try:
        root = fetch_dataset(name, target, print, not quiet)
    except FetchError as error:
        raise FoldgridError(str(error)) from error
    print(f"data: {{dataset: {name}, root: {root}}}")
    return 0
