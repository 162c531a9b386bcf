"""The tuners of stock PEFT that SAM carries here: what each may be told, and what it cannot do.

A row is all that the package knows about a tuner. The fields are those of PEFT's own configuration, by its names. They
are checked before PEFT sees them, whether they come from `conf/method/` or with somebody's adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Check = Callable[[Any], str]
"""What is allowed where a value is not; empty where it is."""

MAX_RANK = 4096


def whole(least: int, most: int) -> Check:
    """A whole number in a range."""
    return lambda value: (
        "" if type(value) is int and least <= value <= most else f"must be a whole number from {least} to {most}"
    )


def number(least: float, most: float) -> Check:
    """A finite number in a range."""

    def check(value: Any) -> str:
        within = type(value) in (int, float) and least <= value <= most  # not so for NaN
        return "" if within else f"must be a number from {least:g} to {most:g}"

    return check


def one_of(*allowed: Any) -> Check:
    """One of these values, of the same type."""

    def check(value: Any) -> str:
        known = any(type(value) is type(one) and value == one for one in allowed)
        return "" if known else f"must be one of {', '.join(map(str, allowed))}"

    return check


rank = whole(1, MAX_RANK)
SWITCH, SHARE, SCALE = one_of(True, False), number(0, 1), number(1e-6, 1e6)
_SEED = whole(0, 2**31 - 1)
_KEPT = one_of(True)


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """A tuner of PEFT.

    Attributes:
        peft_type: As in `adapter_config.json`.
        config: Name of PEFT's class of its configuration.
        paper: Where it is described.
        fields: What is allowed in each field of its own.
        sizes: Fields that say how large tensors are made, each with a part of the name of a tensor in the file and its
            axis which has that size.
        fixed: What keeps the start the identity, or what is saved whole; not to be chosen.
        flat: Takes four dimensions for an image of a convolution, so that only attention hands it flat tokens.
    """

    peft_type: str
    config: str
    paper: str
    fields: Mapping[str, Check]
    sizes: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False


_LYCORIS = {"r": rank, "alpha": SCALE, "rank_dropout": SHARE, "module_dropout": SHARE}
_PROJECTED = {"projection_prng_key": _SEED, "save_projection": _KEPT}

TUNERS: Mapping[str, Tuner] = MappingProxyType(
    {
        "loha": Tuner(
            peft_type="LOHA",
            config="LoHaConfig",
            paper="Hyeon-Woo et al., 2022",
            fields=_LYCORIS,
            sizes={"r": (".hada_w1_a", 1)},
        ),
        "lokr": Tuner(
            peft_type="LOKR",
            config="LoKrConfig",
            paper="Yeh et al., 2024",
            # its factors are never larger than the layer, whatever the rank
            fields=_LYCORIS | {"decompose_both": SWITCH, "decompose_factor": whole(-1, 4096)},
        ),
        "ia3": Tuner(peft_type="IA3", config="IA3Config", paper="Liu et al., 2022", fields={}),
        "oft": Tuner(
            peft_type="OFT",
            config="OFTConfig",
            paper="Qiu et al., 2023",
            fields={
                "r": whole(0, MAX_RANK),
                "oft_block_size": whole(0, MAX_RANK),
                "module_dropout": SHARE,
                "coft": SWITCH,
                "eps": number(0, 1),
                "block_share": SWITCH,
                "use_cayley_neumann": SWITCH,
                "num_cayley_neumann_terms": whole(1, 20),
            },
            flat=True,
        ),
        "boft": Tuner(
            peft_type="BOFT",
            config="BOFTConfig",
            paper="Liu et al., 2024",
            fields={
                "boft_block_size": whole(0, MAX_RANK),
                "boft_block_num": whole(0, MAX_RANK),
                "boft_n_butterfly_factor": whole(1, 12),
                "boft_dropout": SHARE,
            },
            sizes={"boft_block_size": (".boft_R", 2), "boft_n_butterfly_factor": (".boft_R", 0)},
        ),
        "vera": Tuner(
            peft_type="VERA",
            config="VeraConfig",
            paper="Kopiczko et al., 2024",
            fields={"r": rank, "vera_dropout": SHARE, "d_initial": number(1e-6, 1e3)} | _PROJECTED,
            sizes={"r": (".vera_lambda_d", 0)},
        ),
        "hra": Tuner(
            peft_type="HRA",
            config="HRAConfig",
            paper="Yuan et al., 2024",
            fields={"r": rank, "apply_GS": SWITCH},
            sizes={"r": (".hra_u", 1)},
        ),
        "fourierft": Tuner(
            peft_type="FOURIERFT",
            config="FourierFTConfig",
            paper="Gao et al., 2024",
            fields={"n_frequency": whole(1, 2**20), "scaling": SCALE, "random_loc_seed": _SEED},
            sizes={"n_frequency": (".fourierft_spectrum", 0)},
            fixed={"init_weights": True},
        ),
        "randlora": Tuner(
            peft_type="RANDLORA",
            config="RandLoraConfig",
            paper="Albert et al., 2025",
            fields={
                "r": rank,
                "randlora_alpha": SCALE,
                "randlora_dropout": SHARE,
                "sparse": SWITCH,
                "very_sparse": SWITCH,
            }
            | _PROJECTED,
            sizes={"r": (".randlora_lambda", 0)},
        ),
        "c3a": Tuner(
            peft_type="C3A",
            config="C3AConfig",
            paper="Chen et al., 2025",
            fields={"block_size": whole(1, MAX_RANK)},
            sizes={"block_size": (".c3a_kernel", 2)},
            fixed={"init_weights": True},
        ),
        "shira": Tuner(
            peft_type="SHIRA",
            config="ShiraConfig",
            paper="Bhardwaj et al., 2024",
            fields={"r": rank, "mask_type": one_of("random"), "random_seed": _SEED},
            # r (inputs + outputs) values of a layer change, so that r is far below their number
            sizes={"r": (".shira_weight", 0)},
        ),
        "delora": Tuner(
            peft_type="DELORA",
            config="DeloraConfig",
            paper="Bini et al., 2025",
            fields={"r": rank, "delora_lambda": SCALE, "module_dropout": SHARE},
            sizes={"r": (".delora_A", 0)},
        ),
        "road": Tuner(
            peft_type="ROAD",
            config="RoadConfig",
            paper="Liao & Monz, 2024",
            fields={"variant": one_of("road_1", "road_2", "road_4"), "group_size": whole(2, MAX_RANK)},
        ),
        "ln_tuning": Tuner(
            peft_type="LN_TUNING", config="LNTuningConfig", paper="Qi et al., 2022", fields={"inference_mode": SWITCH}
        ),
        "gralora": Tuner(
            peft_type="GRALORA",
            config="GraloraConfig",
            paper="Jung et al., 2025",
            fields={
                "r": rank,
                "hybrid_r": whole(0, MAX_RANK),
                "alpha": SCALE,
                "gralora_dropout": SHARE,
                "gralora_k": whole(1, 256),
            },
            sizes={"r": (".gralora_A.", 2), "hybrid_r": (".gralora_A_general.", 0)},
            flat=True,
        ),
        "miss": Tuner(
            peft_type="MISS",
            config="MissConfig",
            paper="Kang & Yin, 2024",
            fields={"r": rank, "mini_r": whole(1, MAX_RANK), "miss_dropout": SHARE},
            sizes={"r": (".miss_block", 0)},
        ),
        "waveft": Tuner(
            peft_type="WAVEFT",
            config="WaveFTConfig",
            paper="Bilican et al., 2025",
            fields={
                "n_frequency": whole(1, 2**20),
                "scaling": SCALE,
                "random_loc_seed": _SEED,
                "wavelet_family": one_of("db1", "db2", "sym2", "coif1"),
                "use_idwt": SWITCH,
            },
            sizes={"n_frequency": (".waveft_spectrum", 0)},
        ),
        "hira": Tuner(
            peft_type="HIRA",
            config="HiraConfig",
            paper="Huang et al., 2025",
            fields={"r": rank, "hira_dropout": SHARE},
            sizes={"r": (".hira_A", 0)},
        ),
    }
)
"""Tuners by the name of their file in `conf/method/`."""

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "adalora": "AdaLoRA moves its ranks in the loop, with averages that a resumed run would lack; take "
        "method=lora or method=eva",
        "vblora": "VB-LoRA does not start as the base; take method=vera",
        "unilora": "Uni-LoRA does not start as the base; take method=vera",
        "lily": "Lily cannot be folded into the weights; take method=vera",
        "osf": "OSF trains the weights of the base themselves; take method=full",
    }
)
"""What PEFT has and this package refuses, with the reason and what to take."""

BY_TYPE: Mapping[str, Tuner] = MappingProxyType({tuner.peft_type: tuner for tuner in TUNERS.values()})
