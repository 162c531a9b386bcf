"""Every command and every Python snippet in README and docs/ works as it stands there."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from PIL import Image

from lora_sam import load, read_image
from lora_sam.cli.console import console
from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.cli.step import steps as known_steps
from lora_sam.cli.sweeps import with_sweep
from lora_sam.cli.train import run_train
from lora_sam.core.config import step_from
from lora_sam.core.errors import AdapterError, CheckpointError, ConfigError
from lora_sam.data.splits import split_ids
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.runs.resuming import resumed_config
from lora_sam.training.settings import settings_from
from tests.data import test_auto, test_datumaro_json, test_hf

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# what makes any command of the documentation quick, without changing what it does
QUICK = [
    "model=tiny_random", "trainer.max_epochs=null", "trainer.max_steps=1", "trainer.overlays=0", "tracker=none",
]  # fmt: skip
# shown on purpose, for the error they give
MISTAKES = {"method.rnk=4", "method.rank=0", "optim.schedule=cosin"}


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for text in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            found.append((page.name, text))
    return found


# for maintainers: what a module is, how the weights of the package were made, what benchmarks called
OF_MAINTAINERS = {"design.md", "nano.md", "benchmarks.md"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in OF_MAINTAINERS], ids=lambda page: page.name
)
def test_commands_are_typed_in_one_way(page: Path) -> None:
    """As README does: what `make setup` has put there, by its path, with no environment to activate."""
    text = page.read_text(encoding="utf-8")
    others = re.findall(
        r"^.*(?:python train\.py|python -m lora_sam[\w.]*|(?:^|\s)train\.py) +[\w'\"-]+[=.\w].*$", text, re.M
    )
    typed = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    typed += re.findall(r"`([^`\n]+)`", text)
    others += [line for line in typed if re.match(r"(?:\$ )?(?:lora-sam|torchrun) +\S", line) and "--" not in line]
    # where the package is installed without a checkout
    allowed = {"lora-sam train", "lora-sam predict"} if page.name == "index.md" else set()
    assert set(others) <= allowed


def commands() -> list[tuple[str, str]]:
    """Lines that call train.py, of all pages, fenced or inline."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
        for line in lines:
            calls = r"(?:HYDRA_FULL_ERROR=1 )?(?:python train\.py|\.venv/bin/lora-sam (?:train|sweep))"
            match = re.match(rf"\s*(?:\$ )?(?:{calls}) (.*)", line)
            if match and "..." not in match[1] and "…" not in match[1]:
                found.append((page.name, re.split(r"\s{2,}", match[1].split(" #")[0].strip())[0]))
    return sorted(set(found))


COMMANDS = commands()


def steps() -> list[tuple[str, str, str]]:
    """Lines that call a step after training, of all pages, fenced or inline: page, verb, options."""
    found = []
    for page in PAGES:
        called = r"(?:python -m lora_sam\.|\.venv/bin/lora-sam (?!train|sweep|app|demo))([\w.-]+)((?: +[^\s`#]+)*)"
        for match in re.finditer(called, page.read_text(encoding="utf-8")):
            if "..." not in match[2] and "<" not in match[2]:
                # what stands apart by more than a space explains it
                found.append((page.name, match[1], re.split(r" {2,}", match[2].strip())[0]))
    return sorted(set(found))


STEPS = steps()


@pytest.fixture(scope="session")
def workplace(blobs, tmp_path_factory):
    """A directory with `my_data` (COCO), `my_masks` (folders), an image, and a finished run."""
    place = tmp_path_factory.mktemp("workplace")
    shutil.copytree(blobs, place / "my_data")
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            folder = place / "my_masks" / split / kind
            folder.mkdir(parents=True)
            for index in range(3):
                pixels = np.zeros((48, 48, 3), np.uint8)
                pixels[10 : 30 + index, 8:28] = 200
                picture = Image.fromarray(pixels if kind == "images" else pixels[..., 0] // 200 * 255)
                picture.save(folder / f"{index}.png")
    shutil.copy(place / "my_data" / "images" / "test" / "1.png", place / "image.png")
    shutil.copytree(place / "my_data" / "images" / "test", place / "my_images")
    before = Path.cwd()
    os.chdir(place)
    try:
        train("first", *QUICK, "data.root=my_data")
    finally:
        os.chdir(before)
    return place


def composed(*arguments: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", list(arguments)))


def train(name: str, *arguments: str) -> Path:
    """What train.py does, in this process and directory."""
    config = resumed_config(composed(*arguments), arguments)
    directory = Path("outputs", name)
    run(settings_from(config), config=config, output_dir=directory)
    return directory


def test_there_are_commands_to_test():
    assert len(COMMANDS) >= 12
    assert any(page == "README.md" for page, _ in COMMANDS)


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {text}" for page, text in COMMANDS])
def test_a_documented_command_is_valid(page, command, workplace, monkeypatch):
    """Composed and checked as `train.py` does it, up to weights and data that a user has to bring."""
    monkeypatch.chdir(workplace)
    arguments = shlex.split(command)
    if any(part.startswith("sweep=") for part in arguments):  # the words of another command
        with pytest.raises(AdapterError, match="no sweep has been made here yet"):
            with_sweep(arguments)
        return
    arguments = with_sweep(arguments)
    if MISTAKES & set(arguments):
        with pytest.raises((ConfigError, HydraException)):
            settings_from(composed(*arguments))
        return
    flags = {part for part in arguments if part.startswith("-")}
    assert flags <= {"-m", "--multirun", "--help", "--cfg"}
    # of a sweep, the first job; what belongs to Hydra's own command line is left out
    values = [part for part in arguments if "=" in part and not part.startswith("hydra.")]
    values = [re.sub(r"=(?:tag\(log,)?(?:int\()?interval\(([^,]+),.*", r"=\1", part) for part in values]
    first = [re.sub(r"=(?:range\()?([^\[\]'\",]*),?[^\[\]'\"]*$", r"=\1", part).rstrip(")") for part in values]
    missing = "data.root is not set" if not any("data" in part or "exp" in part for part in first) else None
    try:
        settings_from(composed(*first))
    except (CheckpointError, ConfigError) as error:
        missing = missing or "checkpoint"  # the weights of an experiment, which are not part of the checkout
        if missing not in str(error):
            raise


@pytest.mark.usefixtures("quiet_logging")
def test_the_commands_about_sweeps_run_in_their_order(workplace, tmp_path, monkeypatch, capsys):
    """As typed, but for a small model and two jobs for each sweep."""
    shutil.copytree(workplace / "my_data", tmp_path / "my_data")
    monkeypatch.chdir(tmp_path)
    commands = [line for page, text in blocks("bash") if page == "sweeps.md" for line in text.splitlines()]
    assert len(commands) == 4
    said = []
    for command in commands:
        program, verb, *words = shlex.split(command)
        assert program == ".venv/bin/lora-sam"
        if verb != "train":
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                step = step_from(plain(compose(verb, words)))
            assert step.perform() == 0
            continue
        swept = 0
        for place, word in enumerate(words):
            swept += "," in word
            words[place] = re.sub(r",.*", "", word) if swept > 1 or "seeds=3" in words else word
        words = ["seeds=2" if word == "seeds=3" else word for word in words]
        small = [] if any(word.startswith("sweep=") for word in words) else QUICK
        assert run_train("train.py", [*words, *small]) == 0, command
        said.append(capsys.readouterr().out)
    assert "sweep of 2 jobs: 2 done" in said[0]
    assert said[1].count("(done before)") == 2
    assert "over seeds and images" in " ".join(said[2].split())
    assert len(list(Path("multirun").glob("*/*/sweep.html"))) == 2
    assert (Path("multirun") / "best" / "report.html").is_file()


def test_the_site_has_every_page():
    """`make docs` says so too, of what a link does not reach; the generated pages are made by scripts/docs_site.py."""

    def pages(part: Any) -> list[str]:
        if isinstance(part, str):
            return [part]
        return [page for one in (part.values() if isinstance(part, dict) else part) for page in pages(one)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert len(listed) == len(set(listed))
    assert {page for page in listed if "/" not in page} == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_no_table_that_a_program_writes_is_empty():
    empty = [page.name for page in PAGES if re.search(r"<!-- ([\w:]+) -->\s*<!-- /\1 -->", page.read_text("utf-8"))]
    assert empty == []


def test_every_public_name_is_in_the_reference():
    import lora_sam

    written = runpy.run_path(str(ROOT / "scripts" / "docs_site.py"))["public_names"]()
    for name in lora_sam.__all__:
        assert f"\n::: {getattr(lora_sam, name).__module__}.{name}\n" in written
        assert getattr(lora_sam, name).__doc__
    assert "reference/python.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_there_are_steps_to_test():
    assert {verb.removeprefix("data.") for _, verb, _ in STEPS} >= set(known_steps())


@pytest.mark.parametrize(("page", "verb", "options"), STEPS, ids=[" ".join(step) for step in STEPS])
def test_a_documented_step_is_valid(page, verb, options):
    arguments = shlex.split(options)
    if verb == "preview":  # the options of train.py, and its own
        settings_from(composed(*(argument for argument in arguments if not argument.startswith("preview."))))
        return
    verb = {"data.check": "check"}.get(verb, verb)
    if verb == "embeddings" and arguments and "=" not in arguments[0]:
        arguments[0] = f"action={arguments[0]}"
    assert verb in known_steps(), f"{page}: python -m lora_sam.{verb}"
    if arguments == ["--help"]:
        return
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        step_from(plain(compose(verb, arguments)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["data=folder", "data.root=my_masks"],
        ["data.root=my_data", "method.rank=16", "method.targets=[q,k,v,proj]", "method.blocks=last:1"],
        ["resume=latest", "trainer.max_steps=2"],
    ],
    ids=" ".join,
)
def test_a_documented_command_trains(arguments, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    quick = [] if "resume=latest" in arguments else QUICK
    directory = train("_".join(arguments), *quick, *arguments)
    report = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
    assert report["images"] == 3


def formats() -> dict[str, tuple[list[str], list[str]]]:
    """The table of formats in docs/data.md: by `data=` what lies in the directory, and the words after `train`."""
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]+) \| `\.venv/bin/lora-sam train (data=(\w+) data\.root=my_data)` \|$",
        (ROOT / "docs" / "data.md").read_text(encoding="utf-8"),
        re.M,
    )
    return {option: (re.findall(r"`([^`]+)`", picture), shlex.split(command)) for picture, command, option in rows}


def write_hugging_face(root: Path, scenes: test_auto.Scenes) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    masks = [test_hf.cell(test_hf.square(1 + row, 2)) for row in range(3)]
    test_hf.write_parquet(
        root,
        {
            split: test_hf.rows_of(datasets, masks, datasets.Image(), offset=3 * number)
            for number, split in enumerate(scenes)
        },
    )


WRITERS: dict[str, Callable[[Path, test_auto.Scenes], None]] = {
    "coco": test_auto.write_coco,
    "voc": test_auto.write_voc,
    "common_semantic": test_auto.write_common_semantic,
    "datumaro": lambda root, _: test_datumaro_json.write(root) and None,
    "folder": lambda root, scenes: test_auto.write_labels(root, scenes, ending=".png", folder="masks"),
    "labels": lambda root, scenes: test_auto.write_labels(root, scenes, ending=".tif"),
    "hf": write_hugging_face,
}


def test_the_page_about_data_has_every_format():
    assert set(formats()) == set(WRITERS) == set(test_auto.FORMATS)


def test_the_page_about_methods_has_every_method() -> None:
    names = {path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")}
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/methods.md", "README.md"))
    rows = re.findall(r"^\| (`.*?) \|", page.partition("## What there is")[2].partition("\n## ")[0], re.M)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(names)
    others = [str(len(names - {"lora", "decoder", "full"}))]
    assert re.findall(r"\[(\d+) more\]\(docs/methods", readme) == others
    assert re.findall(r"\[(\d+) further methods\]", (ROOT / "docs/usage.md").read_text(encoding="utf-8")) == others
    staying = re.findall(r"`(\w+)`", page.partition("## What does not fold")[2].partition(" put layers")[0])
    assert set(staying) <= names
    count = {4: "four", 5: "five", 6: "six", 7: "seven"}[len(staying)]
    assert f"All\nbut {count} [fold]" in page


@pytest.mark.parametrize("option", WRITERS)
def test_your_data_in_one_command(option, tmp_path, monkeypatch):
    """Trains on generated data that lies as docs/data.md says, found by itself and forced."""
    picture, command = formats()[option]
    root = tmp_path / "my_data"
    scenes = {
        split: [test_auto.scene(f"{split}{n}", np.random.default_rng((number, n))) for n in range(3)]
        for number, split in enumerate(("train", "val", "test"))
    }
    if option == "hf":
        datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
        datasets.disable_progress_bars()
    WRITERS[option](root, scenes)
    assert len(picture) >= 1
    assert all(any(root.glob(name)) for name in picture)
    monkeypatch.chdir(tmp_path)
    directory = train("run", *QUICK, "data.root=my_data")
    report = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
    assert report["images"] == 3
    assert ("classes" in report) == (option in {"coco", "voc", "common_semantic", "datumaro"})
    forced = settings_from(composed(*QUICK, *command)).open_data()
    stored = json.loads((directory / "splits.json").read_text(encoding="utf-8"))
    assert split_ids(forced) == {role: stored[role] for role in ("train", "val", "test")}
    assert settings_from(composed(*QUICK, "data.root=my_data")).data.found().option == option


# the app's client is run in tests/browser, where there is an app to call
SNIPPETS = [
    (page, text)
    for page, text in blocks("python")
    if text.startswith(("from ", "import ")) and not text.startswith("from gradio_client")
]


def test_there_are_snippets_to_test():
    assert {page for page, _ in SNIPPETS} >= {"README.md", "usage.md"}


@pytest.mark.parametrize(("page", "text"), SNIPPETS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(SNIPPETS)])
def test_a_documented_snippet_runs(page, text, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    if "openvino" in text:  # what the page has done before
        for verb in ("merge", "export"):
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                step_from(plain(compose(verb, ["run=outputs/first"]))).perform()
        text = text.replace("outputs/latest", "outputs/first")
    names: dict[str, Any] = {}
    exec(compile(text, page, "exec"), names)
    if "result" in names:
        assert names["result"].masks.shape == (1, 48, 64)


def test_documented_files_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_one_screen_with_one_table() -> None:
    assert len(re.sub(r"^\|.*$", "", README, flags=re.M).split()) <= 500
    (table,) = re.findall(r"(?:^\|.*\n)+", README, re.M)
    assert len(table.splitlines()) == 2 + 4


def readme_commands() -> list[str]:
    """Every line of the README's shell blocks, in its order, without what explains it."""
    lines = [line for page, text in blocks("bash") if page == "README.md" for line in text.splitlines()]
    return [line.split(" #")[0].strip() for line in lines]


@pytest.mark.usefixtures("quiet_logging", "memory_in_this_process")
def test_every_command_of_the_readme_runs(workplace, tmp_path, monkeypatch, capsys):
    """Those of `.venv/bin` one after the other, as typed, but for a small model; of make, what it would call."""
    # whatever a step of training from random weights loses: `tests/cli/test_quantize.py` climbs on
    monkeypatch.setattr("lora_sam.deployment.quantizing.ladder.is_enough", lambda attempt, limit: True)
    monkeypatch.setattr("lora_sam.deployment.quantizing.attempts.is_enough", lambda attempt, limit: True)
    shutil.copytree(workplace / "my_data", tmp_path / "my_data")
    shutil.copytree(workplace / "my_images", tmp_path / "my_images")
    monkeypatch.chdir(tmp_path)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"lora-sam": "lora_sam.cli.console:console"}
    said = {}
    # what a make around this one was told would be told to the commands as well
    told = ("ARGS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    alone = {name: value for name, value in os.environ.items() if name not in told}
    for command in readme_commands():
        program, *words = shlex.split(command)
        if program == "make":
            call = subprocess.run(
                ["make", "--dry-run", "--always-make", *words], cwd=ROOT, capture_output=True, text=True, env=alone
            )
            assert call.returncode == 0, call.stderr
            said[command] = call.stdout.strip().splitlines()[-1]
            continue
        assert program == ".venv/bin/lora-sam", f"not there after make setup alone: {command}"
        small = QUICK if words[0] == "train" and "--help" not in words else []
        monkeypatch.setattr(sys, "argv", [program, *words, *small])
        try:
            code = console()
        except SystemExit as ended:  # as `--help` does
            code = ended.code or 0
        assert code == 0, command
        output = capsys.readouterr()
        said[command] = output.out + output.err
    assert said["make demo"].strip() == ".venv/bin/lora-sam demo"
    assert "-m pytest" in said["make test"]
    assert said["make app"].strip() == ".venv/bin/lora-sam app"
    assert {path.name for path in Path("outputs/latest").iterdir()} >= {
        "adapter", "evaluation.json", "report.html", "merged", "openvino", "backends.json",
    }  # fmt: skip
    assert any("int8" in text for command, text in said.items() if "deploy" in command)
    found = json.loads(Path("predictions/my_images/coco.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in found["images"]] == ["1.png", "2.png", "3.png"]


def test_shares_that_the_readme_names(option, monkeypatch):
    """Of what trains, from shapes alone."""
    monkeypatch.setattr("lora_sam.models.building._digest", lambda state: "")

    def share(model: str, **changes: Any) -> tuple[float, float]:
        with torch.device("meta"):
            sam = option(f"model/{model}", weights="random").build().sam
            total = sum(weight.numel() for weight in sam.parameters())
            decoder = sum(weight.numel() for weight in sam.mask_decoder.parameters())
            trained = option("method/lora", **changes).apply(sam).trainable().values()
        return sum(weight.numel() for weight in trained) / total, decoder / total

    assert f"default trains {100 * share('vit_b')[0]:.1f} % of the weights" in README
    assert f"leaves {100 * share('vit_b', decoder='frozen')[0]:.1f} %" in README
    assert share("nano")[1] == pytest.approx(0.5, abs=0.05)
    assert "its decoder is half of it" in README


def test_make_targets_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    calls = re.compile(r"(?:^|`)make ([a-z-]+)", re.M)
    targets = {name for page in PAGES for name in calls.findall(page.read_text(encoding="utf-8"))}
    assert {"demo", "test"} <= targets
    for name in targets:
        assert re.search(rf"^{name}:", makefile, re.M), name


def test_the_weights_of_a_run_are_a_checkpoint(workplace, monkeypatch):
    """`scripts/weights_of_run.py`, as docs/nano.md calls it."""
    monkeypatch.chdir(workplace)
    write_weights = runpy.run_path(str(ROOT / "scripts" / "weights_of_run.py"))["write_weights"]
    write_weights("outputs/first", Path("whole.safetensors"), half=False)
    write_weights("outputs/first", Path("half.safetensors"), half=True)
    assert Path("half.safetensors").stat().st_size < 0.6 * Path("whole.safetensors").stat().st_size
    boxes = [[8, 10, 28, 30], [2, 2, 40, 40]]
    tuned = load("outputs/first").segment(read_image("image.png"), boxes=boxes)
    for name, tolerance in (("whole", 1e-4), ("half", 5e-3)):
        settings = settings_from(
            composed("data.root=my_data", *QUICK, "model.weights=pretrained", f"model.checkpoint={name}.safetensors")
        )
        base = settings.model.build()
        merged = TorchPredictor(base.sam, base.image_size).segment(read_image("image.png"), boxes=boxes)
        scale = np.abs(tuned.low_res_logits).max()
        assert np.abs(merged.low_res_logits - tuned.low_res_logits).max() <= tolerance * scale
    with pytest.raises(AdapterError, match="no adapter there"):
        write_weights("outputs/absent", Path("x.safetensors"), half=True)
