"""One file over HTTP, continued where it broke off, its checksum verified."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rich.filesize import decimal

from features.progress import byte_bar
from features.sources import FetchError, Source

if TYPE_CHECKING:
    from requests import Response

TIMEOUTS = (20.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""

PAUSES = (0.2, 1.0, 4.0, 15.0)
"""Seconds before each further try after a connection broke off."""

_CHUNK = 2**16
"""Bytes read at once; where the connection breaks off, a chunk that is not full is lost."""

_GAIN = 2**20
"""Bytes further than ever before, with which a try counts as no failure."""


_CLOSED = "the connection was closed"


class _StartOver(Exception):  # noqa: N818 - a signal within this module, not an error
    """What is there of the file cannot be continued."""


def download(source: Source, part: Path, report: Callable[[str], None], progress: bool) -> None:
    """Complete a file, beside which `.tag` holds the server's version of it meanwhile.

    A part that is there is continued where the server can do so and still has the same version;
    otherwise the download starts over. A part that was continued and has the wrong checksum is
    downloaded once more as a whole.

    Args:
        source: what to download.
        part: the file; stays after an error, so that a later call continues it.
        report: gets a line on what happens.
        progress: show a bar.

    Raises:
        FetchError: the server cannot be reached, refuses or has another file; the connection
            keeps breaking off; the checksum is wrong (the file is removed then).
    """
    if _size(part) != source.size:
        report(f"downloading {source.address} ({decimal(source.size)})")
    continued = part.exists()
    with byte_bar("downloading", source.size, progress) as show:
        continued = _complete(source, part, report, show) or continued
    try:
        verify(source, part)
    except FetchError:
        _remove(part)
        if not continued:
            raise
        report("the checksum is wrong: downloading again from the start")
        with byte_bar("downloading", source.size, progress) as show:
            _complete(source, part, report, show)
        try:
            verify(source, part)
        except FetchError:
            _remove(part)
            raise
    _tag(part).unlink(missing_ok=True)


def verify(source: Source, archive: Path) -> None:
    """Check an archive that is there against the size and the checksum that were published.

    Raises:
        FetchError: it is not the file that was published.
    """
    import pooch

    found = archive.stat().st_size
    if found != source.size:
        raise FetchError(f"{archive}: found {found} bytes; allowed {source.size}")
    algorithm, _, allowed = source.checksum.partition(":")
    digest = pooch.file_hash(str(archive), alg=algorithm)
    if digest != allowed:
        raise FetchError(
            f"{archive}: found the {algorithm.upper()} {digest}; allowed {allowed}: damaged on the "
            f"way, or no longer the file that {source.address} had"
        )


def _complete(
    source: Source, part: Path, report: Callable[[str], None], show: Callable[[int], None]
) -> bool:
    """Request until all is there; true if it was put together from more than one answer."""
    pieced = False
    failures = 0
    furthest = have = _size(part)
    while have != source.size:
        if have > source.size:
            _remove(part)
        answer = _Answer(source, part, report, show)
        why = _tried(answer, source, part, report)
        pieced = pieced or answer.continued
        have = _size(part)
        if have == source.size:
            break
        failures = 0 if have >= furthest + _GAIN else failures + 1
        furthest = max(furthest, have)
        if failures > len(PAUSES):
            raise FetchError(
                f"{source.address}: broke off at {decimal(have)} of {decimal(source.size)} "
                f"({why}); the same command continues from there, where the server can"
            )
        time.sleep(PAUSES[max(failures - 1, 0)])
    return pieced


def _tried(answer: _Answer, source: Source, part: Path, report: Callable[[str], None]) -> str:
    """Make a request; why it ended, should it have ended too early.

    Raises:
        FetchError: another try would be of no use.
    """
    import requests

    try:
        answer.request()
    except _StartOver:
        _remove(part)
        report("the file has changed: downloading it from the start")
    except requests.exceptions.RequestException as error:
        why = _why(error)
        if not answer.begun:
            raise FetchError(_unreachable(source, part, why)) from None
        return why
    except OSError as error:
        raise FetchError(f"{part}: cannot be written: {error.strerror}") from None
    return _CLOSED


class _Answer:
    """One request; what its answer holds goes to the end of the part, or in its place.

    A file to pooch's downloader, which leaves open what the server's status and headers mean.
    """

    def __init__(
        self,
        source: Source,
        part: Path,
        report: Callable[[str], None],
        show: Callable[[int], None],
    ) -> None:
        self.begun = False
        self.continued = False
        self._source = source
        self._part = part
        self._report = report
        self._show = show
        self._stream: BinaryIO | None = None
        self._done = _size(part)

    def request(self) -> None:
        import pooch

        headers = {"Accept-Encoding": "identity", "User-Agent": "foldgrid"}
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            with suppress(OSError):
                headers["If-Range"] = _tag(self._part).read_text(encoding="latin-1")
        get = pooch.HTTPDownloader(
            chunk_size=_CHUNK, headers=headers, hooks={"response": self._look}, timeout=TIMEOUTS
        )
        try:
            get(self._source.address, self, None)
        finally:
            if self._stream is not None:
                self._stream.close()

    def write(self, chunk: bytes) -> int:
        if self._done + len(chunk) > self._source.size:
            raise self._other_file("more")
        assert self._stream is not None
        self._stream.write(chunk)
        self._done += len(chunk)
        self._show(self._done)
        return len(chunk)

    def flush(self) -> None:
        """Nothing: a chunk fills the stream's buffer anyway."""

    def _look(self, response: Response, *_: Any, **__: Any) -> None:
        """Decide by status and headers, before the first byte of the content."""
        if response.is_redirect:
            return
        self.begun = True
        if response.status_code == 416:
            raise _StartOver
        if response.status_code == 206:
            self._continue(response)
        elif response.status_code == 200:
            self._begin(response)
        else:
            kept = f"; {decimal(self._done)} are kept" if self._done else ""
            raise FetchError(
                f"{self._source.address}: the server answers {response.status_code} "
                f"{response.reason}; try again later, or {_by_hand(self._source, self._part)}{kept}"
            )

    def _continue(self, response: Response) -> None:
        stated = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", stated)
        if match is None or int(match[1]) != self._done:
            raise _StartOver
        if match[2] not in ("*", str(self._source.size)):
            raise self._other_file(match[2])
        self.continued = True
        self._stream = self._part.open("ab")
        self._report(f"continuing at {decimal(self._done)}")

    def _begin(self, response: Response) -> None:
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != self._source.size:
            raise self._other_file(length)
        if self._done:
            self._report("the server cannot continue the file: downloading it from the start")
        self._stream = self._part.open("wb")
        self._done = 0
        tag = response.headers.get("ETag", "")
        # A weak tag says nothing of single bytes, so that no server continues by it.
        version = response.headers.get("Last-Modified", "") if tag[:2] in ("", "W/") else tag
        if version:
            _tag(self._part).write_text(version, encoding="latin-1")
        else:
            _tag(self._part).unlink(missing_ok=True)

    def _other_file(self, size: str) -> FetchError:
        return FetchError(
            f"{self._source.address}: found {size} bytes; allowed {self._source.size}: the file "
            "there is no longer the one that this version knows"
        )


def _by_hand(source: Source, part: Path) -> str:
    return f"put the file at {part.with_name(source.file)} and run this command again"


def _unreachable(source: Source, part: Path, why: str) -> str:
    return (
        f"{source.address}: cannot be reached ({why}); "
        f"download it by hand: {_by_hand(source, part)}"
    )


def _why(error: BaseException) -> str:
    """The cause at the bottom of a chain of errors, in a few words."""
    from requests.exceptions import Timeout

    if isinstance(error, Timeout):
        return "no answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "the name cannot be resolved"
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        if isinstance(cause, ssl.SSLError):
            return f"the connection is not safe: {cause.reason or cause}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return _CLOSED


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)
