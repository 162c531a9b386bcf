"""The app: base and tuned masks in a browser, served until interrupted."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from lora_sam.app.web.server import LOCAL, serve
from lora_sam.core.calling import training_called
from lora_sam.core.errors import ConfigError
from lora_sam.core.extras import require_extra
from lora_sam.core.signals import SIGNALS, Stoppable, exit_code

PATIENCE = 1.0
"""Seconds after which a signal ends the app, whatever it does."""


def _parser(program: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        program, description="Compare base and tuned masks in a browser: open the address that is printed."
    )
    made.add_argument("run", nargs="?", help="run to begin with: latest (default), a name, or a path; also run=...")
    made.add_argument("--outputs", type=Path, default=Path("outputs"), help="directory of runs (default: outputs)")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: only this machine)")
    made.add_argument("--port", type=int, default=7860, help="port (default: 7860)")
    made.add_argument("--auth", metavar="USER:PASSWORD", default=os.environ.get("LORA_SAM_AUTH"), help="ask for these")
    made.add_argument(
        "--no-auth", action="store_true", help="ask nobody for a password: behind what asks already, or for all to use"
    )
    made.add_argument("--share", action="store_true", help="a public link; only with --auth")
    made.add_argument(
        "--collect", type=Path, default=Path("data") / "corrected", metavar="DIRECTORY",
        help="where accepted masks are kept as training data (default: data/corrected)",
    )  # fmt: skip
    made.add_argument("--no-collect", action="store_true", help="keep no masks on this machine")
    made.add_argument("--open", action="store_true", help="open the browser")
    return made


def serve_app(arguments: Sequence[str], program: str | None = None) -> int:
    """Serve the page until interrupted (130, or 143 by SIGTERM); 2 for a mistake of the user.

    Args:
        arguments: The words after the command.
        program: How it was called; None for the name of the script.
    """
    given = _parser(program).parse_args(arguments)
    given.trainer = training_called()
    user, colon, password = (given.auth or "").partition(":")
    if given.auth and not (user and colon and password):
        return _refuse("--auth is not USER:PASSWORD")
    if given.auth and given.no_auth:
        return _refuse("--auth and --no-auth are opposites: leave one out")
    if not given.auth and (given.share or (given.host not in LOCAL and not given.no_auth)):
        wish = "--share" if given.share else f"--host {given.host}"
        return _refuse(f"{wish} lets others use this machine: add --auth USER:PASSWORD, or leave it out")
    try:
        require_extra("app", "app")
    except ConfigError as error:
        return _refuse(str(error))

    stop = Stoppable(lambda number: None, patience=PATIENCE)
    try:
        with stop:
            _end_at_once()
            code = _until_stopped(given, (user, password) if given.auth else None)
    except KeyboardInterrupt as error:
        return exit_code(error)
    return 128 + stop.received if stop.received else code  # Gradio keeps the signal to itself


def _until_stopped(given: argparse.Namespace, auth: tuple[str, str] | None) -> int:
    from lora_sam.app.workbench import Workbench
    from lora_sam.core.errors import LoraSamError

    try:
        wanted = (given.run or "").removeprefix("run=") or None
        bench = Workbench(
            given.outputs, wanted, folder=None if given.no_collect else given.collect, program=given.trainer
        )
        page = serve(bench, host=given.host, port=given.port, auth=auth, share=given.share, inbrowser=given.open)
    except (LoraSamError, OSError) as error:
        hint = "; choose another one with --port" if isinstance(error, OSError) else ""
        return _refuse(f"{error}{hint}")
    sys.stderr.write(f"{page.local_url} (stop with Ctrl + C)\n")
    _end_at_once()  # once more: what is served may have handlers of its own
    page.block_thread()
    return 0


def _end_at_once() -> None:
    """From now on a signal ends the process: files appear whole or not at all, and threads that compute would go on.

    Gradio would wait for open connections, Python for its threads. Where Python does not come to handle the signal, as
    while a library is loaded, `Stoppable` ends the process after `PATIENCE`.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def _refuse(message: str) -> int:
    sys.stderr.write(f"{' '.join(message.split())}\n")
    return 2
