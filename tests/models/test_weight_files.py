"""Weight files: which are published, and that they are read safely, as they are stored."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_sam.core.errors import CheckpointError
from lora_sam.core.files import sha256_of
from lora_sam.core.scores import META, Scores
from lora_sam.models import checkpoints
from lora_sam.models.checkpoints import OFFICIAL, default_directory, load_scores, load_state_dict

# --- registry --------------------------------------------------------------------------------------------------------


def test_the_registry_holds_metas_files_and_that_of_mobile_sam() -> None:
    assert {name: (entry.filename, entry.size) for name, entry in OFFICIAL.items()} == {
        "vit_b": ("sam_vit_b_01ec64.pth", 375042383),
        "vit_l": ("sam_vit_l_0b3195.pth", 1249524607),
        "vit_h": ("sam_vit_h_4b8939.pth", 2564550879),
        "tiny_vit": ("mobile_sam.pt", 40728226),
        "sam2_tiny": ("sam2.1_hiera_tiny.pt", 156008466),
        "sam2_small": ("sam2.1_hiera_small.pt", 184416285),
        "sam2_base_plus": ("sam2.1_hiera_base_plus.pt", 323606802),
        "sam2_large": ("sam2.1_hiera_large.pt", 898083611),
        "sam3": ("sam3.pt", 3450062241),
    }
    for name, entry in OFFICIAL.items():
        assert entry.variant == name
        folder = "segment_anything_2/092824" if name.startswith("sam2_") else "segment_anything"
        meta = f"https://dl.fbaipublicfiles.com/{folder}/{entry.filename}"
        # at a commit: what is published under a branch may change
        theirs = r"https://raw\.githubusercontent\.com/ChaoningZhang/MobileSAM/[0-9a-f]{40}/weights/mobile_sam\.pt"
        gated = r"https://huggingface\.co/facebook/sam3/resolve/[0-9a-f]{40}/sam3\.pt"
        pinned = {"tiny_vit": theirs, "sam3": gated}
        assert re.fullmatch(pinned.get(name, re.escape(meta)), entry.url)
        assert len(bytes.fromhex(entry.sha256)) == 32
    # Meta's file names carry the start of nothing: vit_b's label is not its digest
    assert not OFFICIAL["vit_b"].sha256.startswith("01ec64")


def test_the_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LORA_SAM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_directory() == tmp_path / ".cache" / "lora_sam" / "checkpoints"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_directory() == tmp_path / "xdg" / "lora_sam" / "checkpoints"
    monkeypatch.setenv("LORA_SAM_CACHE", "~/own")
    assert default_directory() == tmp_path / "own"


# --- reading ---------------------------------------------------------------------------------------------------------

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "b": torch.tensor([1.5, -2.0]),
    "steps": torch.tensor(7),
}


def assert_as_stored(found: dict[str, torch.Tensor]) -> None:
    assert type(found) is dict
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].device.type == "cpu"
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.PTH", "pytorch_model.bin", "epoch=3.ckpt"])
def test_pickled_weights_are_read(tmp_path: Path, name: str, zipped: bool) -> None:
    torch.save(OrderedDict(TENSORS), tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_as_stored(load_state_dict(tmp_path / name))


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert_as_stored(load_state_dict(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    "wrapper",
    [
        {"model": TENSORS},
        {"state_dict": TENSORS, "epoch": 3},
        {"model": TENSORS, "optimizer": {"state": {0: {}}}},
        {"model_state": TENSORS, "decoder_state": {"out.weight": torch.ones(2)}},
        {"model_state_dict": TENSORS, "optimizer_state_dict": {"state": {}}},
    ],
)
def test_an_unambiguous_wrapper_is_taken_off(tmp_path: Path, wrapper: dict[str, object]) -> None:
    torch.save(wrapper, tmp_path / "w.pth")
    assert_as_stored(load_state_dict(tmp_path / "w.pth"))


def test_a_second_set_of_the_same_weights_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A running mean is often what the figures of the file are of."""
    mean = {f"module.{name}": value + 1 for name, value in TENSORS.items()}
    torch.save({"model": TENSORS, "ema": mean, "optimizer": {"lr": TENSORS["b"]}}, tmp_path / "w.pth")
    assert_as_stored(load_state_dict(tmp_path / "w.pth"))
    assert "has weights of the same names under model and ema; those under model are read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        ({"model": TENSORS, "state_dict": TENSORS}, "a mapping with model, state_dict"),
        ({"model": {"inner": TENSORS}}, "a mapping with model"),
        ({"weights": TENSORS, "epoch": 3}, "a mapping with epoch, weights"),
        ({0: TENSORS["b"]}, "a mapping with 0"),
        ({}, "a mapping with nothing"),
        ([TENSORS["b"]], "a list"),
        (TENSORS["b"], "a Tensor"),
    ],
)
def test_anything_else_than_one_state_dict_is_refused(tmp_path: Path, content: object, shape: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"holds {shape}, where one mapping of names to tensors is needed"):
        load_state_dict(tmp_path / "w.pth")


class Malicious:
    """Would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, harm = tmp_path / "w.pth", tmp_path / "harm"
    if form == "bare":
        path.write_bytes(pickle.dumps(Malicious(harm)))
    else:
        torch.save({"model": Malicious(harm)}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="loading those could run code. Save only the state dict"):
        load_state_dict(path)
    assert not harm.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_a_truncated_pickle_is_told(tmp_path: Path, kept: float, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(5000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="w.pth cannot be read as weights, it is cut short or damaged"):
        load_state_dict(path)


@pytest.mark.parametrize("kept", [0, 4, 30, 300])
def test_truncated_safetensors_are_told(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="w.safetensors cannot be read as weights, it is cut short or damaged"):
        load_state_dict(path)


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(500_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "w.pth", "w") as bomb:
        for entry in plain.namelist():
            bomb.writestr(entry, plain.read(entry), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "w.pth").stat().st_size < 20_000
    with pytest.raises(CheckpointError, match="w.pth is compressed, which weights never are"):
        load_state_dict(tmp_path / "w.pth")


def test_missing_files_folders_and_other_kinds_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere.pth is not a file. Give the path of a .safetensors, .pth, "):
        load_state_dict(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match="is not a file"):
        load_state_dict(tmp_path)
    (tmp_path / "w.npz").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"ends in '.npz'; weights are read from .safetensors, .pth, .pt, .bin or .ck"
    ):
        load_state_dict(tmp_path / "w.npz")


# --- scores of the weights -------------------------------------------------------------------------------------------


def test_weights_say_from_which_score_on_masks_are_good(tmp_path: Path) -> None:
    own, path = Scores(predicted_iou=0.5, stability=0.6, stability_offset=0.3), tmp_path / "own.safetensors"
    save_file({"a": torch.zeros(2)}, path, own.to_metadata())
    assert load_scores(path) == own
    save_file({"a": torch.zeros(2)}, path)
    assert load_scores(path) == META
    assert load_scores(tmp_path / "meta.pth") == META


@pytest.mark.parametrize(
    "text", ["{", '{"scores": {"stability": 2}}', '{"scores": [1]}'], ids=["json", "names", "list"]
)
def test_scores_that_cannot_be_are_an_error_of_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"lora_sam": text})
    with pytest.raises(CheckpointError, match=f"^{path}: metadata 'lora_sam': .*; write the file again$"):
        load_scores(path)
    path.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        load_scores(path)


def test_the_packaged_weights_have_thresholds_that_leave_masks() -> None:
    path = checkpoints.packaged_checkpoint("nano")
    assert path is not None
    scores = checkpoints.load_scores(path)
    assert scores.predicted_iou < META.predicted_iou
    assert scores.stability < META.stability or scores.stability_offset < META.stability_offset


def test_weights_that_were_merged_for_another_input_say_so(option, tmp_path: Path, capsys) -> None:
    """Merged at 64 pixels and loaded at 128, its positions were scaled without a word."""
    from lora_sam.models.projections import fuse_projections

    made = option("model/tiny_random")
    state = {name: value.contiguous() for name, value in fuse_projections(made.build().sam).state_dict().items()}
    about = json.dumps({"architecture": {**made.architecture(), "variant": "mine"}})
    save_file(state, tmp_path / "sam.safetensors", {"lora_sam": about})
    option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "sam.safetensors")).build()
    assert capsys.readouterr().err == ""
    option(
        "model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "sam.safetensors"), image_size=128
    ).build()
    said = " ".join(capsys.readouterr().err.split())
    assert "'sam.safetensors' was merged for a model with image_size = 64; it is used with image_size = 128" in said


# --- which weights a model will have ---------------------------------------------------------------------------------


def test_the_sha256_of_the_base_is_known_before_it_is_built(
    option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    own = option("model/vit_b", weights="pretrained", checkpoint=str(path))
    assert checkpoints.sha256_now(own) is None
    path.write_bytes(b"weights")
    assert checkpoints.sha256_now(own) == sha256_of(path)
    assert checkpoints.sha256_now(option("model/tiny_random")) is None
    published = option("model/vit_b", weights="pretrained", checkpoint=None)
    assert checkpoints.sha256_now(published) == OFFICIAL["vit_b"].sha256
    nano = option("model/nano")
    packaged = checkpoints.packaged_checkpoint("nano")
    assert packaged is not None
    assert checkpoints.sha256_now(nano) == checkpoints.PACKAGED_SHA256["nano"] == sha256_of(packaged)
    assert checkpoints.packaged_checkpoint("vit_b") is None
    assert not checkpoints.FORMER.keys() & checkpoints.PACKAGED_SHA256.values()


def test_weights_of_a_file_in_conf_are_published_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    where = "url: https://x.invalid/a/b/w.pt\nsize: 3\nsha256: abc\n"
    (tmp_path / "model" / "mine.yaml").write_text(f"variant: mine\n{where}")
    (tmp_path / "model" / "drawn.yaml").write_text("variant: drawn\nurl: null\nsize: null\nsha256: null\n")
    monkeypatch.setattr(checkpoints, "conf_directory", lambda: tmp_path)
    assert dict(OFFICIAL) == {
        "mine": checkpoints.Checkpoint("mine", "w.pt", "https://x.invalid/a/b/w.pt", 3, "abc")
    }  # fmt: skip
    assert len(OFFICIAL) == 1


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for text, about in (
        ('{"layers": {"kind": "x"}, "a": 1}', {"layers": {"kind": "x"}, "a": 1}),
        ("[1]", {}),
        ("{", {}),
    ):
        save_file({"a": torch.zeros(2)}, path, {"lora_sam": text})
        assert checkpoints.load_about(path) == about
        assert checkpoints.load_layers(path) == about.get("layers")
    for metadata in (None, {"format": "pt"}):
        save_file({"a": torch.zeros(2)}, path, metadata)
        assert checkpoints.load_about(path) == {}
    assert checkpoints.load_about(tmp_path / "no.pth") == {}
    (tmp_path / "W.SAFETENSORS").write_bytes(b"broken")
    for broken in (tmp_path / "W.SAFETENSORS", tmp_path / "absent.safetensors"):
        with pytest.raises(CheckpointError, match="cut short or damaged"):
            checkpoints.load_about(broken)


def test_a_second_set_of_other_weights_is_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {name: TENSORS[name] for name in ("b", "steps")}
    torch.save({"model": TENSORS, "head": few, "epoch": 3, "empty": {}}, tmp_path / "w.pth")
    assert_as_stored(load_state_dict(tmp_path / "w.pth"))
    more = {f"module.{name}": value for name, value in TENSORS.items()}
    torch.save({"state_dict": more, "more": {**TENSORS, "c": torch.ones(1)}}, tmp_path / "m.pth")
    assert capsys.readouterr().err == ""
    assert load_state_dict(tmp_path / "m.pth").keys() == more.keys()
    assert "under state_dict and more; those under state_dict are read" in " ".join(capsys.readouterr().err.split())


def test_of_a_mapping_without_weights_five_keys_are_named(tmp_path: Path) -> None:
    torch.save({name: 1 for name in "fedcba"}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="a mapping with a, b, c, d, e, where"):
        load_state_dict(tmp_path / "w.pth")


def test_safetensors_under_names_of_a_script_are_one_state_dict(tmp_path: Path) -> None:
    save_file({"model.a": torch.ones(2), "model.b": torch.zeros(1)}, tmp_path / "w.safetensors")
    assert load_state_dict(tmp_path / "w.safetensors").keys() == {"model.a", "model.b"}
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="a mapping with nothing"):
        load_state_dict(tmp_path / "none.safetensors")


def test_damage_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    torch.save(TENSORS, path)
    for error, told in ((RuntimeError("first\nsecond"), "(first)"), (EOFError(), "(EOFError)")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(CheckpointError) as caught:
            load_state_dict(path)
        assert str(caught.value) == (
            f"{path} cannot be read as weights, it is cut short or damaged {told}. Fetch it again."
        )
