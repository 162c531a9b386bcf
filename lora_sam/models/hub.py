"""Weights that are published on the Hub of Hugging Face, some behind a gate: fetched at a commit, with your account."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.calling import typed_here

if TYPE_CHECKING:
    from lora_sam.models.checkpoints import Checkpoint

_ADDRESS = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/([\w.-]+)$")


class HubError(Exception):
    """A file cannot be had from the Hub; says why, in words that follow "and"."""


def on_hub(checkpoint: Checkpoint) -> bool:
    """Whether a file is published there."""
    return _ADDRESS.match(checkpoint.url) is not None


def fetch_from_hub(checkpoint: Checkpoint, path: Path) -> None:
    """Download to `path`, resumed where a former attempt ended; the account is the one of `hf auth login` or HF_TOKEN.

    Raises:
        HubError: no gate was passed, there is no such revision or file, or no connection.
    """
    from huggingface_hub import errors, hf_hub_download

    address = _ADDRESS.match(checkpoint.url)
    assert address is not None, "asked for without `on_hub`"
    repository, revision, name = address.groups()
    page = f"https://huggingface.co/{repository}"
    try:
        hf_hub_download(repository, name, revision=revision, local_dir=path.parent)
    except errors.GatedRepoError as error:
        raise HubError(
            f"it is behind a gate that this account has not passed: ask for access at {page}, wait for it, then run "
            f"`{typed_here('hf auth login')}` here or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{page} has no revision {revision}: leave model.url as it is in conf/model") from error
    except errors.EntryNotFoundError as error:
        raise HubError(f"{page} has no file {name} at the revision {revision}") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(f"{page} is not there, or not for this account") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HubError(f"the download failed: {reason[:200]}") from error
