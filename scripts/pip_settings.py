"""Prints pip's index and certificate bundle as shell exports, so that Poetry downloads from where pip does."""

from __future__ import annotations

import os
import shlex


def pip_settings() -> dict[str, str]:
    """Environment variables for Poetry, after pip's own order: environment, user and site configuration, default.

    Variables that are already set are left as they are.
    """
    # pip has no public interface for its merged settings: `pip config get` shows one file's value and no default
    from pip._internal.commands import create_command

    options, _ = create_command("install").parse_args([])
    found = {"POETRY_PYPI_MIRROR_URL": options.index_url, "REQUESTS_CA_BUNDLE": options.cert}
    return {name: value for name, value in found.items() if value and not os.environ.get(name)}


if __name__ == "__main__":
    for name, value in pip_settings().items():
        print(f"export {name}={shlex.quote(value)}")
