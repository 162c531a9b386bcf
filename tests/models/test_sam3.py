"""SAM 3 with clicks and boxes held against `transformers.Sam3TrackerModel`, and its weights in all their layouts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.transforms import Compose, Normalize, Resize, ToTensor
from transformers import Sam3Config, Sam3Model, Sam3TrackerConfig, Sam3TrackerModel, Sam3VideoConfig, Sam3VideoModel

from lora_sam.core.console import note
from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.frame import Frame
from lora_sam.data.transforms import boxes_to_input_frame, logits_to_original, points_to_input_frame, preprocess
from lora_sam.deployment.image_input import takes_images
from lora_sam.deployment.ir_parts import encoder_ir
from lora_sam.deployment.proof import answers, compare, probe
from lora_sam.deployment.transformers_layout import transformers_answers
from lora_sam.models import decoding, download
from lora_sam.models.checkpoints import Checkpoint
from lora_sam.models.family import frame_of
from lora_sam.models.sam3 import GREY
from lora_sam.models.sam3_layouts import read, tracker_state
from lora_sam.models.sam3_transformers import config, processor, state_of
from lora_sam.predictors.openvino_parts import openvino_core
from lora_sam.training.losses.terms import pooled_targets
from lora_sam.training.planning.memory import peak_of
from lora_sam.training.planning.workload import Step, Trained

SIDE = 56  # with patches of 14 pixels, as the published weights have: masks of 3.5 pixels
FRAME = Frame(SIDE, True, 14, GREY, GREY)
SIZES = [(48, 64), (31, 97), (200, 133)]


@pytest.fixture(scope="module")
def variant(option: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **changes: option("model/sam3_random", **{"image_size": SIDE, "patch_size": 14, **changes})


@pytest.fixture(scope="module")
def sam(variant: Callable[..., Any]) -> Any:
    return variant().build().sam


def upstream(variant: Any, state: dict[str, torch.Tensor]) -> Any:
    model = Sam3TrackerModel(config(variant.architecture()))
    model.load_state_dict(state, strict=True)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("changes", [{}, {"image_size": 64, "patch_size": 8, "window_size": 4, "table_size": 8}])
def test_maps_and_masks_are_those_of_transformers(variant: Callable[..., Any], changes: dict[str, int]) -> None:
    model = variant(**changes)
    sam = model.build().sam
    frame = frame_of(sam)
    theirs = upstream(model, state_of(tracker_state(sam.state_dict())))
    questions = probe(frame)
    embedding, maps = sam.image_encoder(questions.images), theirs.get_image_embeddings(questions.images)
    coarse, finer, finest = embedding.split([32, 32, 64], dim=1)
    for found, expected in zip((F.pixel_shuffle(finest, 4), F.pixel_shuffle(finer, 2), coarse), maps, strict=True):
        assert (found - expected).abs().max() < 1e-5
    agreement = compare(answers(sam, questions), transformers_answers(theirs, questions))
    assert agreement.within(1e-5)
    assert agreement.mean_mask_iou >= 0.9999
    assert agreement.masks == 64
    assert questions.prompts[3].mask_inputs.shape[1:] == (frame.mask_side, frame.mask_side)


def test_what_stands_for_no_memory_counts_as_in_metas_predictor(variant: Callable[..., Any], sam: Any) -> None:
    """It is added to the map that the decoder sees: without it, `Sam3TrackerModel` says the same as without it here."""
    plain = tracker_state(sam.state_dict())
    none = plain["no_memory_embedding"].clone()
    assert none.abs().max() > 1e-3
    embedding = sam.image_encoder(probe(FRAME).images)
    without = {**plain, "no_memory_embedding": torch.zeros_like(none)}
    maps = upstream(variant(), without).get_image_embeddings(probe(FRAME).images)
    assert (embedding[:, :32] - maps[2] - none.reshape(1, -1, 1, 1)).abs().max() < 1e-5
    folded = state_of(plain)
    assert not folded["no_memory_embedding"].any()
    assert {key for key in plain if not torch.equal(plain[key], folded[key])} == {
        "no_memory_embedding",
        "vision_encoder.neck.fpn_layers.2.proj2.bias",
    }


def test_the_decoder_itself_computes_the_same(sam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = answers(sam, probe(FRAME))
    monkeypatch.setattr(decoding, "can_share", lambda *_: False)
    assert compare(shared, answers(sam, probe(FRAME))).within(1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_images_prompts_and_masks_go_as_upstream(size: tuple[int, int]) -> None:
    """Pixels as `SAM2Transforms` of the package `sam3` has them; the processor rounds them to whole grey levels."""
    draws = np.random.default_rng(1)
    image = draws.integers(0, 256, (*size, 3)).astype(np.uint8)
    pixels = preprocess(image, FRAME)
    steps = Compose([ToTensor(), Resize((SIDE, SIDE)), Normalize([0.5] * 3, [0.5] * 3)])
    assert (pixels - steps(Image.fromarray(image))).abs().max() < 1e-5
    theirs = processor(SIDE)
    points = (draws.uniform(0, 1, (3, 2, 2)) * size[::-1]).astype(np.float32)
    boxes = (np.sort(draws.uniform(0, 1, (3, 2, 2)), axis=1) * size[::-1]).reshape(3, 4).astype(np.float32)
    inputs = theirs(
        images=Image.fromarray(image),
        input_points=[points.tolist()],
        input_labels=[[[1, 1]] * 3],
        input_boxes=[boxes.tolist()],
        return_tensors="pt",
    )
    assert (pixels - inputs["pixel_values"][0]).abs().max() <= 1.01 / GREY[0]
    np.testing.assert_allclose(points_to_input_frame(points, size, FRAME), inputs["input_points"][0], rtol=1e-5)
    np.testing.assert_allclose(boxes_to_input_frame(boxes, size, FRAME), inputs["input_boxes"][0], rtol=1e-5)
    logits = torch.randn(3, 1, FRAME.mask_side, FRAME.mask_side)
    (expected,) = theirs.post_process_masks([logits], [size], binarize=False)
    assert torch.equal(logits_to_original(logits, size, FRAME), expected[:, 0])


def test_an_exported_encoder_that_takes_images_prepares_them_alike(sam: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (31, 97, 3)).astype(np.uint8)
    model = openvino_core().compile_model(
        takes_images(encoder_ir(sam, SIDE), FRAME), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    with torch.no_grad():
        wanted = sam.image_encoder(preprocess(image, FRAME).unsqueeze(0)).numpy()
    assert np.abs(model({"image": image[None]})["image_embeddings"] - wanted).max() < 1e-4


@pytest.mark.parametrize(("whole", "side"), [(56, 16), (63, 18), (64, 16)])
def test_targets_are_averaged_over_the_pixels_that_a_mask_covers(whole: int, side: int) -> None:
    targets = (torch.rand(3, whole, whole) > 0.5).float()
    # each pixel as many as there are in a pixel of the mask, of which the mean is exact
    fine = targets.repeat_interleave(side, 1).repeat_interleave(side, 2)
    assert (pooled_targets(targets, side) - F.avg_pool2d(fine, whole)).abs().max() < 1e-5


def test_names_and_shapes_are_those_of_the_published_models(option: Callable[..., Any]) -> None:
    """No byte of the 3.4 GB is needed to know that every one of them finds its place."""
    with torch.device("meta"):
        ours = option("model/sam3").empty().state_dict()
        tracker = Sam3TrackerModel(Sam3TrackerConfig()).state_dict()
        whole = Sam3VideoModel(Sam3VideoConfig()).state_dict()
    # of `Sam3VideoModel`, which is what the Hub has
    zeros = {key: torch.zeros(()).expand(value.shape) for key, value in whole.items()}
    found = read(zeros, Path("model.safetensors"))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in ours.items()}
    again = tracker_state({key: torch.zeros(()).expand(value.shape) for key, value in ours.items()})
    assert {key: value.shape for key, value in again.items()} == {key: value.shape for key, value in tracker.items()}
    assert sum(value.numel() for value in ours.values()) == 458_260_625


def as_hub(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As `Sam3VideoModel` names them, among others."""
    named = {"detector_model.detr_decoder.query_embed.weight": torch.zeros(1), "tracker_model.no_object_pointer": None}
    for key, value in tracker_state(state).items():
        key = re.sub(r"^vision_encoder\.neck\.", "tracker_neck.", key)
        key = re.sub(r"^vision_encoder\.", "detector_model.vision_encoder.", key)
        named[key if key.startswith(("detector", "tracker")) else f"tracker_model.{key}"] = value
    named["tracker_model.no_object_pointer"] = torch.zeros(1)
    return named  # type: ignore[return-value]


def as_package(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As Meta's package names them, among others."""
    inside = "detector.backbone.vision_backbone."
    named = {"detector.backbone.language_backbone.encoder.ln.weight": torch.zeros(1), "tracker.no_obj_ptr": None}
    named["tracker.no_obj_ptr"] = torch.zeros(1)
    named[f"{inside}trunk.blocks.0.attn.freqs_cis"] = torch.zeros(1, dtype=torch.complex64)
    scales = {
        "0.scale_layers.0": "0.dconv_2x2_0",
        "0.scale_layers.2": "0.dconv_2x2_1",
        "1.scale_layers.0": "1.dconv_2x2",
    }
    for key, value in state.items():
        if not key.startswith("image_encoder.backbone.") and not key.startswith("image_encoder.neck."):
            key = re.sub(r"^(image_encoder\.(?=conv_s)|mask_decoder\.)", "sam_mask_decoder.", key)
            key = re.sub(r"^prompt_encoder\.", "sam_prompt_encoder.", key).removeprefix("image_encoder.")
            named[f"tracker.{key}"] = value
            continue
        key = key.removeprefix("image_encoder.")
        if key.endswith("position_embeddings"):
            named[f"{inside}trunk.pos_embed"] = torch.cat([torch.full_like(value[:, :1], 7), value], dim=1)
        elif match := re.match(r"backbone\.layers\.(\d+)\.attention\.([qkv])_proj\.(\w+)", key):
            place = f"{inside}trunk.blocks.{match[1]}.attn.qkv.{match[3]}"
            others = [state[f"image_encoder.{key}".replace(f"{match[2]}_proj", f"{name}_proj")] for name in "qkv"]
            named[place] = torch.cat(others)
        else:
            for ours, theirs in scales.items():
                key = key.replace(ours, theirs)
            key = (
                key.replace("neck.fpn_layers.", "sam2_convs.").replace("proj1", "conv_1x1").replace("proj2", "conv_3x3")
            )
            key = key.replace("backbone.layers.", "trunk.blocks.").replace("backbone.layer_norm.", "trunk.ln_pre.")
            key = key.replace("layer_norm", "norm").replace("attention.o_proj", "attn.proj")
            named[inside + key.replace("backbone.embeddings.patch_embeddings.projection", "trunk.patch_embed.proj")] = (
                value
            )
    return named  # type: ignore[return-value]


LAYOUTS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "ours": dict,
    "tracker": tracker_state,
    "hub": as_hub,
    "package": as_package,
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(
    variant: Callable[..., Any], sam: Any, layout: str, prefix: str, tmp_path: Path, capsys: Any
) -> None:
    note.cache_clear()  # it says a thing once
    state, path = sam.state_dict(), tmp_path / "w.safetensors"
    stored = {prefix + key: value.clone().contiguous() for key, value in LAYOUTS[layout](state).items()}
    save_file(stored, path)
    found = variant(weights="pretrained", checkpoint=str(path)).build().sam.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    told = re.search(
        r"(\d+) tensors that SAM 3 has for words and for videos", " ".join(capsys.readouterr().err.split())
    )
    assert (told and int(told[1])) == {"hub": 2, "package": 3}.get(layout)


def test_files_that_are_something_else_are_named_with_the_model_that_takes_them(
    option: Callable[..., Any], variant: Callable[..., Any], sam: Any, tmp_path: Path
) -> None:
    def building(state: dict[str, torch.Tensor], model: Callable[..., Any] = variant) -> Any:
        torch.save(state, tmp_path / "w.pt")
        return model(weights="pretrained", checkpoint=str(tmp_path / "w.pt")).build()

    state = sam.state_dict()
    with torch.device("meta"):
        names = Sam3Model(Sam3Config()).state_dict().keys()
    detector = dict.fromkeys(names, torch.zeros(1))
    whole = r"give the weights of the whole model"
    with pytest.raises(CheckpointError, match=rf"a part of SAM 3: it is the detector alone, .*: {whole}, sam3.pt or"):
        building(detector)
    videos = {key: value for key, value in as_hub(state).items() if key.startswith("tracker_model.")}
    with pytest.raises(CheckpointError, match=rf"it is the tracker without its image encoder: {whole}, sam3.pt"):
        building(videos)
    second = option("model/sam2_random")._random().state_dict()
    with pytest.raises(CheckpointError, match=r"holds SAM 2, .*: choose model=sam2_tiny and set what differs"):
        building(second)
    later = as_package(state) | {"detector.backbone.vision_backbone.interactive_convs.0.conv_1x1.bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"holds SAM 3.1, .*: no model= takes it, .*; choose model=sam3 for"):
        building(later)
    with pytest.raises(CheckpointError, match=r"a SAM 3, but not model=sam3_random: .* has the shape .*; choose"):
        building(state, lambda **changes: variant(embed_dim=32, **changes))
    for given, message in ((state, "choose model=sam3$"), (detector, "the detector alone"), (videos, "the tracker")):
        with pytest.raises(CheckpointError, match=f"holds SAM 3, which cannot be the base: .*{message}"):
            building(given, lambda **changes: option("model/sam2_random", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 36, "num_heads": 6}, "model.embed_dim = 36: must be a multiple of 4 for each of .* = 6"),
        ({"global_attention": [4]}, r"model.global_attention = \[4\]: blocks are numbered 0 to 3"),
        ({"image_size": 64}, "model.image_size = 64: must be a multiple of model.patch_size = 14, e.g. 56"),
    ],
)
def test_what_cannot_be_is_told(variant: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variant(**changes).check()


def test_what_nothing_looks_at_is_kept_and_never_trains(
    option: Callable[..., Any], variant: Callable[..., Any]
) -> None:
    full = option("method/full").apply(variant().build().sam)
    unused = ("neck.fpn_layers.3.", "pred_obj_score_head")
    assert not any(part in name for name in full.trainable() for part in unused)
    merged, base = full.merge().state_dict(), variant().build().sam.state_dict()
    assert merged.keys() == base.keys()
    assert all(torch.equal(merged[key], base[key]) for key in base if any(part in key for part in unused))


# --- the gate ---------------------------------------------------------------------------------------------------------


class Response:
    """What `huggingface_hub` puts into its errors."""

    status_code, headers, request, url = 403, {}, None, ""


@pytest.mark.usefixtures("active_environment")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "GatedRepoError",
            r"behind a gate .*: ask for access at https://huggingface.co/facebook/sam3, .* `hf auth login`",
        ),
        ("RevisionNotFoundError", r"facebook/sam3 has no revision 3c879f39[0-9a-f]{32}: leave model.url as it is"),
        ("RemoteEntryNotFoundError", "has no file sam3.pt at the revision 3c879f39"),
        ("RepositoryNotFoundError", "facebook/sam3 is not there, or not for this account"),
    ],
)
def test_the_licence_is_told_before_and_the_gate_after(
    option: Callable[..., Any], error: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    from huggingface_hub import errors

    asked: list[Any] = []

    def refuse(*words: Any, **names: Any) -> str:
        asked.append((words, names["revision"], capsys.readouterr().err))
        raise getattr(errors, error)("no", response=Response())

    note.cache_clear()
    monkeypatch.setenv("LORA_SAM_CACHE", str(tmp_path))
    monkeypatch.delenv("LORA_SAM_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(CheckpointError, match=message) as caught:
        option("model/sam3").build()
    assert "\n" not in str(caught.value)
    assert "3450062241 bytes, SHA-256 9999e2341ceef5e1" in str(caught.value)
    ((words, revision, before),) = asked
    assert words == ("facebook/sam3", "sam3.pt")
    assert re.fullmatch("[0-9a-f]{40}", revision)
    assert "SAM License: not an open-source licence; no military use" in " ".join(before.split())


def test_without_a_network_nothing_is_asked_for(
    option: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORA_SAM_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(CheckpointError, match=r"downloads are off .*Download https://huggingface.co/facebook/sam3/"):
        option("model/sam3", offline=True).build()


def test_what_comes_is_what_was_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LORA_SAM_OFFLINE", raising=False)
    url = "https://huggingface.co/facebook/sam3/resolve/abc/sam3.pt"
    wanted = Checkpoint("sam3", "sam3.pt", url, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")

    def fetched(content: bytes) -> Path:
        monkeypatch.setattr(
            "huggingface_hub.hf_hub_download", lambda *_, **__: (tmp_path / "sam3.pt").write_bytes(content)
        )
        return download.fetch_checkpoint(wanted, tmp_path, offline=False)

    with pytest.raises(CheckpointError, match=r"has another SHA-256, and the Hub has another file"):
        fetched(b"abd")
    assert fetched(b"abc").read_bytes() == b"abc"
    assert download.fetch_checkpoint(wanted, tmp_path, offline=True) == tmp_path / "sam3.pt"


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_lora_at_the_published_size_fits_a_gpu_of_16_gb(option: Callable[..., Any]) -> None:
    model = option("model/sam3")
    trained = Trained(
        trainable=5_400_000,
        total=458_300_000,
        held=463_700_000,
        first_block=0,
        whole_encoder=False,
        adapted=frozenset({"q", "v"}),
        attention_alone=True,
        decoder=True,
    )
    step = Step(model=model, trained=trained, precision="bf16", images=1, prompts=4.0, most_prompts=4, chunk=4)
    every = replace(step, checkpointed=frozenset(range(model.depth)))
    kept, again = (peak_of(one, "cuda", 600 << 20).total / 1e9 for one in (step, every))
    assert kept < 8
    assert again < min(4.5, 0.6 * kept)
