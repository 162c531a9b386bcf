"""`lora-sam push`: what is sent, to a server on loopback that answers like the Hub, and what stays here."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.report.model_card import model_card

REPO = "me/washers"
ROOT = Path(__file__).resolve().parents[2]


class Hub(ThreadingHTTPServer):
    """Keeps what is committed, and may refuse with a status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.created: dict[str, Any] = {}
        self.spaces: dict[str, bytes] = {}
        self.status = 200
        self.token: str | None = None
        self.private = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self.path)
        self.server.token = self.headers.get("Authorization")
        if self.server.status != 200:
            return self._say({"error": "no"}, self.server.status)
        if self.path == "/api/repos/create":
            self.server.created |= json.loads(content)
            return self._say({"url": f"{self.server.address}/{REPO}", "name": REPO})
        if "/preupload/" in self.path:
            files = json.loads(content)["files"]
            return self._say(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}
            )
        if "/commit/" in self.path:
            for line in content.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    kept = self.server.spaces if "/spaces/" in self.path else self.server.files
                    kept[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            done = {
                "commitUrl": f"{self.server.address}/{REPO}/commit/1",
                "commitOid": "1",
                "hookOutput": "",
                "success": True,
            }
            return self._say(done)
        return self._say({"warnings": [], "errors": []})

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = {"id": REPO, "sha": "0", "siblings": [], "private": self.server.private}
        self._say(content, self.server.status)

    def _say(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def run(finished_run: Callable[..., Any], tmp_path: Path) -> Path:
    finished_run(tmp_path / "run")
    (tmp_path / "run" / "report.html").write_text("<html></html>")
    return tmp_path / "run"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server
        server.shutdown()
        thread.join()


def test_the_adapter_goes_there_and_nothing_of_this_machine(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert from_conf("push", run=str(run), repo=REPO).perform() == 0
    assert hub.created["visibility"] == "private"
    assert hub.token == "Bearer hf_secret"
    adapter = run / "adapter"
    assert hub.files.keys() == {"README.md", "lora_sam.json", "adapter_config.json", "adapter_model.safetensors"}
    for name, content in hub.files.items():
        if name != "README.md":
            assert content == (adapter / name).read_bytes()
        assert str(Path.home()).encode() + b"/" not in content
        assert str(run.parent).encode() not in content
    assert f'load(snapshot_download("{REPO}")' in hub.files["README.md"].decode()
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.address}/{REPO}"


def test_into_a_public_repository_nothing_goes_that_is_meant_to_be_private(run: Path, hub: Hub) -> None:
    """The Hub leaves a repository that is there as it is, so that `private=true`, the default, was passed over."""
    hub.private = False
    for space in (None, "me/app"):
        with pytest.raises(ConfigError, match=r"is there already and public") as caught:
            from_conf("push", run=str(run), repo=REPO, space=space).perform()
        assert "\n" not in str(caught.value)
    assert not hub.files
    assert not hub.spaces
    assert from_conf("push", run=str(run), repo=REPO, private=False).perform() == 0
    assert hub.files


def test_where_the_adapter_that_a_run_began_with_lies_is_not_told(run: Path, hub: Hub) -> None:
    """Facts and card named the directory of that run, with the user's name in it."""
    place, facts = run / "adapter", json.loads((run / "adapter" / "lora_sam.json").read_text())
    facts["init_from"] = {"run": "/srv/jane.doe/secret/outputs/first", "sha256": "0", "validation_iou": 0.5}
    (place / "lora_sam.json").write_text(json.dumps(facts))
    (place / "README.md").write_text(model_card(facts, None))
    assert from_conf("push", run=str(run), repo=REPO, space="me/app").perform() == 0
    for name, content in {**hub.files, **hub.spaces}.items():
        assert b"jane" not in content, name
    assert "began with the adapter of `first`.\n" in hub.files["README.md"].decode()
    told = json.loads(hub.files["lora_sam.json"])
    assert told == {**facts, "init_from": {**facts["init_from"], "run": "first"}}


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ([-0.02, -0.01], "note: this adapter is worse than its base, which its card says: IoU -0.015"),
        ([-0.02, 0.01], "note: this adapter is not measurably better than its base"),
        ([0.01, 0.02], None),
        (None, "note: this run has not been evaluated yet"),
    ],
)
def test_what_is_not_better_than_its_base_is_said_before_it_is_shared(
    interval: list[float] | None, words: str | None, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = run / "adapter" / "lora_sam.json"
    facts = json.loads(place.read_text())
    delta = None if interval is None else {"iou": sum(interval) / 2, "iou_interval": interval}
    facts["metrics"] = None if delta is None else {"base": {"iou": 0.5}, "tuned": {"iou": 0.5}, "delta": delta}
    place.write_text(json.dumps(facts))
    assert from_conf("push", run=str(run), repo=REPO, dry_run=True).perform() == 0
    out = capsys.readouterr().out
    assert ("note:" in out) == (words is not None)
    assert (words or "") in out


def test_a_dry_run_asks_nobody(run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert from_conf("push", run=str(run), repo=REPO, dry_run=True, report=True).perform() == 0
    out = capsys.readouterr().out
    assert "report.html" in out
    assert f"this goes to {REPO} (private), branch main" in out
    assert not hub.asked


@pytest.mark.parametrize(("status", "words"), [(401, "hf auth login"), (403, "may not write"), (400, "refused")])
def test_what_the_hub_refuses_is_one_line(run: Path, hub: Hub, status: int, words: str) -> None:
    hub.status = status
    with pytest.raises(ConfigError, match=words) as caught:
        from_conf("push", run=str(run), repo=REPO).perform()
    assert "\n" not in str(caught.value)
    assert not hub.files


def test_nobody_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(ConfigError, match="cannot be reached at http://127.0.0.1:9"):
        from_conf("push", run=str(run), repo=REPO).perform()


def test_what_is_not_what_was_saved_stays_here(run: Path, hub: Hub) -> None:
    weights = run / "adapter" / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(AdapterError, match="not what was saved"):
        from_conf("push", run=str(run), repo=REPO).perform()
    assert not hub.asked


@pytest.mark.parametrize("repo", ["washers", "me/washers/x", "me/wash ers", "https://example.org/me/washers"])
def test_a_name_that_cannot_be(repo: str) -> None:
    with pytest.raises(ConfigError, match="repo"):
        from_conf("push", repo=repo)


STARTED = """
import runpy, sys
import lora_sam
from lora_sam.cli import app

def serve(bench, **options):
    bench.start()
    bench.ready.wait()
    print(lora_sam.__file__, list(bench.runs), options["host"], options["auth"], bench.folder, bench.failure)
    sys.exit(0)

app.serve = serve
runpy.run_path("app.py", run_name="__main__")
"""


def test_a_space_runs_the_app_on_the_adapter(
    run: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "tests" / "fixtures" / "run_before_rooms" / "evaluation.json", run)
    assert from_conf("push", run=str(run), repo=REPO, space=f"{REPO}-app").perform() == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.address}/spaces/{REPO}-app"
    assert hub.created["type"] == "space"
    assert hub.created["sdk"] == "gradio"
    place = tmp_path / "space"
    for name, content in hub.spaces.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    for path in place.rglob("*"):
        if path.suffix in (".md", ".json", ".txt", ".yaml", ".py") and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert str(run.parent) not in text
            assert str(Path.home()) + "/" not in text
    head = yaml.safe_load((place / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert head["sdk"] == "gradio"
    assert head["app_file"] == "app.py"
    assert head["models"] == [REPO]
    needed = [Requirement(line) for line in (place / "requirements.txt").read_text(encoding="utf-8").splitlines()]
    assert {one.name for one in needed} >= {"torch", "peft", "hydra-core"}
    assert "gradio" not in {one.name for one in needed}  # the Hub installs the version of the header
    report = json.loads((place / "outputs/shared/evaluation.json").read_text(encoding="utf-8"))
    assert [one["id"] for one in report["per_image"]] == [f"image {n + 1}" for n in range(len(report["per_image"]))]

    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTHON"))}
    command = [sys.executable, "-c", STARTED]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(place / "lora_sam" / "__init__.py"), "['shared']", "0.0.0.0", "None", "None", "None",
    ]  # fmt: skip


def test_a_dry_run_tells_of_the_space(run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert from_conf("push", run=str(run), repo=REPO, space="me/app", dry_run=True).perform() == 0
    out = capsys.readouterr().out
    assert "me/app: a Space of" in out
    assert "and the Space to me/app" in out
    assert not hub.asked
    with pytest.raises(ConfigError, match="the name of the adapter"):
        from_conf("push", run=str(run), repo=REPO, space=REPO).perform()
