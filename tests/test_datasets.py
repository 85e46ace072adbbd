"""The loaders: what they find on disk, and how they say what is wrong there."""

import csv
import hashlib
import os
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.clips import Clip, DatasetError
from features.datasets import load_esc10, load_folder, load_manifest, load_synthetic

ESC10_CLASSES = (
    "dog",
    "rain",
    "sea_waves",
    "crying_baby",
    "clock_tick",
    "sneezing",
    "helicopter",
    "chainsaw",
    "rooster",
    "crackling_fire",
)
RELEASE_FOLDERS = (
    "001 - Dog bark",
    "002 - Rain",
    "003 - Sea waves",
    "004 - Baby cry",
    "005 - Clock tick",
    "006 - Person sneeze",
    "007 - Helicopter",
    "008 - Chainsaw",
    "009 - Rooster",
    "010 - Fire crackling",
)


def put(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or str(path))
    return path


def release(root: Path) -> Path:
    """ESC-10's original layout: folds 1 and 2, two takes of one recording in each."""
    for label, folder in enumerate(RELEASE_FOLDERS):
        for fold in (1, 2):
            for take in "AB":
                name = f"{fold}-{1000 * fold + label}-{take}"
                put(root / folder / f"{name}.ogg", name)
    put(root / "README.txt")
    return root


def repository(root: Path) -> Path:
    """The same clips in the layout of the ESC-50 repository, beside one that is not ESC-10's."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for label, category in enumerate(ESC10_CLASSES):
        for fold in (1, 2):
            for take in "AB":
                source = 1000 * fold + label
                put(
                    root / "audio" / f"{fold}-{source}-{take}-{label}.wav",
                    f"{fold}-{source}-{take}",
                )
                name = f"{fold}-{source}-{take}-{label}.wav"
                rows.append(f"{name},{fold},{label},{category},True,{source},{take}")
    put(root / "audio" / "1-7-A-49.wav")
    rows.append("1-7-A-49.wav,1,49,hand_saw,False,7,A")
    put(root / "meta" / "esc50.csv", "\n".join(rows) + "\n")
    return root


def faults_of(error: pytest.ExceptionInfo[DatasetError]) -> tuple[str, ...]:
    assert all("\n" not in fault for fault in error.value.faults)
    return error.value.faults


class TestDatasetError:
    def test_keeps_its_faults_and_survives_a_process_boundary(self):
        error = pickle.loads(pickle.dumps(DatasetError("a: b", "c:\nd")))
        assert error.faults == ("a: b", "c: d")
        assert str(error) == "a: b\nc: d"


class TestEsc10:
    def test_release_layout(self, tmp_path: Path):
        dataset = load_esc10(release(tmp_path))
        assert dataset.name == "esc10"
        assert dataset.root == tmp_path
        assert dataset.classes == ESC10_CLASSES
        assert len(dataset.clips) == 40
        content = hashlib.sha256(b"1-1000-A").hexdigest()
        assert dataset.clips[0] == Clip("001 - Dog bark/1-1000-A.ogg", 0, 1, "1000", content)
        assert [c.path for c in dataset.clips] == sorted(c.path for c in dataset.clips)

    def test_both_layouts_give_the_same_labels_folds_and_sources(self, tmp_path: Path):
        def by_content(root: Path) -> dict[str, tuple[str, int | None, str]]:
            dataset = load_esc10(root)
            assert dataset.classes == ESC10_CLASSES
            return {c.sha256: (dataset.classes[c.label], c.fold, c.source) for c in dataset.clips}

        first = by_content(release(tmp_path / "a"))
        second = by_content(repository(tmp_path / "b"))
        assert len(first) == 40
        assert first == second

    def test_ignores_hidden_files_and_files_in_the_root(self, tmp_path: Path):
        release(tmp_path)
        put(tmp_path / "001 - Dog bark" / ".DS_Store")
        put(tmp_path / "1-1-A.ogg")
        put(tmp_path / ".git" / "config")
        assert len(load_esc10(tmp_path).clips) == 40

    def test_names_every_file_whose_name_does_not_parse(self, tmp_path: Path):
        release(tmp_path)
        wrong = [put(tmp_path / "002 - Rain" / name) for name in ("a.ogg", "x-1-A.ogg", "1-2.ogg")]
        with pytest.raises(DatasetError) as error:
            load_esc10(tmp_path)
        found = faults_of(error)
        assert len(found) == 3
        assert all(any(str(file) in fault for fault in found) for file in wrong)

    def test_missing_class_folder(self, tmp_path: Path):
        release(tmp_path)
        (tmp_path / "003 - Sea waves").rename(tmp_path / "sea waves")
        with pytest.raises(DatasetError, match=r"no class folder 003 \(sea_waves\)"):
            load_esc10(tmp_path)

    def test_class_folder_without_clips(self, tmp_path: Path):
        release(tmp_path)
        for file in (tmp_path / "003 - Sea waves").iterdir():
            file.unlink()
        with pytest.raises(DatasetError, match="no clips of sea_waves"):
            load_esc10(tmp_path)

    def test_number_beyond_the_classes_and_number_twice(self, tmp_path: Path):
        release(tmp_path)
        put(tmp_path / "011 - Hand saw" / "1-1-A.ogg")
        put(tmp_path / "001 - Dogs" / "1-1-A.ogg")
        with pytest.raises(DatasetError) as error:
            load_esc10(tmp_path)
        assert any("011 - Hand saw: not a class" in fault for fault in faults_of(error))
        assert any("001 - Dogs: another folder" in fault for fault in faults_of(error))

    @pytest.mark.parametrize("make", ["missing", "file", "empty", "audio only"])
    def test_no_esc10_there_says_what_was_expected(self, tmp_path: Path, make: str):
        root = tmp_path / "data"
        if make == "file":
            put(root)
        elif make != "missing":
            root.mkdir()
        if make == "audio only":
            put(root / "audio" / "1-1-A-0.wav")
        with pytest.raises(DatasetError) as error:
            load_esc10(root)
        (fault,) = faults_of(error)
        assert fault.startswith(str(root))
        assert "FOLD-CLIPID-TAKE.ogg" in fault
        assert "meta/esc50.csv" in fault

    def test_relative_root_becomes_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        release(tmp_path / "here")
        monkeypatch.chdir(tmp_path)
        assert load_esc10(Path("here")).root == tmp_path / "here"

    @pytest.mark.parametrize(
        ("old", "new", "fault"),
        [
            ("1-1000-A-0.wav,1,0", "1-9999-A-0.wav,1,0", "esc50.csv:2: .*1-9999-A-0.wav: no such"),
            ("1-1000-A-0.wav,1,0", "../x.wav,1,0", "esc50.csv:2: .*no such file"),
            (",0,dog,True,1000,A", ",0,cat,True,1000,A", "esc50.csv:2: category: found 'cat'"),
            ("1-1000-A-0.wav,1,0", "1-1000-A-0.wav,one,0", "esc50.csv:2: fold: found 'one'"),
            ("True,1000,A", "True,,A", "esc50.csv:2: src_file: empty"),
            ("1-1000-B-0.wav", "1-1000-A-0.wav", "esc50.csv:3: .* twice"),
            ("src_file", "clip_id", "esc50.csv:1: no column src_file"),
        ],
    )
    def test_faults_in_the_table(self, tmp_path: Path, old: str, new: str, fault: str):
        table = repository(tmp_path) / "meta" / "esc50.csv"
        text = table.read_text()
        assert old in text
        table.write_text(text.replace(old, new, 1))
        with pytest.raises(DatasetError, match=fault):
            load_esc10(tmp_path)

    def test_table_without_audio_folder_or_not_utf8(self, tmp_path: Path):
        put(tmp_path / "meta" / "esc50.csv", "filename,fold,category,esc10,src_file\n")
        with pytest.raises(DatasetError, match="audio: no such folder"):
            load_esc10(tmp_path)
        (tmp_path / "audio").mkdir()
        with pytest.raises(DatasetError, match="no clips of dog"):
            load_esc10(tmp_path)
        (tmp_path / "meta" / "esc50.csv").write_bytes(b"\xff\xfe")
        with pytest.raises(DatasetError, match="cannot be read"):
            load_esc10(tmp_path)

    @pytest.mark.esc10
    @pytest.mark.skipif("ESC10_DIR" not in os.environ, reason="ESC10_DIR is not set")
    def test_the_real_clips(self):
        dataset = load_esc10(Path(os.environ["ESC10_DIR"]))
        assert len(dataset.clips) == 400
        counts = {(c.label, c.fold): 0 for c in dataset.clips}
        for clip in dataset.clips:
            counts[clip.label, clip.fold] += 1
        assert set(counts.values()) == {8}
        assert {fold for _, fold in counts} == {1, 2, 3, 4, 5}
        folds_of_source: dict[str, set[int | None]] = {}
        for clip in dataset.clips:
            folds_of_source.setdefault(clip.source, set()).add(clip.fold)
        assert all(len(folds) == 1 for folds in folds_of_source.values())


class TestFolder:
    def test_classes_are_the_sorted_folders_and_any_visible_file_is_a_clip(self, tmp_path: Path):
        put(tmp_path / "dog" / "b.wav")
        put(tmp_path / "dog" / "deep" / "a.xyz")
        put(tmp_path / "cat" / "no extension")
        put(tmp_path / "cat" / ".hidden")
        put(tmp_path / "cat" / ".cache" / "x.wav")
        put(tmp_path / ".git" / "x")
        put(tmp_path / "notes.txt")
        dataset = load_folder(tmp_path)
        assert dataset.name == "folder"
        assert dataset.classes == ("cat", "dog")
        assert [(c.path, c.label) for c in dataset.clips] == [
            ("cat/no extension", 0),
            ("dog/b.wav", 1),
            ("dog/deep/a.xyz", 1),
        ]
        assert all(c.fold is None and c.source == c.path for c in dataset.clips)
        assert (
            dataset.clips[1].sha256
            == hashlib.sha256((tmp_path / "dog" / "b.wav").read_bytes()).hexdigest()
        )

    def test_source_pattern(self, tmp_path: Path):
        for name in ("cat/s1_a.wav", "cat/s2_a.wav", "dog/deep/s1_b.wav"):
            put(tmp_path / name)
        clips = load_folder(tmp_path, r"(s\d)_").clips
        assert [c.source for c in clips] == ["s1", "s2", "s1"]
        assert load_folder(tmp_path, r"^(\w+)/").clips[2].source == "dog"

    @pytest.mark.parametrize("pattern", [r"(s\d)_", r"s|(x)"])
    def test_clips_without_a_source_are_named(self, tmp_path: Path, pattern: str):
        put(tmp_path / "cat" / "s1_a.wav")
        other = put(tmp_path / "dog" / "sound.wav")
        with pytest.raises(DatasetError) as error:
            load_folder(tmp_path, pattern)
        assert faults_of(error)[-1].startswith(f"{other}: ")

    @pytest.mark.parametrize("pattern", ["(unclosed", "no group"])
    def test_wrong_patterns(self, tmp_path: Path, pattern: str):
        with pytest.raises(DatasetError, match=r"data\.source_pattern: found"):
            load_folder(tmp_path, pattern)

    def test_too_few_classes_and_empty_classes(self, tmp_path: Path):
        with pytest.raises(DatasetError, match="no class folders"):
            load_folder(tmp_path)
        (tmp_path / "cat").mkdir()
        with pytest.raises(DatasetError, match="one class folder"):
            load_folder(tmp_path)
        put(tmp_path / "dog" / "a.wav")
        put(tmp_path / "cat" / ".hidden")
        with pytest.raises(DatasetError, match="cat: no clips"):
            load_folder(tmp_path)

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path):
        root = tmp_path / "data"
        outside = put(tmp_path / "outside" / "c.wav", "outside")
        put(root / "cat" / "a.wav")
        (root / "dog").mkdir()
        (root / "dog" / "file.wav").symlink_to(outside)
        (root / "cat" / "again").symlink_to(root / "cat")
        (root / "cat" / "up").symlink_to(root)
        (root / "cat" / "everything").symlink_to("/")
        (root / "owl").symlink_to(outside.parent)
        dataset = load_folder(root)
        assert [c.path for c in dataset.clips] == ["cat/a.wav", "dog/file.wav", "owl/c.wav"]

    def test_unreadable_files_are_all_named(self, tmp_path: Path):
        put(tmp_path / "cat" / "a.wav")
        put(tmp_path / "dog" / "a.wav")
        (tmp_path / "cat" / "gone.wav").symlink_to(tmp_path / "nowhere")
        os.mkfifo(tmp_path / "dog" / "pipe.wav")
        with pytest.raises(DatasetError) as error:
            load_folder(tmp_path)
        assert faults_of(error) == (
            f"{tmp_path}/cat/gone.wav: cannot be read: No such file or directory",
            f"{tmp_path}/dog/pipe.wav: not a regular file",
        )

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_files_and_folders_without_permission(self, tmp_path: Path):
        put(tmp_path / "cat" / "a.wav")
        locked = put(tmp_path / "dog" / "a.wav")
        locked.chmod(0)
        with pytest.raises(DatasetError, match=r"a\.wav: cannot be read: Permission denied"):
            load_folder(tmp_path)
        locked.parent.chmod(0)
        try:
            with pytest.raises(DatasetError, match="dog: cannot be read: Permission denied"):
                load_folder(tmp_path)
        finally:
            locked.parent.chmod(0o700)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
    def test_name_that_is_not_utf8(self, tmp_path: Path):
        put(tmp_path / "cat" / "a.wav")
        (tmp_path / "dog").mkdir()
        Path(os.fsdecode(os.fsencode(tmp_path / "dog") + b"/\xff.wav")).write_text("x")
        with pytest.raises(DatasetError, match="not valid UTF-8") as error:
            load_folder(tmp_path)
        str(error.value).encode()

    def test_fingerprint_follows_content_and_not_place(self, tmp_path: Path):
        for root in (tmp_path / "one", tmp_path / "two"):
            put(root / "cat" / "a.wav", "meow")
            put(root / "dog" / "b.wav", "woof")
        one, two = load_folder(tmp_path / "one"), load_folder(tmp_path / "two")
        assert one.fingerprint() == two.fingerprint()
        put(tmp_path / "two" / "dog" / "b.wav", "howl")
        assert load_folder(tmp_path / "two").fingerprint() != one.fingerprint()


class TestManifest:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for name in ("a.wav", "b.wav", "sub/c.wav", "käse 1.wav"):
            put(tmp_path / "clips" / name)
        return tmp_path / "clips"

    def write(self, root: Path, text: str) -> Path:
        manifest = root.parent / "m.csv"
        manifest.write_bytes(text.encode())
        return manifest

    def faults(self, root: Path, text: str) -> tuple[str, ...]:
        manifest = self.write(root, text)
        with pytest.raises(DatasetError) as error:
            load_manifest(manifest, root)
        found = faults_of(error)
        assert all(fault.startswith(str(manifest)) for fault in found)
        return tuple(fault.removeprefix(str(manifest)) for fault in found)

    def test_path_and_label(self, root: Path):
        dataset = load_manifest(self.write(root, "path,label\nb.wav,y\na.wav,x\n"), root)
        assert dataset.name == "manifest"
        assert dataset.classes == ("x", "y")
        assert [(c.path, c.label, c.fold, c.source) for c in dataset.clips] == [
            ("a.wav", 0, None, "a.wav"),
            ("b.wav", 1, None, "b.wav"),
        ]

    def test_every_column_in_any_order_with_bom_and_crlf_and_quotes(self, root: Path):
        text = '\ufefflabel,source,fold,path\r\n"x, y",s1,0,käse 1.wav\r\n'
        text += "\r\nz,,3,./sub/../sub/c.wav\r\n"
        clips = load_manifest(self.write(root, text), root).clips
        assert [(c.path, c.label, c.fold, c.source) for c in clips] == [
            ("käse 1.wav", 0, 0, "s1"),
            ("sub/c.wav", 1, 3, "sub/c.wav"),
        ]

    def test_empty_fold_column_means_no_folds(self, root: Path):
        clips = load_manifest(self.write(root, "path,label,fold\na.wav,x,\nb.wav,y,\n"), root).clips
        assert [c.fold for c in clips] == [None, None]

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", ":1: empty; expected the columns"),
            ("path,label\n", ": no clips"),
            ("path,label\na.wav,x\nb.wav,x\n", ": one label"),
            ("path,lable\na.wav,x\n", ":1: found the column 'lable'; allowed path, label"),
            ("path\na.wav\n", ":1: no column 'label'"),
            ("path,label,path\n", ":1: the column 'path' is there twice"),
            ("path,label\na.wav,x\nb.wav\n", ":3: found 1 cells; allowed 2"),
            ("path,label\na.wav,x\nb.wav,y,z\n", ":3: found 3 cells; allowed 2"),
            ("path,label\na.wav,x\nno.wav,y\n", ":3: path: found 'no.wav'; no such file"),
            ("path,label\na.wav,x\nsub\\c.wav,y\n", "forward slashes"),
            ("path,label\na.wav,x\nsub,y\n", ":3: path: found 'sub'; no such file"),
            ("path,label\na.wav,x\n,y\n", ":3: path: found ''"),
            ("path,label\na.wav,x\n\0,y\n", ":3: path: found"),
            ("path,label\na.wav,x\n../m.csv,y\n", ":3: path: found '../m.csv'; allowed a relative"),
            ("path,label\na.wav,x\nsub/../../m.csv,y\n", ":3: path: found 'sub/../../m.csv'"),
            ("path,label\na.wav,x\n/etc/passwd,y\n", ":3: path: found '/etc/passwd'"),
            ("path,label\na.wav,x\nb.wav, \n", ":3: label: empty"),
            ("path,label,fold\na.wav,x,1\nb.wav,y,-1\n", ":3: fold: found '-1'"),
            ("path,label,fold\na.wav,x,1\nb.wav,y,1.0\n", ":3: fold: found '1.0'"),
            ("path,label,fold\na.wav,x,1\nb.wav,y,²\n", ":3: fold: found '²'"),
            ("path,label,fold\na.wav,x,1\nb.wav,y,\n", ":3: fold: empty"),
            ("path,label\na.wav,x\nb.wav,y\n./a.wav,y\n", ":4: path: found 'a.wav' again; line 2"),
            ('path,label\n"a.wav,x\n', ":2: not CSV"),
            ('path,label\na.wav,"x\ny"\nno.wav,z\n', ":4: path: found 'no.wav'"),
        ],
    )
    def test_one_fault(self, root: Path, text: str, fault: str):
        (found,) = self.faults(root, text)
        assert fault in found
        assert found.startswith(fault.partition(" ")[0] if fault[0] == ":" else ":")

    def test_all_faults_at_once(self, root: Path):
        found = self.faults(root, "path,label,fold\nno.wav,,x\na.wav,x,1\na.wav,y\nb.wav,y,\n")
        assert [fault.split(" ")[0] for fault in found] == [":2:", ":2:", ":2:", ":4:", ":5:"]

    def test_not_utf8_names_the_line(self, root: Path):
        manifest = self.write(root, "")
        manifest.write_bytes(b"path,label\na.wav,x\nb\xff.wav,y\n")
        with pytest.raises(DatasetError, match=r"m\.csv:3: not valid UTF-8"):
            load_manifest(manifest, root)

    def test_missing_manifest_and_missing_root(self, root: Path):
        with pytest.raises(DatasetError, match=r"no\.csv: cannot be read"):
            load_manifest(root / "no.csv", root)
        manifest = self.write(root, "path,label\na.wav,x\n")
        with pytest.raises(DatasetError, match="nowhere: no such folder"):
            load_manifest(manifest, root / "nowhere")

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        rows=st.dictionaries(
            st.sampled_from(["a.wav", "b.wav", "sub/c.wav", "käse 1.wav"]),
            st.tuples(
                st.text(
                    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1
                ).filter(lambda label: label == label.strip()),
                st.integers(0, 10**9 - 1),
            ),
            min_size=2,
        ).filter(lambda rows: len({label for label, _ in rows.values()}) > 1)
    )
    def test_what_is_written_is_read(self, root: Path, rows: dict[str, tuple[str, int]]):
        manifest = root.parent / "m.csv"
        with manifest.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "fold"])
            writer.writerows((path, label, fold) for path, (label, fold) in rows.items())
        dataset = load_manifest(manifest, root)
        found = {c.path: (dataset.classes[c.label], c.fold) for c in dataset.clips}
        assert found == rows
        assert list(dataset.classes) == sorted({label for label, _ in rows.values()})


class TestSynthetic:
    def test_ten_classes_in_five_folds(self):
        dataset = load_synthetic()
        assert dataset.root is None
        assert len(dataset.classes) == 10
        assert len(dataset.clips) == len({c.sha256 for c in dataset.clips}) == 400
        cells = [(c.label, c.fold) for c in dataset.clips]
        assert all(cells.count((k, f)) == 8 for k in range(10) for f in range(1, 6))
        assert [c.path for c in dataset.clips] == sorted(c.path for c in dataset.clips)
        for clip in dataset.clips:
            assert clip.path.startswith(f"fold{clip.fold}/{dataset.classes[clip.label]}-")
        assert dataset.fingerprint() == load_synthetic().fingerprint()


def test_planning_imports_no_audio_library():
    code = (
        "import sys, features.datasets as d; d.load_synthetic();"
        "print([m for m in ('numpy', 'scipy', 'soundfile', 'soxr', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unicode_names_survive(tmp_path: Path):
    name = unicodedata.normalize("NFC", "größe 🎧.wav")
    put(tmp_path / "cat" / name)
    put(tmp_path / "dog" / "a.wav")
    assert unicodedata.normalize("NFC", load_folder(tmp_path).clips[0].path) == f"cat/{name}"
