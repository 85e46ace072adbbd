"""Names of clips, classes, sweeps and parameters that could do harm in tables and pages."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import soundfile

pytestmark = pytest.mark.pictures

ROOT = Path(__file__).parents[1]

CLASSES = (
    *(
        "<script>alert(1)<",
        "x-->]]><b>",
        "&amp;\"onload='x",
        "a,b;c",
        "line\nbreak\rcr",
        "\x1b[31mred\x7f",
    ),
    *(
        "{{ 7*7 }}{% x",
        "$x^2$\\frac{",
        "dots..",
        "Case",
        "case",
        " lead",
        "tail ",
        "a\\b%s%n",
    ),
    *(
        "\u202eevi\u0301l\U0001f4a5",
        "_under",
        "007",
        "a\u2028b\x85c",
        "$(id)`id`",
        "w" * 250,
    ),
)
CLIPS = ("<img src=x onerror=alert(1)>.wav", "a,\"b\"\n'c'.wav", "-0Gd=x.wav", "z" * 240 + ".wav")
VALUES = (
    "<script>alert(1)</script>",
    "{{ 7*7 }}",
    "../../x",
    "$x^2$",
    "-",
    "'\"\\,",
    "l\nb\rc\td",
    "\u202e",
)

OWN = """
from torch import nn

def build(input_shape, classes, **params):
    channels, frames = input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * frames, classes))
"""


def _write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 0.1, 1600)
    # Not by name: libsndfile's reader of names is not what is tested here.
    stream = io.BytesIO()
    soundfile.write(stream, samples, 8000, format="WAV")
    path.write_bytes(stream.getvalue())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips with such names, and a specification with such values."""
    folder = tmp_path_factory.mktemp("hostile")
    for i, label in enumerate(CLASSES):
        for j, name in enumerate(CLIPS):
            _write(folder / "data" / label / name, len(CLIPS) * i + j)
    (folder / "hostile_own.py").write_text(OWN, encoding="utf-8")
    notes = ", ".join(yaml_text(value) for value in VALUES)
    (folder / "spec.yaml").write_text(
        "name: -.._x\n"
        "data: {dataset: folder, root: data}\n"
        "features: {kind: log_mel, sample_rate: 8000, seconds: 0.2, n_fft: 256, n_mels: 8}\n"
        "folds: {k: 4, test: 4, validate: [1]}\n"
        f"model: {{name: 'hostile_own:build', params: {{note: {{grid: [{notes}]}}}}}}\n"
        "train: {epochs: 1}\n",
        encoding="utf-8",
    )
    return folder


def yaml_text(value: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08X}" for c in value) + '"'


class _Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


def _cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, strict=True))


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_sweep_on_such_names_does_no_harm(
    foldgrid: Any, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = foldgrid("run", hostile / "spec.yaml", "--executor", "serial", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert all(line.isprintable() for line in ran.out.split("\n"))
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    run_dir = tmp_path / "results" / "-.._x"
    assert foldgrid("report", run_dir).code == 0

    paths = {f"{label}/{name}" for label in CLASSES for name in CLIPS}
    for table in (run_dir / "tables").glob("*.csv"):
        rows = _cells(table)
        assert {len(row) for row in rows} == {len(rows[0])}, table
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "@", "\t", "\r"))]
        read = pandas.read_csv(table, dtype=str, keep_default_na=False)
        assert [list(read.columns), *read.values.tolist()] == rows, table
    header, *predictions = _cells(run_dir / "tables" / "predictions.csv")
    assert header[5:] == [f"prob_{label}" for label in sorted(CLASSES)]
    assert {row[2] for row in predictions} < paths
    assert {row[3] for row in predictions} == set(CLASSES)
    assert all(row[2].startswith(f"{row[3]}/") for row in predictions)
    header, *trials = _cells(run_dir / "tables" / "trials.csv")
    assert tuple(row[header.index("model.params.note")] for row in trials) == VALUES
    assert {path.suffix for path in _below(run_dir / "plots")} == {".png"}
    _check_page((run_dir / "report.html").read_text(encoding="utf-8"))


def _check_page(text: str) -> None:
    """No tag, attribute or script of the page comes from a name."""
    page = _Page()
    page.feed(text)
    sources = ROOT / "orchestrator"
    template = (sources / "report.html.j2").read_text(encoding="utf-8")
    assert page.tags <= set(re.findall(r"<([a-z][a-z0-9]*)", template))
    assert "".join(page.scripts).strip() == (sources / "report.js").read_text().strip()
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = {value or "" for name, value in page.attributes if name in ("href", "src")}
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert html.escape(VALUES[0]) in text


def test_check_and_repair_keep_such_names(foldgrid: Any, hostile: Path, tmp_path: Path) -> None:
    checked = foldgrid(
        "data", "check", hostile / "spec.yaml", "--out", tmp_path / "c.csv", "--quiet"
    )
    assert (checked.code, checked.err) == (0, "")
    assert all(line.isprintable() for line in checked.out.split("\n"))
    header, *rows = _cells(tmp_path / "c.csv")
    assert header[:2] == ["clip", "label"]
    assert {row[1] for row in rows} == set(CLASSES)
    assert len(rows) == len(CLASSES) * len(CLIPS)
    source = hostile / "data"
    repaired = foldgrid("data", "repair", source, tmp_path / "clean", "--quiet")
    assert repaired.code == 0
    header, *rows = _cells(tmp_path / "clean" / "repair.csv")
    names = [dict(zip(header, row, strict=True)) for row in rows]
    assert {row["source"] for row in names} == {f"{c}/{n}" for c in CLASSES for n in CLIPS}
    for row in names:
        content = (tmp_path / "clean" / row["target"]).read_bytes()
        assert content == (source / row["source"]).read_bytes()
    assert len(list(_below(tmp_path / "clean"))) == len(names) + 1


FORMULAS = ("=1+1", "@SUM(A1)", "+1+1", "-2+3+cmd|' /C calc'!A0", "\t=1", "\r=1", "＝1")


@pytest.mark.parametrize("name", FORMULAS)
def test_a_name_that_a_spreadsheet_would_run_is_refused(
    foldgrid: Any, tmp_path: Path, name: str
) -> None:
    for label in (name.replace("/", ""), "b"):
        _write(tmp_path / "data" / label / "a.wav", len(label))
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "data: {dataset: folder, root: data}\nfeatures: {kind: log_mel}\nmodel: {name: cnn1d}\n",
        encoding="utf-8",
    )
    result = foldgrid("run", spec, "--out", tmp_path / "run")
    assert result.code == 2
    assert result.err.startswith(f"{spec}:1: data.root: found class ")
    assert "a formula to spreadsheets; allowed names that do not begin" in result.err
    assert not (tmp_path / "run").exists()


def test_a_clip_of_a_manifest_and_a_parameter_are_refused_alike(
    foldgrid: Any, tmp_path: Path
) -> None:
    _write(tmp_path / "=1+1.wav", 0)
    _write(tmp_path / "-1.wav", 1)
    (tmp_path / "formula_own.py").write_text(OWN, encoding="utf-8")
    manifest = tmp_path / "clips.csv"
    manifest.write_text("path,label,fold\n=1+1.wav,-1,1\n-1.wav,+1,1\n", encoding="utf-8")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"data: {{dataset: manifest, manifest: '{manifest}'}}\n"
        "features: {kind: log_mel}\n"
        "model: {name: 'formula_own:build', params: {note: {grid: [-x, '=1+1']}}}\n",
        encoding="utf-8",
    )
    result = foldgrid("plan", spec)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert f"{spec}:3: model.params.note.grid.1: found '=1+1', a formula" in result.err
    result = foldgrid("plan", spec, "--set", "model.params.note=1")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "data.manifest: found clip '=1+1.wav'" in result.err


def test_an_error_message_is_made_harmless_in_the_table(
    foldgrid: Any, write_spec: Any, tmp_path: Path
) -> None:
    (tmp_path / "raising_own.py").write_text(
        "def build(input_shape, classes):\n    raise type('=1+1', (Exception,), {})('x')\n"
    )
    spec = write_spec(model={"name": "raising_own:build"}, folds={"test": 1, "validate": [2]})
    run = foldgrid("run", spec, "--executor", "serial", "--quiet", "--out", tmp_path / "run")
    assert run.code == 1
    header, row = _cells(tmp_path / "run" / "tables" / "trials.csv")
    assert row[header.index("error")] == "'=1+1: x"


def test_repair_continues_where_a_name_reads_as_a_formula(tmp_path: Path, foldgrid: Any) -> None:
    _write(tmp_path / "source" / "=1+1.wav", 0)
    for _ in range(2):
        repaired = foldgrid("data", "repair", tmp_path / "source", tmp_path / "clean", "--quiet")
        assert repaired.code == 0
        header, row = _cells(tmp_path / "clean" / "repair.csv")
        assert row[header.index("source")] == row[header.index("target")] == "./=1+1.wav"
    assert (tmp_path / "clean" / "=1+1.wav").exists()
