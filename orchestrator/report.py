"""The report: one self-contained HTML page about a run directory, written beside its tables."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import struct
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from orchestrator import atomic
from orchestrator.outcomes import plan_of
from orchestrator.plot import Plot
from orchestrator.report_nested import nested_part
from orchestrator.report_results import best_view, headline, state_view
from orchestrator.report_setup import setup_parts
from orchestrator.report_source import ReportSource
from orchestrator.report_statistics import statistics_parts
from orchestrator.report_story import commands, environment_parts, files, trouble_view
from orchestrator.report_tables import (
    configurations_table,
    hyperparameters_table,
    summaries_note,
    summary_views,
    trials_table,
)
from orchestrator.report_view import Picture, PictureSection, ReportView
from orchestrator.run_directory import RunDirectory
from orchestrator.standing import Standing
from orchestrator.trials import Plan

_log = logging.getLogger(__name__)

NAME = "report.html"

# Of XML 1.0: no page may hold these, and an error message may.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_PNG = b"\x89PNG\r\n\x1a\n"


def write_report(
    run_dir: Path,
    plots: Sequence[Plot] = (),
    *,
    running: bool | None = None,
    plan: Plan | None = None,
) -> Path:
    """Write `run_dir/report.html` from the run directory, its tables just written.

    Works on a finished run directory and on one whose sweep is running or was killed. The page
    refers to nothing outside itself.

    Args:
        run_dir: the run directory.
        plots: in the order in which they are shown.
        running: whether a driver is at work, for a driver that knows; None asks its lock.
        plan: of the run directory; None to read it.

    Returns:
        The file.

    Raises:
        RunDirectoryError: there is no plan or table to read, or the page cannot be written.
    """
    directory = RunDirectory(run_dir)
    source = ReportSource(directory, plan_of(directory) if plan is None else plan)
    standing = Standing(source, source.driven() if running is None else running)
    page = render(report_view(standing, plots))
    path = run_dir / NAME
    atomic.remove_abandoned(run_dir)
    with atomic.replacing(path, durable=False) as stream:
        stream.write(page)
    return path


def report_view(standing: Standing, plots: Sequence[Plot]) -> ReportView:
    """What the page shows."""
    summaries = summary_views(standing)
    return ReportView(
        name=standing.plan.name,
        state=state_view(standing),
        headline=headline(standing),
        leakage=standing.plan.leakage_allowed,
        best=best_view(standing),
        nested=nested_part(standing),
        setup=setup_parts(standing),
        summaries=summaries,
        summaries_note=summaries_note(standing, summaries),
        hyperparameters=hyperparameters_table(standing),
        configurations=configurations_table(standing),
        trials=trials_table(standing),
        statistics=statistics_parts(standing),
        pictures=_pictures(plots),
        trouble=trouble_view(standing),
        environment=environment_parts(standing),
        specification=standing.source.specification,
        commands=commands(standing),
        files=files(standing),
    )


def render(view: ReportView) -> str:
    """The page; every text of the view is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_package_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (Markup(_package_file(name)) for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        view=view, style=style, script=script, policy=_policy(style, script)
    )


def _policy(style: str, script: str) -> str:
    """A content security policy by which the page can load and run nothing but its own."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}';"
        f" script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )


def _package_file(name: str) -> str:
    # Line ends as the browser will see them when it checks the hash.
    text = resources.files("orchestrator").joinpath(name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _shown(value: Any) -> Any:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def _pictures(plots: Sequence[Plot]) -> tuple[PictureSection, ...]:
    sections: dict[str, list[Picture]] = {}
    for i, plot in enumerate(plots, start=1):
        picture = _picture(plot, f"plot-{i}")
        if picture is not None:
            sections.setdefault(plot.section, []).append(picture)
    return tuple(PictureSection(title, tuple(found)) for title, found in sections.items())


def _picture(plot: Plot, anchor: str) -> Picture | None:
    try:
        data = plot.path.read_bytes()
    except OSError as error:
        _log.warning("%s: not in the report: %s", plot.path, atomic.reason(error))
        return None
    if not data.startswith(_PNG) or len(data) < 24:
        _log.warning("%s: not in the report: no PNG file", plot.path)
        return None
    # Width and height stand at the same place in every PNG (its first chunk, IHDR).
    width, height = struct.unpack(">II", data[16:24])
    return Picture(
        anchor=anchor,
        title=plot.title[:1].upper() + plot.title[1:],
        description=plot.description,
        file=f"{plot.path.parent.name}/{plot.path.name}",
        source=f"data:image/png;base64,{base64.b64encode(data).decode()}",
        width=width,
        height=height,
    )
