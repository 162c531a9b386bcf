"""Share the adapter of a run on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import Field

from lora_sam.core.errors import ConfigError
from lora_sam.core.files import read_json
from lora_sam.core.run_directory import find_run
from lora_sam.deployment.hub import collected, uploaded
from lora_sam.deployment.space import collect_space
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.lead import lead
from lora_sam.runs.adapter_files import find_adapter, read_facts

_NAME = r"^[\w.-]{1,96}/[\w.-]{1,96}$"


@dataclass(frozen=True, kw_only=True)
class Push:
    """Share the adapter of a run on the Hugging Face Hub, with its card, its facts and, if you like, its report.

    Images, labels, checkpoints and paths of your machine stay where they are. The report shows pictures of the test
    split, and settings with paths in them: it goes along only with report=true. Who is asked for is you: log in once
    with `hf auth login`, or set HF_TOKEN. The same command again replaces what was there by a new commit.

    With space=me/washers-app a Space goes along: the app on this run, with the adapter, its figures and this package,
    which the Hub builds and shows in a browser. Who may see it may use it; test images stay here.

    Attributes:
        run: Run directory, or latest.
        repo: Name on the Hub, as in me/washers.
        private: Whether only you see it. A repository that is there keeps what it has; into one that is public nothing
            goes with private=true.
        report: Whether report.html goes along, with the pictures in it.
        space: Name of the Space, as in me/washers-app; null for none.
        revision: Branch that is written.
        dry_run: Only say what would be sent; nothing is sent, and nobody is asked.
    """

    run: Annotated[str, Field(min_length=1)]
    repo: Annotated[str, Field(pattern=_NAME)]
    private: bool
    report: bool
    space: Annotated[str, Field(pattern=_NAME)] | None
    revision: Annotated[str, Field(pattern=r"^[\w][\w./-]*$")]
    dry_run: bool

    def perform(self) -> int:
        """Send it and say where it is; returns 0.

        Raises:
            AdapterError: the run has no adapter, or it is not what was saved.
            ConfigError: the Hub cannot be reached, does not know the user, or refuses; both names are the same.
        """
        run = find_run(self.run)
        adapter = find_adapter(run.root)
        if self.space == self.repo:
            raise ConfigError(
                f"space={self.space} is the name of the adapter; give the Space another one, as in {self.repo}-app"
            )
        with TemporaryDirectory() as temporary:
            folder, app = Path(temporary, "adapter"), Path(temporary, "space")
            folder.mkdir()
            app.mkdir()
            for name, size in collected(adapter, run.root / "report.html" if self.report else None, self.repo, folder):
                print(f"{name:28} {size / 1e6:8.2f} MB")
            if self.space is not None:
                collect_space({path.name: path for path in folder.iterdir()}, run.evaluation, self.repo, app)
                sizes = [path.stat().st_size for path in app.rglob("*") if path.is_file()]
                print(f"{self.space}: a Space of {len(sizes)} files, {sum(sizes) / 1e6:.2f} MB")
            if (note := _what_to_know(read_facts(adapter), run.evaluation)) is not None:
                print(f"note: {note}")
            if self.dry_run:
                kind = "private" if self.private else "public"
                goes = f"{self.repo} ({kind}), branch {self.revision}"
                also = "" if self.space is None else f", and the Space to {self.space}"
                print(f"nothing was sent; without dry_run=true this goes to {goes}{also}")
                return 0
            print(uploaded(folder, self.repo, self.revision, private=self.private))
            if self.space is not None:
                print(uploaded(app, self.space, self.revision, private=self.private, space=True))
        return 0


def _what_to_know(facts: Mapping[str, Any], evaluation: Path) -> str | None:
    """What nobody would share unseen: an adapter that is not measurably better than its base, or not measured."""
    metrics = facts.get("metrics")
    if evaluation.is_file():  # says what the run was trained for
        metrics = read_json(evaluation, "evaluate the run again")
        validate_report(metrics)
    if metrics is None:
        return "this run has not been evaluated yet, which its card says; push it again when it has ended"
    found = lead(metrics)
    if found.better:
        return None
    claim = "is worse than its base" if found.worse else "is not measurably better than its base"
    between = f"(95 % interval {found.interval[0]:+.3f} to {found.interval[1]:+.3f})"
    return f"this adapter {claim}, which its card says: {found.short} {found.delta:+.3f} {between}"
