"""Serving the page of the app."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradio import Blocks

    from lora_sam.app.workbench import Workbench

PATIENCE = 4.0  # seconds after which the model is loaded even if no page was opened
LOCAL = ("127.0.0.1", "localhost", "::1")
"""Names of this machine."""

# nothing reports home
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")


def serve(bench: Workbench, *, host: str, port: int | None, **options: Any) -> Blocks:
    """The page, served from a thread; the model loads in another one, once the page is there.

    Args:
        bench: What is shown.
        host: Address to listen on.
        port: Port; None for one that is free.
        options: Further arguments of Gradio's `launch`.

    Raises:
        OSError: the port is taken.
    """
    from starlette.middleware import Middleware

    from lora_sam.app.uploads import MAX_BYTES
    from lora_sam.app.web.guard import Guard
    from lora_sam.app.web.page import build, style, theme

    page = build(bench)
    local = host in LOCAL and not options.get("share")
    page.launch(
        server_name=host,
        server_port=port,
        max_file_size=MAX_BYTES,
        app_kwargs={"middleware": [Middleware(Guard, max_bytes=2 * MAX_BYTES, local=local)]},
        theme=theme(),
        css=style(),
        prevent_thread_lock=True,
        ssr_mode=False,
        enable_monitoring=False,
        quiet=True,
        **options,
    )
    # the first page asks for the model once it is painted: loading before that would delay it
    later = threading.Timer(PATIENCE, bench.start)
    later.daemon = True
    later.start()
    return page
