from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from features.clips import Clip, DatasetError
from features.datasets import load_urbansound8k

CLASSES = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)


def release(root: Path) -> Path:
    """UrbanSound8K's layout: ten folds, two slices of one recording for each class in each."""
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    (root / "metadata").mkdir(parents=True)
    for fold in range(1, 11):
        folder = root / "audio" / f"fold{fold}"
        folder.mkdir(parents=True)
        (folder / ".DS_Store").write_text("x")
        for label, name in enumerate(CLASSES):
            source = 1000 * fold + label
            for cut in (0, 1):
                clip = f"{source}-{label}-0-{cut}.wav"
                (folder / clip).write_text(clip)
                rows.append(f"{clip},{source},0.0,4.0,1,{fold},{label},{name}")
    (root / "metadata" / "UrbanSound8K.csv").write_text("\n".join(rows) + "\n")
    (root / "UrbanSound8K_README.txt").write_text("read me")
    return root


def faults_of(root: Path) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as error:
        load_urbansound8k(root)
    return error.value.faults


def test_folds_classes_and_sources(tmp_path: Path):
    dataset = load_urbansound8k(release(tmp_path))
    assert dataset.name == "urbansound8k"
    assert dataset.classes == CLASSES
    assert len(dataset.clips) == 200
    content = hashlib.sha256(b"10003-3-0-1.wav").hexdigest()
    assert Clip("audio/fold10/10003-3-0-1.wav", 3, 10, "10003", content) in dataset.clips
    assert {clip.fold for clip in dataset.clips} == set(range(1, 11))
    assert len({clip.source for clip in dataset.clips}) == 100


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("1000-0-0-0.wav,1000", "1000-0-0-0.wav,1001", "csv:2: fsID: found '1001'; allowed '1000'"),
        ("1,1,0,air_con", "1,1,1,air_con", "csv:2: classID: found '1'; allowed '0', as in 1000-0"),
        ("1,1,0,air_con", "1,1,10,air_con", "csv:2: classID: found '10'; allowed 0 to 9"),
        ("air_conditioner", "siren", "csv:2: class: found 'siren'; allowed 'air_conditioner' for"),
        (
            "1,1,0,air_con",
            "1,2,0,air_con",
            "csv:2: fold: found '2'; allowed '1': 1000-0-0-0",
        ),
        ("1,1,0,air_con", "1,11,0,air_con", "csv:2: fold: found '11'; allowed 1 to 10"),
        (
            "1000-0-0-0.wav",
            "1000-0.wav",
            "csv:2: slice_file_name: found '1000-0.wav'; allowed FS",
        ),
        ("1000-0-0-0.wav", "1000-0-9-9.wav", "csv:2: .*fold1/1000-0-9-9.wav: no such file"),
        ("1000-0-0-1.wav", "1000-0-0-0.wav", "csv:3: audio/fold1/1000-0-0-0.wav is there twice"),
        ("classID", "class_id", "UrbanSound8K.csv:1: no column classID"),
    ],
)
def test_a_table_that_contradicts_its_files(tmp_path: Path, old: str, new: str, fault: str):
    table = release(tmp_path) / "metadata" / "UrbanSound8K.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))
    with pytest.raises(DatasetError, match=fault):
        load_urbansound8k(tmp_path)


def test_missing_unnamed_and_absent_class(tmp_path: Path):
    root = release(tmp_path)
    clip = root / "audio" / "fold3" / "3004-4-0-0.wav"
    clip.unlink()
    (fault,) = faults_of(root)
    assert fault.endswith("fold3/3004-4-0-0.wav: no such file")
    clip.write_text("x")
    (root / "audio" / "fold3" / "copy of 3004-4-0-0.wav").write_text("x")
    (fault,) = faults_of(root)
    assert "copy of 3004-4-0-0.wav: not named in metadata/UrbanSound8K.csv" in fault
    table = root / "metadata" / "UrbanSound8K.csv"
    rows = [row for row in table.read_text().splitlines() if not row.endswith(",siren")]
    table.write_text("\n".join(rows))
    (fault,) = faults_of(root)
    assert "no clips of siren" in fault


@pytest.mark.parametrize("place", ["audio", "audio/fold1", "metadata", ".."])
def test_a_neighbour_of_the_root_is_pointed_out(tmp_path: Path, place: str):
    root = release(tmp_path / "UrbanSound8K")
    (fault,) = faults_of(tmp_path if place == ".." else root / place)
    assert fault.endswith(f"(did you mean {root}?)")


def test_a_folder_without_the_table(tmp_path: Path):
    (fault,) = faults_of(tmp_path)
    assert "no metadata/UrbanSound8K.csv in it; expected UrbanSound8K as 'audio/foldK/" in fault


def test_plan_takes_the_ten_folds(tmp_path: Path, foldgrid, write_spec):
    root = release(tmp_path / "UrbanSound8K")
    rng = np.random.default_rng(0)
    for clip in (root / "audio").rglob("*.wav"):
        soundfile.write(clip, rng.normal(0, 0.1, 400), 8000)
    data = {"dataset": "urbansound8k", "root": str(root)}
    result = foldgrid("plan", write_spec(data=data, folds={"test": 1}))
    assert result.code == 0, result.err
    assert "18 trials = 2 configurations x 9 folds" in result.out
    result = foldgrid("plan", write_spec(data=data | {"root": str(root / "audio")}))
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert f"did you mean {root}?" in result.err
