"""The commands of the command line that put the winner to use: refit, predict, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import FoldgridError, printable
from orchestrator.trained_model import KINDS, Kind

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="ensemble|refit",
        help="The models of all folds, or that of foldgrid refit [ensemble].",
    ),
]
Configuration = Annotated[
    str | None, typer.Option(metavar="ID", help="Another configuration than the best.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def refit(
    run_dir: RunDir,
    configuration: Configuration = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Train the best configuration on all data but the test fold."""
    from orchestrator.experiment import several
    from orchestrator.interrupts import interruptible
    from orchestrator.progress import stderr_console
    from orchestrator.refit import refit as train
    from orchestrator.session import warned
    from orchestrator.weights_names import weights_name

    console = stderr_console(quiet)
    with warned(console), interruptible() as stop:
        made = train(run_dir.absolute(), configuration, console, stop.is_set)
    _warn_of_unfinished(made.winner.unfinished)
    record, test = made.record, made.record.test
    fitted_in_one_go = made.winner.configuration.train is None
    trained = "fitted" if fitted_in_one_go else several(record.epochs, "epoch")
    clips = f"{several(record.clips, 'clip')} of folds {_listed(record.folds)}"
    print(f"refit of {record.configuration}: {trained} on {clips}")
    if test is not None:
        scores = f"accuracy {test.accuracy:.4f}, F1 {test.f1:.4f}"
        clips = several(record.test_clips, "clip")
        print(f"test fold {record.test_fold}, which had no part in it: {scores} over {clips}")
    name = weights_name(made.winner.configuration.model)
    print(f"weights: {run_dir / 'refit' / name}")
    return 0


def predict(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run directory, or an exported folder.")
    ],
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Audio files.")],
    model: Model = None,
    configuration: Configuration = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="The table [standard output].")
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Between two windows [features.seconds]."),
    ] = None,
    debug: Debug = False,
) -> int:
    """Class probabilities for new clips, as CSV."""
    from orchestrator import atomic
    from orchestrator.exported_folder import find_model
    from orchestrator.prediction import refuse_clips, write_predictions
    from orchestrator.progress import stderr_console
    from orchestrator.session import warned

    kind = _kind(model)
    with warned(stderr_console(quiet=False)):
        trained = find_model(run_dir.absolute(), kind, configuration)
    refuse_clips(clips)
    # Not before: it imports PyTorch.
    from orchestrator.classifier import Classifier

    with warned(stderr_console(quiet=False)):
        classifier = Classifier(trained)
    rows = classifier.predict(clips, hop)
    if out is None:
        write_predictions(sys.stdout, classifier, rows)
        return 0
    with atomic.replacing(out.absolute()) as stream:
        write_predictions(stream, classifier, rows)
    print(f"table: {out}", file=sys.stderr)
    return 0


def export(
    run_dir: RunDir,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A folder to be made.")],
    model: Model = None,
    configuration: Configuration = None,
    debug: Debug = False,
) -> int:
    """Write the winner as one folder: weights, features, classes, ONNX."""
    from orchestrator.export import export_model
    from orchestrator.progress import stderr_console
    from orchestrator.session import warned
    from orchestrator.winner import find_trained, find_winner

    kind = _kind(model) or "ensemble"
    with warned(stderr_console(quiet=False)):
        winner = find_winner(run_dir.absolute(), configuration)
        trained = find_trained(run_dir.absolute(), kind, winner.configuration.id)
        made = export_model(trained, winner, target.absolute())
    _warn_of_unfinished(winner.unfinished)
    print(f"{kind} of {winner.configuration.id} in {target}: {_listed(made.files)}")
    if made.no_onnx:
        print(f"no model.onnx: {printable(made.no_onnx)}")
    return 0


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (refit, predict, export):
        app.command()(command)


def _kind(model: str | None) -> Kind | None:
    if model is None:
        return None
    for kind in KINDS:
        if model == kind:
            return kind
    raise FoldgridError(f"--model: found {model!r}; allowed {', '.join(KINDS)}")


def _warn_of_unfinished(trials: int) -> None:
    if trials:
        noun = "trial has" if trials == 1 else "trials have"
        text = f"warning: {trials} {noun} not finished: another configuration may yet be better"
        print(text, file=sys.stderr)


def _listed(names: tuple[object, ...]) -> str:
    return ", ".join(str(name) for name in names)
