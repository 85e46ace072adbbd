"""Archives from outside, unpacked so that nothing lands anywhere else."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from features.sources import FetchError

MOST_MEMBERS = 200_000

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class _Member:
    """One entry of an archive.

    Attributes:
        name: as it stands there.
        kind: `file`, `folder`, or in words what else.
        content: opens a file's content; to be read before the next member.
    """

    name: str
    kind: str
    content: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path, packing: str, folder: Path, limit: int, show: Callable[[int], None]
) -> None:
    """Write an archive's files and folders below a folder.

    Only plain files and folders are taken, without their owners and permissions. The first member
    of another kind, or with a name that leads out of the folder, ends it; what was written until
    then stays for the caller to remove.

    Args:
        archive: the file.
        packing: the name that tells its kind, ending in `.zip` or `.tar.gz`.
        folder: an empty one.
        limit: bytes that the files may have in all.
        show: gets the number of bytes written so far.

    Raises:
        FetchError: a member as above, more bytes than the limit, a damaged archive, a full disk.
    """
    members = _zip_members if packing.endswith(".zip") else _tar_members
    done = 0
    try:
        for number, member in enumerate(members(archive), 1):
            if number > MOST_MEMBERS:
                raise FetchError(f"{archive}: more than {MOST_MEMBERS} members: not unpacked")
            place = _place(archive, folder, member)
            if member.kind == "folder":
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            content = member.content()
            # Exclusive: a second member of one name could not be told from the first.
            with place.open("xb") as file:
                while content is not None and (chunk := content.read(_CHUNK)):
                    done += len(chunk)
                    if done > limit:
                        raise FetchError(f"{archive}: holds more than {limit} bytes: not unpacked")
                    file.write(chunk)
                    show(done)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise FetchError(f"{archive}: damaged: {error}") from None
    except OSError as error:
        raise FetchError(f"{archive}: cannot be unpacked: {error.strerror or error}") from None


def _place(archive: Path, folder: Path, member: _Member) -> Path:
    """Where a member belongs.

    Raises:
        FetchError: outside the folder, or nowhere.
    """
    name = member.name
    if member.kind not in ("file", "folder"):
        raise FetchError(f"{archive}: member {name!r} is {member.kind}: not unpacked")
    parts = PurePosixPath(name).parts
    outside = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name)
    if not parts or outside or "\\" in name or "\0" in name:
        if member.kind == "folder" and not parts:
            return folder
        raise FetchError(f"{archive}: member {name!r} leads out of the folder: not unpacked")
    return folder.joinpath(*parts)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                what = "a link" if kind == stat.S_IFLNK else "a device"
            elif info.flag_bits & 1:
                what = "encrypted"
            else:
                what = "folder" if info.is_dir() else "file"
            # The name as it is in the archive: zipfile's own one has been mended.
            yield _Member(info.orig_filename, what, lambda info=info: file.open(info))  # type: ignore[misc]


def _tar_members(archive: Path) -> Iterator[_Member]:
    # As a stream: one pass over an archive that has no table of contents.
    with tarfile.open(archive, "r|*") as file:
        for info in file:
            if info.isdir():
                what = "folder"
            elif info.isreg():
                what = "file"
            else:
                what = "a link" if info.issym() or info.islnk() else "a device"
            yield _Member(info.name, what, lambda info=info: file.extractfile(info))  # type: ignore[misc]
