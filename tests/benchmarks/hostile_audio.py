"""Audio files as no recorder writes them: every format that is read, damaged on purpose."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile

RATE = 8000


@cache
def sound_files() -> dict[str, bytes]:
    """A short sound in every format and encoding that libsndfile writes, by name."""
    rng = np.random.default_rng(0)
    time = np.arange(int(0.3 * RATE)) / RATE
    mono = 0.5 * np.sin(2 * np.pi * 440 * time) + rng.normal(0, 0.05, time.size)
    found: dict[str, bytes] = {}
    # SD2 is two files, and RAW does not say what it is.
    for kind in sorted(set(soundfile.available_formats()) - {"SD2", "RAW"}):
        for encoding in sorted(soundfile.available_subtypes(kind)):
            for channels in (1, 2):
                buffer = io.BytesIO()
                samples = np.repeat(mono[:, None], channels, axis=1)
                try:
                    rate = 48_000 if encoding == "OPUS" else RATE
                    soundfile.write(buffer, samples, rate, format=kind, subtype=encoding)
                except (soundfile.LibsndfileError, ValueError, TypeError):
                    continue
                found[f"{kind} {encoding} {channels}"] = buffer.getvalue()
    return found


COMMON = (
    "WAV PCM_16",
    "WAV FLOAT",
    "WAV DOUBLE",
    "FLAC PCM_16",
    "OGG VORBIS",
    "OGG OPUS",
    "MP3",
    "AIFF",
)
"""What nearly all clips are; half of the cases."""

_SIZES = [
    *(0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x400, 0x401, 0x7FFF, 0x8000, 0xFFFE),
    0xFFFF,
]
_SIZES += [0x10000, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF, 44100]
_LONG = [0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 1 << 40, 0xFFFFFFFFFFFFFFF0]
_MAGIC = [
    *(b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3\x04\0\0", b"\xff\xfb\x90\x64"),
    b"riff",
]
_MAGIC += [
    b"caff",
    b".snd",
    b"Creative Voice File\x1a",
    b"NIST_1A\n",
    b"2BIT",
    b"\0\0\0\x20ftypM4A ",
    b"PVF1",
]
_MAGIC += [
    b"\x7fELF",
    b"PK\x03\x04",
    b"\x89PNG\r\n\x1a\n",
    b"%PDF-1.7",
    b"#!/bin/sh\n",
    b"<html>",
    b"\0" * 16,
]


def _cut(rng: random.Random, content: bytes) -> bytes:
    near = rng.choice([len(content), min(len(content), 100)])
    return content[: rng.randrange(near + 1)]


def _flips(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    near = min(len(changed), rng.choice([16, 64, 256, len(changed)]))
    for _ in range(rng.choice([1, 2, 8, 64])):
        if near:
            changed[rng.randrange(near)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(changed)


def _field(rng: random.Random, content: bytes) -> bytes:
    """A number of the header set to an extreme one."""
    form = rng.choice(["<H", ">H", "<I", ">I", "<I", ">I", "<Q", ">Q"])
    size = struct.calcsize(form)
    places = range(0, min(len(content), 120) - size, 2)
    if not len(places):
        return content
    place = rng.choice(places)
    value = rng.choice(_LONG if form[1] == "Q" else _SIZES) % (1 << 8 * size)
    return content[:place] + struct.pack(form, value) + content[place + size :]


def _fields(rng: random.Random, content: bytes) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 4])):
        content = _field(rng, content)
    return content


def _piece(rng: random.Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice([1, 2, 4, 17, 128, 1024]))


def _removed(rng: random.Random, content: bytes) -> bytes:
    start, end = _piece(rng, content)
    return content[:start] + content[end:]


def _repeated(rng: random.Random, content: bytes) -> bytes:
    start, end = _piece(rng, content)
    return content[:end] + content[start:end] * rng.choice([1, 2, 50]) + content[end:]


def _blank(rng: random.Random, content: bytes) -> bytes:
    start, end = _piece(rng, content)
    return content[:start] + rng.choice([b"\0", b"\xff"]) * (end - start) + content[end:]


def _other_head(rng: random.Random, content: bytes) -> bytes:
    other = rng.choice(list(sound_files().values()))
    size = rng.choice([4, 12, 20, 44, 100])
    return other[:size] + content[rng.choice([0, size]) :]


def _other_magic(rng: random.Random, content: bytes) -> bytes:
    magic = rng.choice(_MAGIC)
    return magic + content[rng.choice([0, len(magic)]) :]


def _joined(rng: random.Random, content: bytes) -> bytes:
    other = rng.choice(list(sound_files().values()))
    return content + other if rng.random() < 0.5 else other[: len(other) // 2] + content


def _tagged(rng: random.Random, content: bytes) -> bytes:
    """An ID3 tag before it, of the size it says or not."""
    claimed = rng.choice([0, 10, 127, 0x0FFFFFFF, 1000])
    size = bytes((claimed >> shift) & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3" + bytes([rng.choice([2, 3, 4, 9]), 0, rng.choice([0, 0x10, 0xFF])]) + size
    return tag + b"\0" * rng.choice([0, claimed % 2000]) + content


def _same(rng: random.Random, content: bytes) -> bytes:
    return content


MUTATIONS: list[Callable[[random.Random, bytes], bytes]] = [
    *(_cut, _cut, _flips, _flips, _flips, _fields, _fields, _fields, _fields, _removed, _repeated),
    *(_blank, _other_head, _other_magic, _joined, _tagged, _same),
]


def wav(
    channels: int, rate: int, bits: int, data: bytes, code: int = 1, claimed: int | None = None
) -> bytes:
    """A WAV file whose header says what it likes."""
    size = len(data) if claimed is None else claimed
    align, speed = channels * bits // 8 & 0xFFFF, rate * channels * bits // 8 & 0xFFFFFFFF
    form = struct.pack("<HHIIHH", code & 0xFFFF, channels, rate, speed, align, bits)
    head = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", (len(head) + size) & 0xFFFFFFFF) + head + data


def _crafted_wav(rng: random.Random) -> bytes:
    channels = rng.choice([0, 1, 2, 6, 255, 256, 1023, 1024, 1025, 65535])
    rate = rng.choice(
        [0, 1, 2, 7, 100, 999, 8000, 44100, 384_000, 655_350, 2**31 - 1, 2**31, 2**32 - 1]
    )
    bits = rng.choice([0, 1, 4, 8, 12, 16, 24, 32, 64, 65535])
    code = rng.choice([1, 1, 1, 3, 3, 2, 6, 7, 17, 49, 0x55, 0x2000, 0xFFFE, 0xFFFF, 0])
    data = rng.randbytes(rng.choice([0, 1, 16, 1000, 100_000]))
    claimed = rng.choice([None, None, 0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF])
    return wav(channels, rate, bits, data, code, claimed)


def _slow(rng: random.Random) -> bytes:
    """A small file that lasts for days: a few samples a second."""
    rate = rng.choice([1, 1, 2, 3, 7, 50])
    return wav(1, rate, rng.choice([8, 16]), rng.randbytes(rng.choice([1000, 30_000, 200_000])))


def _extreme(rng: random.Random) -> bytes:
    """Samples beyond all that a sound can be."""
    values = [
        *(np.nan, np.inf, -np.inf, 1e308, -1e308, 3e38, -3e38, 1e-310, 5e-324, 0.0, 1.0, 1e30),
        -1e30,
    ]
    form = rng.choice(["<f4", "<f8"])
    count = rng.choice([1, 3, 2000, 8000])
    with np.errstate(over="ignore"):
        samples = np.array([rng.choice(values) for _ in range(count)]).astype(form)
    channels = rng.choice([1, 1, 2, 3])
    rate = rng.choice([1000, 8000, 44_100, 192_000])
    return wav(channels, rate, 32 if form == "<f4" else 64, samples.tobytes(), 3)


def _constant_flac(rng: random.Random) -> bytes:
    """A small file with very many samples: silence, repeated frame by frame."""
    buffer = io.BytesIO()
    channels = rng.choice([1, 2, 8])
    soundfile.write(
        buffer, np.zeros((rng.choice([10**5, 4 * 10**6]), channels)), RATE, format="FLAC"
    )
    content = bytearray(buffer.getvalue())
    # The sample count, 36 bits before the checksum of STREAMINFO: as it is, unknown or the most.
    count = rng.choice([None, 0, 0xF_FFFF_FFFF])
    if count is not None:
        content[21] = content[21] & 0xF0 | count >> 32
        content[22:26] = (count & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def _noise(rng: random.Random) -> bytes:
    sizes = [0, 1, 2, 3, 4, 11, 12, 43, 44, 45, 1000, 5000]
    return rng.choice([*_MAGIC, b""]) + rng.randbytes(rng.choice(sizes))


def _nothing(rng: random.Random) -> bytes:
    size = rng.choice([1, 12, 44, 5000])
    return rng.choice([b"", b"\0", b"\xff" * size, b"\0" * size, b"\n" * size, b"RIFF" * size])


CRAFTED: list[Callable[[random.Random], bytes]] = [
    *(_crafted_wav, _crafted_wav, _slow, _extreme, _extreme, _constant_flac, _noise, _noise),
    _nothing,
]


@dataclass(frozen=True)
class AudioFile:
    """A mutated file: what it was made from, and its bytes."""

    label: str
    content: bytes


def audio_file(seed: int, number: int) -> AudioFile:
    """The mutated audio file with a number."""
    rng = random.Random(f"{seed}/audio/{number}")
    if rng.random() < 0.15:
        make = rng.choice(CRAFTED)
        return AudioFile(make.__name__.strip("_"), make(rng))
    files = sound_files()
    common = [name for name in files if name.startswith(COMMON)]
    name = rng.choice(common if rng.random() < 0.5 else list(files))
    content = files[name]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        content = rng.choice(MUTATIONS)(rng, content)
    return AudioFile(name.split()[0], content)
