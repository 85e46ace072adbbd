"""What a Python program or a notebook does with foldgrid; the command line uses nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from orchestrator.continuation import refuse_within_data
from orchestrator.errors import FoldgridError
from orchestrator.experiment import Experiment, load_dataset, make_experiment
from orchestrator.provenance import origin
from orchestrator.run_directory import RunDirectory
from orchestrator.runs import Run
from orchestrator.suggestions import restored
from orchestrator.sweep import Sweep, load_sweep, sweep_of

Spec: TypeAlias = "Sweep | str | os.PathLike[str] | Mapping[str, Any]"
"""A specification: checked, as the path of its YAML file, or as a mapping like the file's."""


def load_spec(spec: Spec, overrides: Sequence[str] = (), folder: Path | None = None) -> Sweep:
    """Read and check a specification; nothing is started and no audio is read.

    Args:
        spec: path of a YAML file, or a mapping with the same keys and values.
        overrides: `path.to.key=value` each, as after `--set`; the last wins.
        folder: of a mapping: what its relative paths are relative to and where a user's model is
            imported from; None for the working directory.

    Raises:
        SpecificationError: with every fault.
    """
    if isinstance(spec, Sweep):
        if overrides:
            raise FoldgridError("overrides: found some for a checked specification; allowed none")
        return spec
    if isinstance(spec, Mapping):
        return sweep_of(spec, overrides, folder or Path.cwd())
    path = Path(spec)
    return load_sweep(path, overrides, origin(path))


def plan(
    spec: Spec, overrides: Sequence[str] = (), out: str | os.PathLike[str] | None = None
) -> Experiment:
    """What a run would do: the clips, the folds and every trial; starts nothing.

    Args:
        spec: as for `load_spec`, or what it gave.
        overrides: likewise.
        out: the run directory, as for `run`: what a search has suggested so far stands there.

    Raises:
        SpecificationError: the specification or the data cannot be used.
        RunDirectoryError: the run directory would lie among the clips.
    """
    sweep = load_spec(spec, overrides)
    run_dir = Path(out or Path("results") / sweep.settings.name)
    sweep = restored(sweep, RunDirectory(run_dir))
    experiment = make_experiment(sweep, load_dataset(sweep))
    refuse_within_data(sweep, run_dir)
    return experiment


def run(
    spec: Spec,
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    executor: str = "ray",
    address: str | None = None,
    jobs: int | None = None,
    extend: bool = False,
    keep_failed: bool = False,
    quiet: bool = False,
) -> Run:
    """Run a sweep, or go on with it: trials that have finished are never run again.

    Progress is shown on standard error. An interrupt (a notebook's stop button) saves what is
    running and returns, `Run.interrupted` then being true; a second one raises KeyboardInterrupt.

    Args:
        spec: as for `load_spec`, or what it gave.
        out: the run directory; None for `results/<name>` below the working directory.
        overrides: as for `load_spec`.
        executor: `ray`, or `serial` for one trial after the other in this process.
        address: of an existing Ray cluster; None starts a Ray of its own and stops it.
        jobs: most trials at once; None for as many as fit.
        extend: accept a plan that holds every trial of the run directory and more.
        keep_failed: do not run failed trials again.
        quiet: show no progress, only warnings.

    Raises:
        FoldgridError: nothing was started, since the specification, the data, the run directory
            or the cluster cannot be used; or (LostError) the disk or the cluster was lost on the
            way. A failed trial raises nothing: it is a row with its error.
    """
    # Not at module level: numpy and rich are slow to import for what needs no more of them.
    from orchestrator.progress import stderr_console
    from orchestrator.runner import RunOptions, run_sweep

    if executor not in ("ray", "serial"):
        raise FoldgridError(f"executor: found {executor!r}; allowed ray, serial")
    if executor == "serial" and address is not None:
        raise FoldgridError("address: found beside executor serial; allowed with ray only")
    if jobs is not None and jobs < 1:
        raise FoldgridError(f"jobs: found {jobs}; allowed a whole number from 1")
    options = RunOptions(
        sweep=load_spec(spec, overrides),
        out=None if out is None else Path(out),
        extend=extend,
        keep_failed=keep_failed,
        executor=executor,
        address=address,
        jobs=jobs,
    )
    return run_sweep(options, stderr_console(quiet))


def read_run(path: str | os.PathLike[str]) -> Run:
    """Open a run directory, whole or of a sweep that is running or was killed; writes nothing.

    Its data frames are the tables as they were last written: at the end of a run, and once a
    minute on the way. After a kill `foldgrid report` makes them anew.

    Raises:
        RunDirectoryError: it is no run directory, or of another format version.
    """
    return Run.read(Path(path).absolute())
