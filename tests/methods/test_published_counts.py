"""Trainable parameters on AST-base, as PETL-AST publishes them (arXiv:2312.03694), and by formula."""

import pytest
import torch

from speech_peft.backbones.ast import Ast
from speech_peft.backbones.checkpoints.weights import Origin
from speech_peft.core.describe import count
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.registry import METHODS

# The stock extractor says the same of AST's 128 bins over 257 frequencies.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
BLOCKS, DIM, INNER = 12, 768, 3072
PFEIFFER, HOULSBY = ("layers.*.ffn",), ("layers.*.attn", "layers.*.ffn")


@pytest.fixture(scope="module")
def ast() -> Ast:
    """AST-base with no numbers in its tensors: shapes are all that counts here."""
    from transformers import ASTConfig, ASTModel

    with torch.device("meta"):
        return Ast(ASTModel(ASTConfig()), Origin("random", "AST-base"))


def trained(ast: Ast, **methods: Method) -> int:
    with torch.device("meta"), AdaptedModel(ast.module, ast.sites(), methods) as model:
        return sum(count(model.parameters_of(name)) for name in methods)


@pytest.mark.parametrize(
    ("method", "sites", "published"),
    [
        ("bottleneck", PFEIFFER, {64: 248_976, 96: 175_200, 128: 138_312}),
        ("bottleneck", HOULSBY, {64: 497_952, 96: 350_400, 128: 276_624}),
        ("convpass", PFEIFFER, {64: 383_040, 96: 270_720, 128: 214_560}),
        ("convpass", HOULSBY, {64: 766_080, 96: 541_440, 128: 429_120}),
    ],
)
@pytest.mark.parametrize("reduction", [64, 96, 128])
def test_adapter_and_the_norms_before_it_count_what_was_published(ast, method, sites, published, reduction):
    adapter = METHODS[method](sites=sites, reduction=reduction)
    norms = METHODS["affine"](sites=[f"layers.*.norm_{site.rpartition('.')[2]}" for site in sites])
    assert trained(ast, adapter=adapter, norms=norms) == published[reduction]


@pytest.mark.parametrize(("preset", "published"), [("pfeiffer", 270_720), ("houlsby", 541_440)])
def test_the_presets_of_convpass_sit_where_the_paper_says(ast, preset, published):
    norms = {"pfeiffer": ("layers.*.norm_ffn",), "houlsby": ("layers.*.norm_*",)}[preset]
    adapter = METHODS["convpass"](preset=preset)
    assert (adapter.reduction, adapter.kernel) == (96, 31)
    assert trained(ast, adapter=adapter, norms=METHODS["affine"](sites=norms)) == published


def test_bitfit_trains_each_bias_of_the_blocks(ast):
    # four projections and the second feed-forward layer, the first, and two norms: 102 k with the final norm
    assert trained(ast, bitfit=METHODS["affine"](preset="bitfit")) == BLOCKS * (5 * DIM + INNER + 2 * DIM)


def test_lora_counts_two_factors_of_rank_six_on_queries_and_values(ast):
    lora = METHODS["lora"](rank=6, sites=("layers.*.attn.[qv]",))
    assert trained(ast, lora=lora) == BLOCKS * 2 * 6 * (DIM + DIM)


@pytest.mark.parametrize(("preset", "prompts"), [("shallow", 300), ("deep", BLOCKS * 25)])
def test_prompts_count_their_frames(ast, preset, prompts):
    assert trained(ast, prompt=METHODS["prompt"](preset=preset)) == prompts * DIM


def test_prefixes_count_keys_and_values(ast):
    assert trained(ast, prefix=METHODS["prefix"](frames=24)) == BLOCKS * 2 * 24 * DIM


def test_the_base_is_the_one_the_counts_are_for(ast):
    inner = {site.dim_out for site in ast.sites() if site.name.endswith("ffn.up")}
    assert (ast.depth, ast.dim, inner) == (BLOCKS, DIM, {INNER})
