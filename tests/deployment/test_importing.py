"""LoRA of other programs gives the masks that their formula gives on the same weights, and goes back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.cli.step import run_step
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.deployment import importing
from lora_sam.deployment.importing import export_adapter
from lora_sam.models.decoding import decode_masks
from lora_sam.models.projections import fuse_projections
from lora_sam.report.model_card import model_card
from lora_sam.runs.loading import load_adapted

RANK, WIDTH, DEPTH = 3, 32, 2
IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[1.0, 2, 30, 40], [9, 5, 60, 60]])
THIRD_PARTY = Path(__file__).resolve().parents[3] / "shared" / "data" / "third_party_adapters"


def import_adapter(file: Path, output: Path, **options: Any) -> Path:
    return importing.import_adapter(file, output, card=model_card, **options)


class Theirs(nn.Module):
    """A Linear with what the other programs add to q and v of a fused projection, or to one of their own."""

    def __init__(self, linear: nn.Linear, factors: dict[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.linear, self.factors = linear, factors

    def forward(self, x: Tensor) -> Tensor:
        out, width = self.linear(x), x.shape[-1]
        for name, (a, b) in self.factors.items():
            place = {"q": slice(0, width), "v": slice(-width, None), "": slice(None)}[name]
            out[..., place] += x @ a.T @ b.T
        return out


def logits(sam: Any) -> Tensor:
    with torch.no_grad():
        return decode_masks(sam, sam.image_encoder(IMAGES), boxes=BOXES, points=None, labels=None)[0]


def upstream(sam: Any) -> Tensor:
    """The same by the modules of segment_anything, whatever its layers are."""
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder(points=None, boxes=BOXES, masks=None)
        return sam.mask_decoder(
            image_embeddings=sam.image_encoder(IMAGES),
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )[0]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


@pytest.fixture
def fused(option: Any) -> Any:
    """The base as the others see it, with fused projections."""
    return fuse_projections(option("model/tiny_random").build().sam).eval().requires_grad_(False)


@pytest.fixture
def factors() -> dict[int, dict[str, tuple[Tensor, Tensor]]]:
    return {
        block: {
            name: (drawn(RANK, WIDTH, seed=10 * block + index), drawn(WIDTH, RANK, seed=10 * block + index + 5))
            for index, name in enumerate("qv")
        }
        for block in range(DEPTH)
    }


def adapted_by_them(fused: Any, factors: dict[int, Any]) -> Any:
    for block, both in factors.items():
        attention = fused.image_encoder.blocks[block].attn
        attention.qkv = Theirs(attention.qkv, both)
    return fused


def numbered(factors: dict[int, Any]) -> dict[str, Tensor]:
    pairs = [factors[block][name] for block in sorted(factors) for name in "qv"]
    return {f"w_{half}_{index:03d}": pair["ab".index(half)] for index, pair in enumerate(pairs) for half in "ab"}


def test_sam_lora_there_and_back(fused: Any, factors: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lora.safetensors"
    save_file({**numbered(factors), "fc_32in_1000out": torch.zeros(1000, 32)}, file)
    words = [f"file={file}", f"output={tmp_path / 'taken'}", "variant=tiny_random"]
    assert run_step("import-adapter", "lora-sam import-adapter", words) == 0
    assert "does not say on which weights" in capsys.readouterr().err
    tuned = load_adapted(tmp_path / "taken")
    assert tuned.reversible
    expected = logits(adapted_by_them(fused, factors))
    assert (logits(tuned.sam) - expected).abs().max() <= 1e-5
    assert expected.abs().max() > 1e-2

    words = [f"run={tmp_path / 'taken'}", f"file={tmp_path / 'back.safetensors'}"]
    assert run_step("export-adapter", "lora-sam export-adapter", words) == 0
    assert "does not say: weights of 'random', images of 64 pixels, blocks all" in capsys.readouterr().out
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == numbered(factors).keys()
    assert all(torch.equal(back[key], value) for key, value in numbered(factors).items())
    with pytest.raises(ConfigError, match="that is not there yet"):
        export_adapter(tmp_path / "taken" / "adapter", tmp_path / "back.safetensors")


def test_some_blocks_only(fused: Any, factors: Any, tmp_path: Path) -> None:
    save_file(numbered({1: factors[1]}), tmp_path / "lora.safetensors")
    place = import_adapter(tmp_path / "lora.safetensors", tmp_path / "taken", variant="tiny_random", blocks=(1,))
    expected = logits(adapted_by_them(fused, {1: factors[1]}))
    assert (logits(load_adapted(place).sam) - expected).abs().max() <= 1e-5
    with pytest.raises(AdapterError, match=r"layers of 1 blocks, blocks=\[0, 1\] names 2"):
        import_adapter(tmp_path / "lora.safetensors", tmp_path / "other", variant="tiny_random", blocks=(0, 1))


def test_what_a_file_leaves_open_is_said(
    option: Any, factors: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CellSeg1 and SAMed train at 512 pixels, with tables of positions that they scale in other ways."""
    base = tmp_path / "base.safetensors"
    own = fuse_projections(option("model/tiny_random").build().sam).state_dict()
    save_file({name: value.contiguous() for name, value in own.items()}, base)
    save_file(numbered(factors), tmp_path / "lora.safetensors")
    for side, scaled in ((64, False), (128, True)):
        options = {"variant": "tiny_random", "base": str(base), "image_size": side}
        import_adapter(tmp_path / "lora.safetensors", tmp_path / str(side), **options)
        said = " ".join(capsys.readouterr().err.split())
        assert f"base.safetensors is taken, images of {side} pixels, and SAM's own colours. CellSeg1 and SAMed" in said
        assert (f"tables of positions were scaled to {side} pixels" in said) == scaled


@pytest.mark.parametrize(("positions", "aligned"), [("samed", False), ("cellseg1", True)])
def test_tables_of_positions_are_scaled_as_the_other_program_does(
    option: Any, factors: Any, tmp_path: Path, positions: str, aligned: bool
) -> None:
    """Their `load_from`: bilinear, of relative tables as of a picture with one row for each place."""
    base = tmp_path / "base.safetensors"
    own = fuse_projections(option("model/tiny_random").build().sam).state_dict()
    save_file({name: value.contiguous() for name, value in own.items()}, base)
    save_file(numbered(factors), tmp_path / "lora.safetensors")
    theirs = option("model/tiny_random", image_size=96)
    state, grid = dict(own), 6
    table = own["image_encoder.pos_embed"].permute(0, 3, 1, 2)
    state["image_encoder.pos_embed"] = F.interpolate(
        table, (grid, grid), mode="bilinear", align_corners=aligned
    ).permute(0, 2, 3, 1)
    for name, value in own.items():
        if "rel_pos" in name and int(name.split(".")[2]) in theirs.global_attention:
            size = (2 * grid - 1, value.shape[1])
            state[name] = F.interpolate(value[None, None], size, mode="bilinear", align_corners=aligned)[0, 0]
    model = theirs.empty()
    model.load_state_dict(state, strict=True)
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = adapted_by_them(model.eval().requires_grad_(False), factors).image_encoder(images)
    options = {"variant": "tiny_random", "base": str(base), "image_size": 96}
    found = {}
    for way in ("usual", positions):
        place = import_adapter(tmp_path / "lora.safetensors", tmp_path / way, **options, positions=way)
        with torch.no_grad():
            found[way] = load_adapted(place, base=base if way == "usual" else None).sam.image_encoder(images)
    assert (found[positions] - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (found["usual"] - expected).abs().max() > 1e-3 * expected.abs().max()
    with pytest.raises(ConfigError, match="no table is scaled here"):
        import_adapter(
            tmp_path / "lora.safetensors", tmp_path / "no", **{**options, "image_size": 64}, positions="samed"
        )
    assert not (tmp_path / "no").exists()


def test_samed_and_cellseg1(fused: Any, factors: Any, tmp_path: Path) -> None:
    """Decoder and prompt encoder go along; CellSeg1 has LoRA in the decoder too."""
    with torch.no_grad():
        fused.mask_decoder.mask_tokens.weight.add_(drawn(*fused.mask_decoder.mask_tokens.weight.shape))
        fused.prompt_encoder.no_mask_embed.weight.add_(drawn(1, WIDTH, seed=3))
    state = {key: value for key, value in fused.state_dict().items() if not key.startswith("image_encoder")}
    torch.save({**numbered(factors), **{f"sam.{key}": value for key, value in state.items()}}, tmp_path / "samed.pth")
    adapted_by_them(fused, factors)
    place = import_adapter(tmp_path / "samed.pth", tmp_path / "samed", variant="tiny_random")
    assert (logits(load_adapted(place).sam) - logits(fused)).abs().max() <= 1e-5

    layer = fused.mask_decoder.transformer.layers[1]
    last = fused.mask_decoder.transformer.final_attn_token_to_image
    more = {}
    for owner, name, key in (
        (layer.self_attn, "v_proj", "sa_{}_003"),
        (layer.cross_attn_image_to_token, "q_proj", "cit_{}_002"),
        (last, "q_proj", "fati_q{}"),
    ):
        linear = getattr(owner, name)
        a, b = drawn(2, linear.in_features, seed=8), drawn(linear.out_features, 2, seed=9)
        more |= {key.format("a"): a, key.format("b"): b}
        setattr(owner, name, Theirs(linear, {"": (a, b)}))
    rest = {key: value for key, value in state.items() if "transformer" not in key}
    torch.save({**numbered(factors), **more, **rest}, tmp_path / "cellseg1.pth")
    place = import_adapter(tmp_path / "cellseg1.pth", tmp_path / "cellseg1", variant="tiny_random")
    assert (logits(load_adapted(place).sam) - upstream(fused)).abs().max() <= 1e-5
    with pytest.raises(AdapterError, match="has modules_to_save, which Sam_LoRA's files cannot say"):
        export_adapter(place, tmp_path / "back.safetensors")


@pytest.mark.parametrize(("wrapped", "names"), [("qkv", "linear_{}_{}"), ("qkv_proj", "w_{}_linear_{}")])
def test_finetune_sam_and_micro_sam(fused: Any, factors: Any, tmp_path: Path, wrapped: str, names: str) -> None:
    state = {}
    for key, value in fused.state_dict().items():
        state[key.replace(".attn.qkv.", f".attn.qkv.{wrapped}.")] = value
    for block, both in factors.items():
        for name, pair in both.items():
            for half, value in zip("ab", pair, strict=True):
                state[f"image_encoder.blocks.{block}.attn.qkv.{names.format(half, name)}.weight"] = value
    state["decoder.of_instances.weight"] = torch.zeros(1)
    prefixed = {f"sam.{key}": value for key, value in state.items()}
    torch.save({"model_state": prefixed, "epoch": 3}, tmp_path / "theirs.pt")
    place = import_adapter(tmp_path / "theirs.pt", tmp_path / "taken", variant="tiny_random")
    assert (logits(load_adapted(place).sam) - logits(adapted_by_them(fused, factors))).abs().max() <= 1e-5
    # nothing but LoRA differs, so nothing else is kept
    assert (place / "adapter_model.safetensors").stat().st_size < 20_000

    key = "sam.image_encoder.neck.0.weight"
    torch.save({**prefixed, key: prefixed[key] + 1}, tmp_path / "more.pt")
    with pytest.raises(AdapterError, match=r"image_encoder\.neck\.0\.weight is not that of the base"):
        import_adapter(tmp_path / "more.pt", tmp_path / "other", variant="tiny_random")


def test_what_cannot_be_taken_over_says_why(factors: Any, tmp_path: Path) -> None:
    whole = numbered(factors)
    for changes, options, error, message in (
        ({"w_b_003": None}, {}, AdapterError, "do not belong together, or one is missing"),
        ({"w_a_003": torch.zeros(5, WIDTH), "w_b_003": torch.zeros(WIDTH, 5)}, {}, AdapterError, "others have rank 3"),
        ({"w_a_000": torch.full((RANK, WIDTH), torch.inf)}, {}, AdapterError, "not finite"),
        ({"image_encoder.blocks.0.attn.qkv.q_FacTs.weight": torch.zeros(2)}, {}, AdapterError, "cannot be read here"),
        # what scales the factors: left out, they were taken as they are
        ({"image_encoder.blocks.0.attn.qkv.alpha": torch.tensor(0.5)}, {}, AdapterError, "cannot be read here"),
        ({"alpha": torch.tensor(16.0)}, {}, AdapterError, "'alpha' belongs to an adapter that cannot be read here"),
        ({"scaling": torch.tensor(2.0)}, {}, AdapterError, "cannot be read here"),
        ({"m_000": torch.ones(WIDTH)}, {}, AdapterError, "cannot be read here"),
        ({"mem_attn_a_000": torch.ones(2, WIDTH)}, {}, AdapterError, "cannot be read here"),
        ({"w_a_000": torch.ones(RANK, WIDTH, dtype=torch.int8)}, {}, AdapterError, "of type torch.int8; save it as it"),
        ({"mask_decoder.mask_tokens.weight": torch.zeros(9, WIDTH)}, {}, AdapterError, "a mask for each class"),
        ({}, {"variant": None}, ConfigError, "give it as variant=vit_b"),
        ({}, {"variant": "../train"}, ConfigError, "no such file in conf/model"),
        ({}, {"blocks": (0,)}, AdapterError, "layers of more blocks"),
        (dict.fromkeys(("w_a_001", "w_b_001")), {}, AdapterError, "v of block 0 has no factors; the file is not whole"),
        (dict.fromkeys((*list(whole)[:4],)), {}, AdapterError, "q of block 0 has no factors"),
        (
            dict.fromkeys((*list(whole)[4:],)),
            {},
            ConfigError,
            r"in 1 blocks and does not say in which of the 2 .*blocks=\[",
        ),
        ({"module.w_a_001": torch.ones(RANK, WIDTH)}, {}, AdapterError, "several models, .* 'module.w_a_001'"),
        ({"sam.mask_decoder.x": torch.ones(1), "mask_decoder.x": torch.zeros(1)}, {}, AdapterError, "several models"),
        (dict.fromkeys(whole), {}, AdapterError, "holds no LoRA of SAM's image encoder"),
    ):
        state = {key: value for key, value in {**whole, "w_x": torch.zeros(1), **changes}.items() if value is not None}
        torch.save(state, tmp_path / "file.pth")
        with pytest.raises(error, match=message):
            import_adapter(tmp_path / "file.pth", tmp_path / "taken", **{"variant": "tiny_random", **options})
        assert not (tmp_path / "taken").exists()


@pytest.mark.skipif(not THIRD_PARTY.is_dir(), reason="the files of Sam_LoRA are not in this checkout")
def test_published_files_name_their_model() -> None:
    from lora_sam.deployment.foreign import VARIANTS, read_foreign

    for rank in (4, 8):
        file = THIRD_PARTY / f"lora_rank{rank}.safetensors"
        found = read_foreign(load_file(file), file, None)
        assert (found.rank, found.width, len(found.layers)) == (rank, 768, 24)
        assert VARIANTS[found.width, 12] == "vit_b"


@pytest.mark.skipif(not THIRD_PARTY.is_dir(), reason="the files of Sam_LoRA are not in this checkout")
@pytest.mark.parametrize("rank", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_published_files_give_the_masks_of_their_own_arithmetic(
    option: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """On random weights as wide and deep as ViT-B: rows of q and v of the fused qkv are W + B A, computed by hand."""
    from lora_sam.methods import adapted

    options = option("model/tiny_random", variant="vit_b", embed_dim=768, depth=12, num_heads=12)
    base = options.build()
    monkeypatch.setattr(importing, "_model", lambda *_: options)
    monkeypatch.setattr(type(options), "build", lambda *_, **__: base)
    file = THIRD_PARTY / f"lora_rank{rank}.safetensors"
    theirs, again = fuse_projections(copy.deepcopy(base.sam)).eval(), copy.deepcopy(base.sam)
    untouched = logits(theirs)
    state = load_file(file)
    for block, layer in enumerate(theirs.image_encoder.blocks):
        for place, number in ((slice(0, 768), 2 * block), (slice(-768, None), 2 * block + 1)):
            a, b = (state[f"w_{half}_{number:03d}"] for half in "ab")
            assert (a.shape, b.shape) == ((rank, 768), (768, rank))
            layer.attn.qkv.weight.data[place] += b @ a
    expected = logits(theirs)

    place = import_adapter(file, tmp_path / "taken")
    # the import has put its adapter into the base: its masks, and those of what was saved
    ours = logits(base.sam)
    scale = expected.abs().max()
    assert (expected - untouched).abs().max() > 1e-3 * scale
    assert (ours - expected).abs().max() <= 1e-5 * scale
    assert bool(((ours > 0) == (expected > 0)).float().mean() >= 0.9999)
    assert (logits(adapted.load(again, place, trains_encoder=True).merge()) - expected).abs().max() <= 1e-5 * scale
