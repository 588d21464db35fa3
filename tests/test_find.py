"""What people have: folders of any depth, archives, manifests, data sets of Hugging Face; and what is wrong with them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fovea import FoveaError, load_data
from fovea.config import DataConfig
from fovea.data.find import find, folder_name, same
from fovea.data.types import RawData


def png(seed: int) -> bytes:
    """A picture that no other seed gives."""
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "png")
    return data.getvalue()


def write(path: str | Path, data: bytes | str = b"") -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def class_folders(root: str, **counts: int) -> None:
    for seed, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write(f"{root}/{name}/{number}.png", png(100 * seed + number))


def look(name: str, **options: Any) -> RawData:
    return find(DataConfig(name=name, **options))


def labelled(raw: RawData) -> dict[str, dict[str, str]]:
    """Split to id to class."""
    return {
        name: {i: raw.classes[label] for i, label in zip(split.ids, split.labels, strict=True)}
        for name, split in raw.splits.items()
    }


def refusal(name: str, *parts: str, **options: Any) -> str:
    with pytest.raises(FoveaError) as caught:
        look(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


# -- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["", "images/", "a/b/c/"])
def test_folders_around_the_classes_are_looked_through(around: str) -> None:
    class_folders(f"pets/{around}", cat=2, dog=1)
    write("pets/readme.txt")
    assert labelled(look("pets")) == {
        "train": {f"{around}cat/0.png": "cat", f"{around}cat/1.png": "cat", f"{around}dog/0.png": "dog"}
    }


@pytest.mark.parametrize("around", ["", "archive/pets/"])
def test_splits_are_found_at_any_depth_and_in_any_case(around: str) -> None:
    class_folders(f"pets/{around}TRAINING", cat=2, dog=2)
    class_folders(f"pets/{around}valid/images", cat=1, dog=1)  # a folder around the classes of one split only
    class_folders(f"pets/{around}Testing", dog=1)  # one class: no folder around others
    raw = look("pets")
    assert raw.classes == ("cat", "dog")
    assert {name: split.labels for name, split in raw.splits.items()} == {
        "train": [0, 0, 1, 1], "val": [0, 1], "test": [1],
    }  # fmt: skip
    assert raw.splits["test"].ids == [f"{around}Testing/dog/0.png"]


def test_folders_below_a_class_belong_to_it() -> None:
    class_folders("pets/test/dog", a=1, b=1)
    class_folders("pets/train/dog", a=1, b=1)
    class_folders("pets/train/cat", a=1)
    raw = look("pets")
    assert raw.classes == ("cat", "dog")
    assert raw.splits["test"].labels == [1, 1]


def test_what_is_no_picture_by_its_name_is_left_out_and_counted() -> None:
    class_folders("pets", cat=2, dog=2)
    for name in (
        "cat/a.TXT",
        "cat/b.json",
        "dog/c.json",
        "Thumbs.db",
        "__MACOSX/cat/x.png",
        "cat/._0.png",
        ".DS_Store",
    ):
        write(f"pets/{name}")
    write("pets/dog/unknown.xyz")
    raw = look("pets")
    assert len(raw.splits["train"].ids) == 5, "a file of an unknown ending may be a picture"
    assert raw.notes == ("pets: left out files that are no pictures by their endings (.json 2, .txt 1)",)


def test_what_lies_beside_the_splits_is_named() -> None:
    class_folders("pets/train", cat=2, dog=2)
    write("pets/test/1.png", png(1))  # without labels, as competitions have it
    write("pets/train/loose.png", png(2))
    raw = look("pets")
    assert list(raw.splits) == ["train"]
    assert raw.notes == (
        "pets: left out test (1 picture), as beside train it is no split", "pets: left out 1 picture in no class folder",
    )  # fmt: skip


def test_splits_without_classes_are_refused() -> None:
    write("pets/train/1.png", png(1))
    write("pets/test/2.png", png(2))
    refusal("pets", "pets has test, train", "pets/train/<class>/", "manifest")
    write("flat/1.png", png(1))
    write("flat/old.zip")
    refusal("flat", "flat/<class>/", "old.zip")


def test_a_link_in_a_circle_is_named_or_left_out() -> None:
    class_folders("pets", cat=2, dog=2)
    os.symlink("..", "pets/cat/up")
    os.symlink("self", "pets/dog/self")
    refusal("pets", "pets/cat/up: a link that leads back", "pets/dog/self", "--skip-bad")
    raw = look("pets", skip_bad=True)
    assert len(raw.splits["train"].ids) == 4
    assert set(raw.bad) == {"cat/up", "dog/self"}


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Root may read everything: as nobody, below the folder of the test."""
    was_root = os.geteuid() == 0
    if was_root:
        os.chmod(".", 0o755)
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def test_folders_and_files_without_permission_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders("pets", cat=3, dog=3)
    class_folders("pets/dog", secret=1)
    write("closed.zip")
    write("file")
    monkeypatch.setenv("FOVEA_CACHE", "file")  # no folder: pictures are decoded in memory
    for path in ("pets/dog/secret", "pets/cat/1.png", "closed.zip"):
        os.chmod(path, 0)
    with without_rights():
        refusal("closed.zip", "closed.zip", "no permission")
        refusal("pets", "pets/dog/secret: no permission", "--skip-bad")
        data = load_data("pets", image_size=8, skip_bad=True)
    os.chmod("pets/dog/secret", 0o755)  # for whoever tidies up
    assert set(data.facts.skipped) == {"dog/secret", "cat/1.png"}
    assert "ermission denied" in data.facts.skipped["cat/1.png"]
    assert sum(map(len, data.splits.values())) == 5


def test_a_file_that_vanishes_after_the_scan_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders("pets", cat=3, dog=3)

    def find_and_lose(config: DataConfig) -> RawData:
        raw = find(config)
        Path("pets/cat/1.png").unlink(missing_ok=True)
        return raw

    monkeypatch.setattr("fovea.data.prepare.find", find_and_lose)
    with pytest.raises(FoveaError, match=r"pets/cat/1\.png.*No such file"):
        load_data("pets", image_size=8)
    write("pets/cat/1.png", png(1))
    assert set(load_data("pets", image_size=8, skip_bad=True).facts.skipped) == {"cat/1.png"}
    write("pets/cat/1.png", png(1))
    monkeypatch.setattr("fovea.data.prepare.find", find)
    assert not load_data("pets", image_size=8).facts.skipped, "it is back, and the cache does not say otherwise"


@pytest.mark.skipif(sys.platform == "darwin", reason="this file system takes no name that is no UTF-8")
def test_a_name_that_is_no_utf8_is_shown_by_its_bytes() -> None:
    class_folders("pets", cat=2, dog=2)
    with open(b"pets/cat/\xe4.png", "wb") as file:
        file.write(png(1))
    refusal("pets", r"pets/cat/\xe4.png: its name is no UTF-8")
    assert len(look("pets", skip_bad=True).splits["train"].ids) == 4


def test_a_pipe_does_not_hang() -> None:
    class_folders("pets", cat=2, dog=2)
    os.mkfifo("pets/cat/pipe.png")
    assert len(look("pets").splits["train"].ids) == 4


# -- archives ------------------------------------------------------------------------------------------------------


def pack(folder: str, ending: str) -> str:
    kind = {"zip": "zip", "tar": "tar", "tgz": "gztar", "tar.gz": "gztar", "tar.bz2": "bztar", "tar.xz": "xztar"}[
        ending
    ]
    made = shutil.make_archive("made", kind, ".", folder)
    return str(Path(made).rename(f"{folder}.{ending}"))


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_is_read_as_its_folder_is(ending: str) -> None:
    class_folders("pets/train", Käfer=3, 猫=2)
    class_folders("pets/test", Käfer=1, 猫=2)
    write("pets/train/猫/.hidden.png")
    archive = pack("pets", ending)
    there, packed = look("pets"), look(archive)
    before = sorted(Path.cwd().rglob("*"))
    assert packed.classes == there.classes
    for name, split in there.splits.items():
        assert packed.splits[name].ids == [f"pets/{i}" for i in split.ids]
        assert packed.splits[name].labels == split.labels
        twice = list(zip(split.images, packed.splits[name].images, strict=True)) * 10
        with ThreadPoolExecutor(8) as pool:  # as they are decoded
            assert all(pool.map(lambda pair: pair[0].read_bytes() == pair[1].read_bytes(), twice))
    first = packed.splits["train"].images[0]
    assert str(first) == f"{archive}/pets/train/Käfer/0.png"
    signatures = [picture.signature() for split in packed.splits.values() for picture in split.images]
    assert len(set(signatures)) == 8
    assert signatures == [p.signature() for split in look(archive).splits.values() for p in split.images]
    assert sorted(Path.cwd().rglob("*")) == before, "nothing is unpacked"


def test_a_changed_member_has_another_signature() -> None:
    for seed in (1, 2):
        class_folders("pets", cat=1, dog=1)
        write("pets/cat/0.png", png(seed))
        shutil.make_archive(f"pets{seed}", "zip", "pets")
    one, two = (look(f"pets{seed}.zip").splits["train"].images for seed in (1, 2))
    assert one[0].signature() != two[0].signature()
    assert one[1].signature() == two[1].signature()


def test_an_archive_may_hold_a_manifest() -> None:
    for number in range(4):
        write(f"lab/images/{number}.png", png(number))
    write("lab/labels.csv", "path,label\n" + "".join(f"images/{n}.png,{'ab'[n % 2]}\n" for n in range(4)))
    for ending in ("zip", "tar.gz"):
        (split,) = look(pack("lab", ending)).splits.values()
        assert split.labels == [0, 1, 0, 1]
        assert [picture.read_bytes() for picture in split.images] == [png(number) for number in range(4)]
    assert look("lab").splits["train"].labels == [0, 1, 0, 1], "and so may a folder"


def zipped(name: str = "a.zip", **members: bytes) -> str:
    with zipfile.ZipFile(name, "w") as file:
        for member, data in members.items():
            file.writestr(member, data)
    return name


@pytest.mark.parametrize("member", ["../x.png", "cat/../../x.png", "/etc/x.png", "C:\\x.png", "..\\x.png"])
def test_a_member_that_leads_out_is_refused_by_name(member: str) -> None:
    refusal(zipped(**{"cat/1.png": png(1), member: png(2)}), "a.zip", repr(member).replace("\\\\", "\\"), "refused")
    with tarfile.open("a.tar", "w") as file:
        file.addfile(tarfile.TarInfo(member))
    refusal("a.tar", "a.tar", "refused")


def patched(path: str, *changes: tuple[bytes, int, bytes]) -> str:
    """Overwrite bytes at an offset from each place where a signature stands."""
    data = bytearray(Path(path).read_bytes())
    for signature, offset, value in changes:
        at = data.find(signature)
        while at >= 0:
            data[at + offset : at + offset + len(value)] = value
            at = data.find(signature, at + 4)
    Path(path).write_bytes(data)
    return path


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"  # of the zip format: APPNOTE 4.3.7 and 4.3.12


def test_encrypted_and_huge_members_are_refused() -> None:
    made = zipped(**{"cat/1.png": png(1), "dog/1.png": png(2)})
    refusal(patched(made, (LOCAL, 6, b"\x01"), (CENTRAL, 8, b"\x01")), "a.zip", "encrypted", "cat/1.png")
    made = zipped(**{"cat/1.png": png(1), "dog/1.png": png(2)})
    refusal(patched(made, (CENTRAL, 24, struct.pack("<I", 0xF0000000))), "cat/1.png", "4.0 GB")
    with tarfile.open("bomb.tar.gz", "w:gz") as file:
        info = tarfile.TarInfo("cat/1.png")
        info.size = 5 << 30
        file.addfile(info)
    refusal("bomb.tar.gz", "bomb.tar.gz", "cat/1.png", "5.4 GB")


def test_a_damaged_member_is_named_when_it_is_read() -> None:
    whole = zipped(**{f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(3)})
    data = bytearray(Path(whole).read_bytes())
    data[data.index(png(1)) + 40] ^= 1  # the first of cat/1.png and dog/1.png, which are stored as they are
    Path(whole).write_bytes(data)
    loaded = load_data(whole, image_size=8, skip_bad=True)
    (line,) = loaded.facts.skipped.values()
    assert line.startswith("a.zip/cat/1.png: damaged in the archive (Bad CRC-32")


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_damaged_archive_is_refused(ending: str) -> None:
    class_folders("pets", cat=2, dog=2)
    name = pack("pets", ending)
    content = Path(name).read_bytes()
    for damaged in (content[: len(content) // 2], b"no archive", b""):
        Path(name).write_bytes(damaged)
        if not (ending == "tar" and not damaged):
            refusal(name, name, "damaged")


def test_a_temporary_folder_without_room_is_said_and_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders("pets", cat=2, dog=2)
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or SimpleNamespace(free=100))
    pictures = look(pack("pets", "tar.gz")).splits["train"].images
    for picture in pictures:
        with pytest.raises(FoveaError, match=r"pets\.tar\.gz cannot be decompressed.*TMPDIR"):
            picture.read_bytes()
    assert len(asked) == 1


def test_links_in_an_archive_are_left_out_and_counted() -> None:
    class_folders("pets", cat=2, dog=2)
    os.symlink("/etc/passwd", "pets/cat/out.png")
    assert look(pack("pets", "tar")).notes == ("pets.tar: left out 1 links, which point to files elsewhere",)
    info = zipfile.ZipInfo("cat/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile("a.zip", "w") as file:
        for name in ("cat/1.png", "dog/1.png"):
            file.writestr(name, png(1))
        file.writestr(info, "/etc/passwd")
    raw = look("a.zip")
    assert len(raw.splits["train"].ids) == 2
    assert len(raw.notes) == 1


def test_names_that_an_archiver_wrote_in_utf8_without_saying_so() -> None:
    made = zipped(**{"Käfer/1.png": png(1), "猫/1.png": png(2)})
    assert look(patched(made, (LOCAL, 7, b"\x00"), (CENTRAL, 9, b"\x00"))).classes == ("Käfer", "猫")


# -- manifests -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures() -> None:
    for name in "abcdefgh":
        write(f"data/images/{name}.png", png(ord(name)))


def manifest(*rows: str, name: str = "data/list.csv", header: str = "path,label") -> str:
    return str(write(name, "\n".join([header, *rows]) + "\n"))


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
def test_a_manifest(separator: str, start: bytes) -> None:
    rows = [
        ("path", "label", "split"),
        ("images/a.png", "猫", "train"),
        ("./images/b.png", "dog, small; wet", "Training"),
    ]
    rows += [("images\\c.png", "猫", "valid"), (str(Path("data/images/d.png").resolve()), "猫", "TEST")]
    lines = [separator.join(f'"{cell}"' for cell in row) for row in rows]
    write("data/list.csv", start + "\r\n".join([*lines, "", ""]).encode())
    raw = look("data/list.csv")
    assert raw.classes == ("dog, small; wet", "猫")
    absolute = str(Path("data/images/d.png").resolve())
    assert labelled(raw) == {
        "train": {"images/a.png": "猫", "images/b.png": "dog, small; wet"}, "val": {"images/c.png": "猫"},
        "test": {absolute: "猫"},
    }  # fmt: skip
    assert raw.splits["train"].images[0].read_bytes() == png(ord("a"))


@pytest.mark.usefixtures("pictures")
def test_columns_of_other_names() -> None:
    name = manifest("images/a.png,1,x", "images/b.png,10,x", "images/c.png,9,y", header="img,kind,who")
    refusal(name, "no column 'path' (there are img, kind, who)", "--columns path=NAME")
    raw = look(name, columns=("path=img", "label=kind"), group="who")
    assert raw.classes == ("1", "9", "10"), "numbers stand in their order"
    assert raw.splits["train"].groups == ["x", "x", "y"]
    refusal(name, "no column 'knd' for --columns label=knd (did you mean 'kind'?)", columns=("path=img", "label=knd"))
    refusal(name, "unknown role 'pth' (did you mean 'path'?)", columns=("pth=img",))
    refusal(name, "role=column", columns=("img",))
    refusal(
        name,
        "no column 'whom' for --group whom (did you mean 'who'?)",
        columns=("path=img", "label=kind"),
        group="whom",
    )
    refusal("digits", "--columns is for your own pictures", columns=("path=img",))


WRONG_ROWS = [
    ("images/x.png,dog,train", "row 4: no file images/x.png below data"),
    ("images/aa.png,dog,train", "row 4: no file images/aa.png below data (did you mean 'images/a.png'?)"),
    ("images,dog,train", "row 4: no file images"),
    (",dog,train", "row 4: no path"),
    ("images/e.png,,train", "row 4: images/e.png has no label"),
    ("images/e.png,dog,trian", "row 4: unknown split 'trian' (did you mean 'train'?)"),
    ("images/e.png,dog,", "row 4: images/e.png has no split"),
    ("images/e.png,dog", "row 4: 2 cells, where the first row names 3 columns"),
    ("images/e.png,cow,test", "row 4: the class 'cow' of test is none of train's"),
    ("images/a.png,cat,train", "row 4: images/a.png stands in row 2 already"),
    ("./images/a.png,dog,train", "row 4: images/a.png stands in row 2 already, as 'cat' and not as 'dog'"),
    ("images/a.png,cat,test", "row 4: images/a.png stands in row 2 already, in train and not in test"),
    ("https://x.org/a.png,cat,test", "row 4: https://x.org/a.png is an address"),
]


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(("row", "why"), WRONG_ROWS, ids=[row for row, _ in WRONG_ROWS])
def test_a_wrong_row_is_named_or_left_out(row: str, why: str) -> None:
    rows = ["images/a.png,cat,train", "images/b.png,dog,train", row, "images/c.png,cat,train", "images/d.png,dog,test"]
    name = manifest(*rows, header="path,label,split")
    refusal(name, f"data/list.csv {why}", "--skip-bad")
    raw = look(name, skip_bad=True)
    assert list(raw.bad) == ["row 4"]
    left = {"images/a.png": "cat", "images/b.png": "dog", "images/c.png": "cat"}
    if "not" in why:  # two rows that contradict each other: neither is believed
        del left["images/a.png"]
    assert labelled(raw) == {"train": left, "test": {"images/d.png": "dog"}}


@pytest.mark.usefixtures("pictures")
def test_a_manifest_that_cannot_be_read() -> None:
    for content, why in (
        ("path,label\nimages/a.png,cat\nimages/b.png,Käfer\n".encode("latin-1"), "no UTF-8 text (row 3)"),
        ("path,label\nimages/a.png,cat\n".encode("utf-16"), "UTF-16"),
        (b"", "is empty"),
        (b"path,label\n", "no pictures"),
        (b"path,label\nx.png,cat\ny.png,dog\n", "none of the 2 rows"),
        (b'path,label\n"images/a.png,cat\n', "no CSV"),
        (b"path,label,label\nimages/a.png,cat,dog\n", "two columns 'label'"),
        (b"PK\0\0", "no text"),
    ):
        write("data/list.csv", content)
        refusal("data/list.csv", "data/list.csv", why)
    write("data/list.xlsx")
    refusal("data/list.xlsx", "save it as CSV")


@pytest.mark.usefixtures("pictures")
def test_a_parquet_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"path": ["images/a.png", "images/b.png", "images/x.png", "images/c.png"], "label": [10.0, 9.0, 9.0, None]}
    parquet.write_table(pyarrow.table(table), "data/list.parquet")
    refusal("data/list.parquet", "row 3: no file images/x.png", "row 4: images/c.png has no label")
    assert labelled(look("data/list.parquet", skip_bad=True)) == {"train": {"images/a.png": "10", "images/b.png": "9"}}
    write("data/bad.parquet", b"PAR1 no more")
    refusal("data/bad.parquet", "data/bad.parquet cannot be read as Parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refusal("data/list.parquet", 'pip install "fovea[parquet]"', "CSV")


@pytest.mark.usefixtures("pictures")
def test_a_group_on_two_sides_of_a_given_split_is_refused() -> None:
    rows = ["images/a.png,cat,train,p1", "images/b.png,dog,train,p2", "images/c.png,dog,test,p2"]
    name = manifest(*rows, header="path,label,split,group")
    refusal(name, "the group 'p2' is in train and in test", "--group none")
    assert look(name, group="none").splits["test"].groups is None


# -- Hugging Face --------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets`, which asks no network and keeps its cache in the test's folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return datasets


def rows_of(datasets: Any, count: int, names: tuple[str, ...] = ("cat", "dog"), **more: Any) -> Any:
    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(names)),
        "who": datasets.Value("string"),
    }
    values = {
        "image": [{"bytes": png(n), "path": f"{n}.png"} for n in range(count)],
        "label": [n % 2 for n in range(count)], "who": [f"w{n // 4}" for n in range(count)],
    }  # fmt: skip
    return datasets.Dataset.from_dict(values | more, features=datasets.Features(kinds))


def test_a_saved_data_set(hub: Any) -> None:
    data = hub.DatasetDict({"train": rows_of(hub, 6), "validation": rows_of(hub, 2), "extra": rows_of(hub, 2)})
    data.save_to_disk("saved")
    raw = look("saved", group=None)
    assert raw.classes == ("cat", "dog")
    assert raw.splits["train"].labels == [0, 1, 0, 1, 0, 1]
    assert raw.splits["val"].ids == ["val/0", "val/1"]
    assert [picture.read_bytes() for picture in raw.splits["train"].images] == [png(n) for n in range(6)]
    assert str(raw.splits["train"].images[3]) == "saved/train/3"
    assert raw.notes == ("saved: left out extra, which are no splits",)
    signatures = {picture.signature() for picture in raw.splits["train"].images}
    assert len(signatures) == 6
    assert signatures == {picture.signature() for picture in look("saved").splits["train"].images}
    rows_of(hub, 6).save_to_disk("single")
    assert look("single", group="who").splits["train"].groups == ["w0"] * 4 + ["w1"] * 2
    write("single/data-00000-of-00001.arrow", b"damaged")
    refusal("single", "single cannot be read")


def test_parquet_shards(hub: Any) -> None:
    for split, count in (("train", 6), ("test", 2)):
        rows_of(hub, count).to_parquet(write(f"shards/data/{split}-00000-of-00001.parquet"))
    raw = look("shards")
    assert {name: split.labels for name, split in raw.splits.items()} == {"train": [0, 1] * 3, "test": [0, 1]}
    assert raw.splits["test"].images[1].read_bytes() == png(1)
    (split,) = look("shards/data/test-00000-of-00001.parquet").splits.values()
    assert split.labels == [0, 1]


def test_labels_and_columns_that_are_not_plain(hub: Any) -> None:
    test = rows_of(hub, 2, label=[-1, -1])
    hub.DatasetDict({"train": rows_of(hub, 4, label=[0, 1, -1, 1]), "test": test}).save_to_disk("saved")
    refusal("saved", "saved/train/2: no label")
    raw = look("saved", skip_bad=True)
    assert raw.splits["train"].labels == [0, 1, 1]
    assert raw.notes == ("saved: left out test, which has no labels",)
    two = rows_of(hub, 4).add_column("fine", [0, 1, 2, 3]).cast_column("fine", hub.ClassLabel(names=list("abcd")))
    two.save_to_disk("two")
    refusal("two", "the columns label, fine", "--columns label=NAME")
    assert look("two", columns=("label=fine",)).classes == ("a", "b", "c", "d")
    refusal("two", "no column 'fin' for label (did you mean 'fine'?)", columns=("label=fin",))


def test_a_name_on_the_hub_without_a_network_or_the_extra(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(*words: Any, **options: Any) -> None:
        asked.append((words, options))
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(hub, "load_dataset", unreachable)
    refusal("hf:owner/name:small", "hf:owner/name", "cannot be reached", "save_to_disk")
    assert asked == [(("owner/name", "small"), {"revision": None})]
    monkeypatch.setitem(sys.modules, "datasets", None)
    refusal("hf:owner/name", 'pip install "fovea[hf]"')


# -- names ---------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_told_the_nearest() -> None:
    class_folders("pictures", cat=2, dog=2)
    pack("pictures", "zip")
    Path("archive.rar").touch()
    for name, parts in {
        "picture.zip": ["(did you mean 'pictures.zip'?)"], "./pictrues": ["(did you mean 'pictures'?)"],
        "pictrues": ["(did you mean 'pictures'?)"], "cifar": ["(did you mean 'cifar10'?)", "a folder of class folders"],
        "someone/pets": ["hf:someone/pets"], "pictures/cat/0.png": ["one picture", "fovea predict"],
        "archive.rar": ["archive.rar", "zip"], "~nobody-here/pets": ["~nobody-here/pets"],
    }.items():  # fmt: skip
        refusal(name, *parts)


def test_names_for_runs() -> None:
    class_folders("my/pets", cat=1)
    for name in ("my/pets.tar.gz", "my/pets.zip", "my/list.csv"):
        write(name)
    assert [folder_name(n) for n in ("my/pets", "my/pets/", "my/pets.tar.gz", "my/pets.zip", "my/list.csv")] == [
        "pets", "pets", "pets", "pets", "list",
    ]  # fmt: skip
    assert folder_name("hf:owner/name:small") == "name"
    assert folder_name("folder:my/pets") == "pets"
    assert folder_name("synthetic:num_images=200") == "synthetic"
    assert same("my/pets", "./my/pets/")
    assert not same("my/pets", "my/pets.zip")


def test_a_source_may_be_named_with_its_options() -> None:
    class_folders("pets", cat=2, dog=2)
    assert look("folder:pets").classes == look("folder:path=pets").classes == ("cat", "dog")
    write("list.csv", "img,label\npets/cat/0.png,cat\npets/dog/0.png,dog\n")
    assert look("manifest:list.csv:columns=path=img").classes == ("cat", "dog")
