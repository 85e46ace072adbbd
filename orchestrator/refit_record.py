"""RefitRecord: how the model under `refit` was trained; `refit.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator import envelope
from orchestrator.envelope import DamagedFileError
from orchestrator.errors import RunDirectoryError
from orchestrator.records import Scores, Timing
from orchestrator.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class RefitRecord:
    """A training on every clip that may be trained on.

    Attributes:
        configuration: its identity.
        seed: of its random generators, with the test fold.
        epochs: that it was trained for.
        folds: that it was trained on, ascending.
        clips: that it was trained on, a count.
        test_fold: the fold that was held out; None without one.
        test_clips: clips of it, a count.
        test: scores on it.
        timing: when and where.
        versions: of the packages that can change results.
    """

    configuration: str
    seed: int
    epochs: int
    folds: tuple[int, ...]
    clips: int
    test_fold: int | None
    test_clips: int
    test: Scores | None
    timing: Timing
    versions: dict[str, str] = field(default_factory=dict)

    def write(self, directory: RunDirectory) -> None:
        """Write it to its place in a run directory, which closes the files beside it.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        envelope.write(directory.refit_file, asdict(self))

    @classmethod
    def read(cls, directory: RunDirectory) -> RefitRecord | None:
        """That of a run directory; None where there is none.

        Raises:
            RunDirectoryError: it is damaged, or of another format version.
        """
        path = directory.refit_file
        try:
            fields = envelope.read(path)
            return None if fields is None else cls._from_json(fields)
        except (DamagedFileError, KeyError, TypeError) as error:
            raise RunDirectoryError(f"{path}: damaged: {error}; foldgrid refit makes it") from None

    @classmethod
    def _from_json(cls, data: dict[str, Any]) -> RefitRecord:
        return cls(
            **data
            | {
                "folds": tuple(data["folds"]),
                "test": None if data["test"] is None else Scores(**data["test"]),
                "timing": Timing(**data["timing"]),
            }
        )
