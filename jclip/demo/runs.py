"""One run of the demo: its configuration, its folder, and the languages in which it is scored."""

from dataclasses import dataclass
from pathlib import Path

from jclip.train.configuration import Run
from jclip.train.workplace import bundle_folder


@dataclass(frozen=True)
class DemoRun:
    """One of the demo's runs.

    Attributes:
      key: name of its folder.
      title: name in progress lines and the report.
      languages: languages in which it is scored.
      run: configuration to train.
      workdir: its folder.
      seconds: expected duration of each stage on two idle cores.
    """

    key: str
    title: str
    languages: tuple[str, ...]
    run: Run
    workdir: Path
    seconds: tuple[float, ...]

    def bundle(self, stage: int = -1) -> Path:
        """Returns the folder of a finished stage's bundle."""
        return bundle_folder(self.workdir, self.run, stage % len(self.run.stages))
