"""A zip or tar of class folders, read where it lies: nothing is unpacked into any folder."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from fovea.data.sources.manifest import from_table
from fovea.data.table import read_table
from fovea.data.tree import Node, Tree, by_folder, is_leftover, lone_table
from fovea.data.types import Place, RawData
from fovea.errors import DataError
from fovea.registry import source

# Of one file in an archive. No picture comes near: 16 bits of 10,000×10,000 pixels in three colours are 600 MB.
_LARGEST_MEMBER = 1 << 30
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    archive: _Zip | _Tar
    name: str
    entry: Any  # what the archive needs to find it again
    size: int
    mark: str  # changes when the file does: its checksum, or when it was last written

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.name}"

    def read_bytes(self) -> bytes:
        """The whole file; from several threads at once, too. Raises OSError."""
        try:
            data = self.archive.read(self.entry, self.size)
        except _DAMAGED as error:
            raise OSError(f"damaged in the archive ({error})") from None
        if len(data) != self.size:
            raise OSError("cut short in the archive")
        return data

    def signature(self) -> str:
        """Changes when the file does."""
        return f"{self.name}/{self.size}/{self.mark}"


@source
def archive(place: Place, path: str, columns: tuple[str, ...] = (), group: str | None = None) -> RawData:
    """A zip or tar of class folders, or of pictures and a manifest; read where it lies.

    A zip and a plain tar are read picture by picture. A tar compressed as a whole (tar.gz, tar.bz2, tar.xz) is unpacked,
    when its first picture is read, into a temporary file without a name, which is gone when the program ends.
    """
    try:
        is_zip = path.lower().endswith(".zip") or zipfile.is_zipfile(path)
        opened = _Zip(path) if is_zip else _Tar(path)
        members = list(opened.members())
    except PermissionError:
        raise DataError(f"{path}: no permission to read it") from None
    except _DAMAGED as error:
        # Without what each of tarfile's methods has to say.
        reason = " ".join(str(error).split()).partition(": - method")[0] or type(error).__name__
        raise DataError(f"{path} is damaged, or no zip or tar ({reason}): fetch or pack it again") from None
    tree, by_name = Tree(path), {}
    for member in members:
        *folders, name = member.name.split("/")
        if any(is_leftover(part) for part in (*folders, name)):
            continue
        node = tree.root
        for part in folders:
            node = node.folders.setdefault(part, Node())
        by_name[member.name] = member
        if tree.takes(node, name):
            node.pictures[name] = member
    table = lone_table(tree)
    if table is None:
        raw = by_folder(tree, group)
    else:
        top = table.rpartition("/")[0]
        raw = from_table(
            read_table(by_name[table]),
            lambda text: by_name.get(os.path.normpath(os.path.join(top, text))),
            columns,
            group,
        )
    links = [f"{path}: left out {opened.num_links:,} links, which point to files elsewhere"] if opened.num_links else []
    return RawData(raw.classes, raw.splits, raw.bad, (*raw.notes, *links))


class _Zip:
    """The files of a zip. Python's reader takes turns at the file, and decompresses in parallel."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.num_links = 0
        self._lock = threading.Lock()
        self._zip = zipfile.ZipFile(path)

    def members(self) -> Iterator[Member]:
        for info in self._zip.infolist():
            name = _safe(self.path, _name(info))
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                self.num_links += 1
                continue
            if info.flag_bits & 0x1:
                raise DataError(f"{self.path} is encrypted ({name}): pack it again without a password")
            _check_size(self.path, name, info.file_size)
            yield Member(self, name, info, info.file_size, f"{info.CRC:08x}")

    def read(self, entry: zipfile.ZipInfo, size: int) -> bytes:
        # No more than the entry promises, whatever the compressed data would make of it.
        with self._lock:  # it counts its open files, and not atomically
            file = self._zip.open(entry)
        try:
            return file.read(size)
        finally:
            with self._lock:
                file.close()


class _Tar:
    """The files of a tar, each read from its own place: of the file itself, or of what was compressed in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.num_links = 0
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._failure: DataError | None = None
        self._is_plain = True
        self._end = 0

    def members(self) -> Iterator[Member]:
        try:
            plain = tarfile.open(self.path, "r:")  # noqa: SIM115
        except tarfile.ReadError:
            self._is_plain = False
            plain = tarfile.open(self.path, "r:*")  # noqa: SIM115
        with plain as tar:
            for info in tar:
                name = _safe(self.path, info.name)
                self.num_links += info.issym() or info.islnk()
                if not info.isreg():
                    continue
                if info.issparse():
                    raise DataError(f"{self.path} holds {name} with gaps (sparse): pack it again without")
                _check_size(self.path, name, info.size)
                self._end = max(self._end, info.offset_data + info.size)
                yield Member(self, name, info.offset_data, info.size, str(info.mtime))

    def read(self, entry: int, size: int) -> bytes:
        with self._lock:
            if self._failure is not None:  # as it was for the first picture: not tried again for each
                raise self._failure
            if self._file is None:
                try:
                    self._file = open(self.path, "rb") if self._is_plain else self._unpacked()  # noqa: SIM115
                except OSError as error:
                    self._failure = DataError(f"{self.path} cannot be decompressed ({error})")
                    raise self._failure from None
            self._file.seek(entry)
            return self._file.read(size)

    def _unpacked(self) -> IO[bytes]:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if self._end > free:
            raise OSError(
                f"it takes {self._end / 1e6:,.0f} MB unpacked, and {folder} has {free / 1e6:,.0f} MB left: pack it as a "
                "zip or a plain tar, which are read in place, or set TMPDIR to a folder with room"
            )
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115
        with _decompressed(self.path) as packed:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        return unpacked


def _decompressed(path: str) -> IO[bytes]:
    """The bytes of a compressed tar. Its first bytes say of which kind it is (gzip: RFC 1952; bzip2; else xz)."""
    with open(path, "rb") as packed:
        kind: Any = {b"\x1f\x8b": gzip, b"BZ": bz2}.get(packed.read(2), lzma)
    file: IO[bytes] = kind.open(path)
    return file


def _name(info: zipfile.ZipInfo) -> str:
    """Some archivers write UTF-8 without saying so; the reader then takes it for code page 437."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return info.filename


def _safe(path: str, name: str) -> str:
    """The name, without `./` at its start. Raises DataError for one that leads out of the archive."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\")) or parts[0][1:] == ":":
        raise DataError(f"{path} holds '{name}', which leads out of the archive: it is refused; pack it again")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise DataError(
            f"{path} holds '{shown}', whose name is no UTF-8: pack it again with its names in UTF-8"
        ) from None
    return "/".join(part for part in parts if part not in ("", "."))


def _check_size(path: str, name: str, size: int) -> None:
    if size > _LARGEST_MEMBER:
        raise DataError(
            f"{path} holds {name}, which claims to be {size / 1e9:,.1f} GB: no picture is so large, and it is refused"
        )
