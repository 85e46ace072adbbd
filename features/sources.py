"""Where the published data sets come from, and what is known of their archives beforehand."""

from __future__ import annotations

from dataclasses import dataclass


class FetchError(RuntimeError):
    """A data set could not be fetched; the message is one line and says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True, slots=True)
class Source:
    """One archive and what is made of it.

    Attributes:
        title: the data set's own name; the folder below the target that it becomes.
        address: of the archive, over HTTP.
        file: the archive's name, `.zip` or `.tar.gz`.
        size: of the archive in bytes, exactly.
        checksum: of the archive, `sha256:...` or `md5:...` in hexadecimal.
        unpacked: bytes on the disk, rather too many than too few; twice as many are refused.
        inside: the folder in the archive that holds the data set.
        table: the CSV of the clips below that folder.
        clips: files below its folder `audio`.
        licence: and where it is stated, if that is not obvious.
        citation: the paper to cite.
        subset: a column of the table; only clips with `True` in it are kept. Empty for all.
    """

    title: str
    address: str
    file: str
    size: int
    checksum: str
    unpacked: int
    inside: str
    table: str
    clips: int
    licence: str
    citation: str
    subset: str = ""


_ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
_PICZAK = (
    "K. J. Piczak: ESC: Dataset for Environmental Sound Classification. "
    "ACM Multimedia 2015, doi:10.1145/2733373.2806390"
)


def _esc50(title: str, clips: int, licence: str, subset: str = "") -> Source:
    # The author publishes no checksum. GitHub makes the archive of a commit from its files, which
    # the commit fixes, but promises no packing of them for ever. Size and SHA-256 are as several
    # public projects recorded them; none of it could be tried where this was written.
    return Source(
        title=title,
        address=f"https://github.com/karolpiczak/ESC-50/archive/{_ESC50_COMMIT}.zip",
        file=f"ESC-50-{_ESC50_COMMIT}.zip",
        size=645_832_161,
        checksum="sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
        unpacked=950_000_000,
        inside=f"ESC-50-{_ESC50_COMMIT}",
        table="meta/esc50.csv",
        clips=clips,
        licence=licence,
        citation=_PICZAK,
        subset=subset,
    )


SOURCES: dict[str, Source] = {
    "esc10": _esc50("ESC-10", 400, "CC BY 3.0", subset="esc10"),
    "esc50": _esc50("ESC-50", 2000, "CC BY-NC 3.0"),
    "urbansound8k": Source(
        title="UrbanSound8K",
        address="https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
        file="UrbanSound8K.tar.gz",
        # As the soundata package, among others, has the MD5 of the file at Zenodo.
        size=6_023_741_708,
        checksum="md5:9aa69802bbf37fb986f71ec1483a196e",
        unpacked=7_500_000_000,
        inside="UrbanSound8K",
        table="metadata/UrbanSound8K.csv",
        clips=8732,
        licence="CC BY-NC 4.0 (at Zenodo)",
        citation=(
            "J. Salamon, C. Jacoby, J. P. Bello: A Dataset and Taxonomy for Urban Sound Research. "
            "ACM Multimedia 2014, doi:10.1145/2647868.2655045"
        ),
    ),
}
"""By the name that `data.dataset` has for them."""
