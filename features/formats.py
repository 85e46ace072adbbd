"""Audio formats: what a file's first bytes say it is, and what its extension promises."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import StrEnum
from pathlib import PurePath


class Format(StrEnum):
    """A container of audio."""

    WAV = "WAV"
    FLAC = "FLAC"
    OGG = "OGG"
    MP3 = "MP3"
    MP4 = "MP4"
    AIFF = "AIFF"


EXTENSIONS: dict[str, Format] = {
    ".wav": Format.WAV,
    ".wave": Format.WAV,
    ".flac": Format.FLAC,
    ".ogg": Format.OGG,
    ".oga": Format.OGG,
    ".opus": Format.OGG,
    ".mp3": Format.MP3,
    ".mp4": Format.MP4,
    ".m4a": Format.MP4,
    ".aac": Format.MP4,
    ".aif": Format.AIFF,
    ".aiff": Format.AIFF,
    ".aifc": Format.AIFF,
}

_UNKNOWN_LENGTH = (0, 0xFFFFFFFF, 0x7FFFFFFF)
"""What programs that write to a pipe put where the length belongs."""


def sniff(content: bytes) -> Format | None:
    """The format of a file by its first bytes; None where they are of none of these.

    >>> sniff(b"RIFF....WAVEfmt "), sniff(b"Once upon a time")
    (<Format.WAV: 'WAV'>, None)
    """
    head = content[:12]
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
        return Format.WAV
    if head[:4] == b"fLaC":
        return Format.FLAC
    if head[:4] == b"OggS":
        return Format.OGG
    if head[4:8] == b"ftyp":
        return Format.MP4
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Format.AIFF
    if head[:3] == b"ID3" or _is_mpeg_frame(content[:4]):
        return Format.MP3
    return None


def promised(path: PurePath) -> Format | None:
    """The format that a file's extension stands for; None for another one, or for none."""
    return EXTENSIONS.get(path.suffix.lower())


def missing_bytes(content: bytes) -> tuple[int, int] | None:
    """Bytes of samples that a WAV or AIFF file holds and those that it claims, where fewer.

    None for a file that is whole to the last frame, that does not say how long it is, or that
    is of another format.
    """
    if sniff(content) not in (Format.WAV, Format.AIFF):
        return None
    order = ">" if content[:4] in (b"RIFX", b"FORM") else "<"
    frame, long_size = 1, 0
    for name, start, size in _chunks(content, order):
        if name == b"fmt " and start + 14 <= len(content):
            frame = struct.unpack_from(f"{order}H", content, start + 12)[0]
        elif name == b"COMM" and start + 8 <= len(content):
            channels, _, bits = struct.unpack_from(">hIh", content, start)
            frame = channels * -(-bits // 8)
        elif name == b"ds64" and start + 16 <= len(content):
            long_size = struct.unpack_from("<Q", content, start + 8)[0]
        elif name in (b"data", b"SSND"):
            claimed = long_size if content[:4] == b"RF64" else size
            held = len(content) - start
            short = claimed not in _UNKNOWN_LENGTH and held <= claimed - max(1, frame)
            return (held, claimed) if short else None
    return None


def lacks_end(content: bytes) -> bool:
    """Whether an OGG file ends before the page that says it is the last one.

    RFC 3533, section 6: the third bit of a page's header type.
    """
    if sniff(content) is not Format.OGG:
        return False
    page = content.rfind(b"OggS")
    return len(content) < page + 6 or not content[page + 5] & 4


def _chunks(content: bytes, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of each chunk of an IFF or RIFF file."""
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from(f"{order}4sI", content, position)
        yield name, position + 8, size
        position += 8 + size + size % 2


def _is_mpeg_frame(head: bytes) -> bool:
    """Whether four bytes are the header of an MPEG audio frame, layer III.

    Eleven bits of sync; then a version, a layer, a bit rate and a sample rate, each of which has
    a value that means nothing: other files that begin with 0xFF mostly have one of these.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return version != 1 and layer == 1 and head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3
