"""An adapter as a model repository of the Hugging Face Hub.

A repository of the Hub is a folder in Git: its `README.md` is the model card (https://huggingface.co/docs/hub/model-cards),
and PEFT finds `adapter_config.json` and `adapter_model.safetensors` at its top.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from lora_sam.core.calling import typed_here
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.files import check_sha256, last_part, write_text
from lora_sam.runs.adapter_files import read_facts

_PLACE = 'load("PATH_TO_THIS_DIRECTORY"'


def collected(adapter: Path, report: Path | None, repo: str, folder: Path) -> list[tuple[str, int]]:
    """Copy what is shared into `folder`.

    Args:
        adapter: Adapter directory.
        report: `report.html`, or None to leave it out.
        repo: Name on the Hub; the card says how to fetch it from there.
        folder: Where it is collected; empty.

    Returns:
        (name, size in bytes) of every file.

    Raises:
        AdapterError: a file is missing, or is not what was saved.
    """
    digests = read_facts(adapter).get("files") or {}
    names = ["README.md", "lora_sam.json", *(digests or ("adapter_config.json", "adapter_model.safetensors"))]
    for name in names:
        source = adapter / Path(name).name
        if not source.is_file():
            raise AdapterError(f"{source} is missing; give a finished run, or train again")
        if name in digests:
            check_sha256(source, digests[name], "train again or restore the file")
        shutil.copyfile(source, folder / source.name)
    if report is not None:
        if not report.is_file():
            raise AdapterError(f"{report} is missing; leave it out with report=false")
        shutil.copyfile(report, folder / "report.html")
    card = (folder / "README.md").read_text(encoding="utf-8")
    facts = read_facts(adapter)
    if isinstance(begun := facts.get("init_from"), dict) and "run" in begun:
        name = last_part(str(begun["run"]).rstrip("/\\"))
        write_text(
            folder / "lora_sam.json", json.dumps({**facts, "init_from": {**begun, "run": name}}, indent=2) + "\n"
        )
        card = re.sub(r"^(Training began with the adapter of )`.*`", rf"\1`{name}`", card, count=1, flags=re.MULTILINE)
        (folder / "README.md").write_text(card, encoding="utf-8")
    if _PLACE in card:
        fetched = card.replace(_PLACE, f'load(snapshot_download("{repo}")')
        card = fetched.replace(
            "from lora_sam import", "from huggingface_hub import snapshot_download\nfrom lora_sam import", 1
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
    return [(path.name, path.stat().st_size) for path in sorted(folder.iterdir())]


def uploaded(folder: Path, repo: str, revision: str, *, private: bool, space: bool = False) -> str:
    """Send a folder as one commit, and return its address. `HF_ENDPOINT` names another Hub than the public one.

    Args:
        folder: What is sent.
        repo: Name on the Hub.
        revision: Branch that is written.
        private: Whether only the user sees it.
        space: Whether it is a Space, which runs an app, and no model.

    Raises:
        ConfigError: the Hub cannot be reached, does not know the user, or refuses; or `private`, and all can see it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="lora_sam")
    try:
        kind = "space" if space else "model"
        hub.create_repo(repo, private=private, exist_ok=True, repo_type=kind, space_sdk="gradio" if space else None)
        if private and getattr(hub.repo_info(repo, repo_type=kind), "private", None) is False:
            raise ConfigError(
                f"{repo}: is there already and public, where everybody would see what is to be private; make it "
                "private in its settings on the Hub, name another, or give private=false"
            )
        if revision != "main":
            hub.create_branch(repo, branch=revision, exist_ok=True, repo_type=kind)
        said = "Adapter and app by lora_sam" if space else "Adapter, card and facts by lora_sam"
        hub.upload_folder(repo_id=repo, folder_path=folder, revision=revision, commit_message=said, repo_type=kind)
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (None, 401):
            raise ConfigError(
                f"{repo}: the Hub does not know you; log in with `{typed_here('hf auth login')}`, or set HF_TOKEN"
            ) from error
        if status in (403, 404):
            raise ConfigError(
                f"{repo}: your account may not write there ({status}); choose repo=<your name>/…, "
                "or a token with write access"
            ) from error
        raise ConfigError(
            f"{repo}: the Hub refused it ({' '.join(str(error).split())[:200]}); try again later"
        ) from error
    except OfflineModeIsEnabled as error:
        raise ConfigError(f"{repo}: HF_HUB_OFFLINE is set, so that nothing is sent; unset it") from error
    except _transport_errors() as error:
        raise ConfigError(
            f"{repo}: the Hub cannot be reached at {hub.endpoint} ({type(error).__name__}); give the same command again"
        ) from error
    return f"{hub.endpoint}/{'spaces/' if space else ''}{repo}" + ("" if revision == "main" else f"/tree/{revision}")


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the library that huggingface_hub speaks HTTP with raises where nobody answers; its name changed once."""
    found = (import_module(name) for name in ("httpx2", "httpx") if find_spec(name) is not None)
    return (OSError, *(module.HTTPError for module in found))
