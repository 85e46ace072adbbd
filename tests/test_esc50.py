from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from features.clips import Clip, DatasetError
from features.datasets import load_esc10, load_esc50

NAMES = tuple(f"class_{target:02d}" for target in range(50))
HEADER = "filename,fold,target,category,esc10,src_file,take"


def repository(root: Path) -> Path:
    """ESC-50's layout with one clip for each class and fold, the two first of one recording."""
    rows = [HEADER]
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    for target, category in enumerate(NAMES):
        for fold in (1, 2, 3):
            source = 1000 * fold + target
            name = f"{fold}-{source}-A-{target}.wav"
            (root / "audio" / name).write_text(name)
            rows.append(f"{name},{fold},{target},{category},{target < 10},{source},A")
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    (root / "README.md").write_text("ESC-50")
    return root


def change(root: Path, old: str, new: str) -> None:
    table = root / "meta" / "esc50.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))


def faults_of(root: Path) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as error:
        load_esc50(root)
    assert all("\n" not in fault for fault in error.value.faults)
    return error.value.faults


def test_labels_are_targets_and_sources_clip_ids(tmp_path: Path):
    dataset = load_esc50(repository(tmp_path))
    assert dataset.name == "esc50"
    assert dataset.classes == NAMES
    assert len(dataset.clips) == 150
    content = hashlib.sha256(b"3-3007-A-7.wav").hexdigest()
    assert Clip("audio/3-3007-A-7.wav", 7, 3, "3007", content) in dataset.clips
    assert [c.path for c in dataset.clips] == sorted(c.path for c in dataset.clips)


def test_order_of_lines_does_not_count(tmp_path: Path):
    root = repository(tmp_path)
    first = load_esc50(root)
    table = root / "meta" / "esc50.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(rows)]))
    assert load_esc50(root) == first


def test_hidden_files_and_a_second_table_are_no_clips(tmp_path: Path):
    root = repository(tmp_path)
    (root / "audio" / ".DS_Store").write_text("x")
    (root / "meta" / "esc50-human.xlsx").write_text("x")
    assert len(load_esc50(root).clips) == 150


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("1-1000-A-0.wav,1", "1-9999-A-0.wav,1", "csv:2: src_file: found '1000'; allowed '9999'"),
        ("1-1000-A-0.wav,1", "1-1000-A-0.wav,2", "csv:2: fold: found '2'; allowed '1', as in 1-"),
        ("1-1000-A-0.wav,1", "1-1000-A-0.wav,6", "csv:2: fold: found '6'; allowed 1 to 5"),
        ("1-1000-A-0.wav,1,0", "1-1000-A-0.wav,1,4", "csv:2: target: found '4'; allowed '0'"),
        ("1-1000-A-0.wav,1,0", "1-1000-A-0.wav,1,dog", "csv:2: target: found 'dog'; allowed 0 to"),
        ("True,1000,A", "True,1000,B", "csv:2: take: found 'B'; allowed 'A', as in 1-1000-A-0"),
        ("2,0,class_00", "2,0,dog", "csv:3: category: found 'dog'; allowed 'class_00', as in line"),
        ("1-1000-A-0.wav", "../README.md", "csv:2: filename: found '../README.md'; allowed FOLD-"),
        ("1-1000-A-0.wav", "1-1000-A-0.flac", "csv:2: .*1-1000-A-0.flac: no such file"),
        ("\n2-2000-A-0.wav", "\n1-1000-A-0.wav,1,0,class_00,True,1000,A\n2-2000-A-0.wav", "twice"),
        ("src_file", "clip_id", "esc50.csv:1: no column src_file"),
    ],
)
def test_a_table_that_contradicts_its_files(tmp_path: Path, old: str, new: str, fault: str):
    root = repository(tmp_path)
    change(root, old, new)
    with pytest.raises(DatasetError, match=fault):
        load_esc50(root)


def test_every_missing_and_every_unnamed_file_is_told(tmp_path: Path):
    root = repository(tmp_path)
    for name in ("1-1000-A-0.wav", "2-2049-A-49.wav"):
        (root / "audio" / name).unlink()
    missing = faults_of(root)
    assert len(missing) == 2
    assert "esc50.csv:2: " in missing[0]
    assert missing[1].endswith("2-2049-A-49.wav: no such file")
    for name in ("1-1000-A-0.wav", "2-2049-A-49.wav", "9-1-A-0.wav", "notes.txt"):
        (root / "audio" / name).write_text("x")
    unnamed = faults_of(root)
    assert [fault.split(": ")[0] for fault in unnamed] == [
        str(root / "audio" / "9-1-A-0.wav"),
        str(root / "audio" / "notes.txt"),
    ]
    assert "not named in meta/esc50.csv" in unnamed[0]


def test_a_class_that_is_not_there(tmp_path: Path):
    root = repository(tmp_path)
    table = root / "meta" / "esc50.csv"
    rows = [row for row in table.read_text().splitlines() if ",class_49," not in row]
    table.write_text("\n".join(rows))
    assert "no clips of target 49; expected 0 to 49" in faults_of(root)[0]
    change(root, "class_01", "class_00")
    change(root, "class_01", "class_00")
    change(root, "class_01", "class_00")
    table.write_text(table.read_text() + "\n1-1049-A-49.wav,1,49,class_49,False,1049,A\n")
    assert "two targets are called class_00" in faults_of(root)[0]


@pytest.mark.parametrize("place", ["audio", "meta", ".."])
def test_a_neighbour_of_the_root_is_pointed_out(tmp_path: Path, place: str):
    root = repository(tmp_path / "ESC-50-master")
    (fault,) = faults_of(tmp_path if place == ".." else root / place)
    assert "no meta/esc50.csv in it" in fault
    assert fault.endswith(f"(did you mean {root}?)")


def test_neither_table_nor_folder(tmp_path: Path):
    (fault,) = faults_of(tmp_path)
    assert "did you mean" not in fault
    assert "'audio/FOLD-CLIPID-TAKE-TARGET.wav' with 'meta/esc50.csv'" in fault
    (fault,) = faults_of(tmp_path / "none")
    assert "no such folder" in fault
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text(HEADER)
    (fault,) = faults_of(tmp_path)
    assert f"{tmp_path / 'audio'}: no such folder" in fault


def test_esc10_reads_the_same_table(tmp_path: Path):
    root = repository(tmp_path)
    with pytest.raises(DatasetError, match="category: found 'class_00'; allowed dog, rain"):
        load_esc10(root)


def plan_spec(write_spec, root: Path, **data: object) -> Path:
    return write_spec(
        data={"dataset": "esc50", "root": str(root), **data}, folds={"test": 1, "validate": [2]}
    )


def test_plan(tmp_path: Path, foldgrid, write_spec):
    root = repository(tmp_path / "ESC-50")
    rng = np.random.default_rng(0)
    for clip in (root / "audio").iterdir():
        soundfile.write(clip, rng.normal(0, 0.1, 400), 8000)
    result = foldgrid("plan", plan_spec(write_spec, root))
    assert result.code == 0, result.err
    assert "2 trials = 2 configurations x 1 fold" in result.out


def test_one_recording_in_two_folds_is_refused_by_name(tmp_path: Path, foldgrid, write_spec):
    # As in the release itself, e.g. 4-209698-A-37.wav and 5-209698-A-38.wav.
    root = repository(tmp_path / "ESC-50")
    (root / "audio" / "1-1000-A-0.wav").rename(root / "audio" / "1-2001-A-0.wav")
    change(root, "1-1000-A-0.wav,1,0,class_00,True,1000", "1-2001-A-0.wav,1,0,class_00,True,2001")
    result = foldgrid("plan", plan_spec(write_spec, root))
    assert result.code == 2
    assert "2001" in result.err
    assert "data.allow_leakage: true" in result.err
    result = foldgrid("plan", plan_spec(write_spec, root, allow_leakage=True))
    assert result.code == 0, result.err


def test_a_missing_root_and_a_wrong_one_end_with_one_line(tmp_path: Path, foldgrid, write_spec):
    root = repository(tmp_path / "ESC-50")
    result = foldgrid("plan", write_spec(data={"dataset": "esc50"}))
    assert result.code == 2
    assert "data.root: found nothing; allowed the folder of the clips" in result.err
    result = foldgrid("plan", plan_spec(write_spec, root / "audio"))
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert f"did you mean {root}?" in result.err
