"""A merged model as a folder that stock transformers opens, by `pipeline` or the Auto classes, without us.

Weights alone are no such folder: without settings of features and a tokenizer every stock reader raises, and
checkpoints often lack them, as converted ones do. A CTC layer of the adapter goes in as the stock `...ForCTC`
has it, with its characters as a tokenizer.
"""

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import nn

from ..backbones.base import Backbone
from ..backbones.checkpoints.checkpoint import without_bars
from ..decoders.ctc import CtcHead
from ..errors import ConfigError
from ..files import json_text
from ..files.atomic import atomic_folder
from ..files.tensors import as_any_new_file
from ..opening.loading import Opened
from .merged import merged
from .reading import Reading
from .whisper_files import complete

# The stock model with a CTC layer, and what it calls the encoder inside.
_WITH_CTC = {
    "wav2vec2-bert": ("Wav2Vec2BertForCTC", "wav2vec2_bert"),
    "wav2vec2-conformer": ("Wav2Vec2ConformerForCTC", "wav2vec2_conformer"),
}
_PAD, _SPACE = "<pad>", "|"


def write_stock(opened: Opened, out: Path, dtype: str = "base") -> tuple[nn.Module, list[str]]:
    """Write the folder, which appears when it is complete; the model in it, and what it does not hold.

    Raises NotMergeable, naming the site, for an adapter that is no change of weights; ConfigError for a
    folder that cannot be written.
    """
    stock: Any = merged(opened)
    if dtype != "base":
        stock = deepcopy(stock).to(getattr(torch, dtype))  # a copy, as most of its weights are the base's
    try:
        with atomic_folder(out) as half:
            stock, notes = _with_heads(stock, opened, half)
            if (generation := getattr(opened.backbone, "generation", None)) is not None:
                complete(stock.generation_config, generation)
            with without_bars():
                stock.save_pretrained(half)
            _add_side_files(opened.backbone, half)
            as_any_new_file(*(file for file in half.iterdir() if file.is_file()))
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror or error}") from None
    return stock, notes


def hear(folder: Path, reading: Reading) -> Float32[ndarray, "n v"]:
    """The logits of a Whisper in such a folder, by stock transformers."""
    from transformers import WhisperForConditionalGeneration

    with without_bars():
        model: Any = WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
    return stock_logits(model.eval(), reading)


@torch.no_grad()
def stock_logits(model: Any, reading: Reading) -> Float32[ndarray, "n v"]:
    """What a stock WhisperForConditionalGeneration makes of the clip and the tokens, without a cache."""
    tokens = torch.tensor([[*reading.prompt, *reading.tokens[:-1]]])
    output = model(input_features=torch.from_numpy(reading.features), decoder_input_ids=tokens)
    return output.logits[0, len(reading.prompt) - 1 :].float().numpy()


def _with_heads(stock: Any, opened: Opened, folder: Path) -> tuple[Any, list[str]]:
    """The stock model with the adapter's CTC layer where stock code has one, and what is left out."""
    left = [name for name in opened.heads if name != "ctc"]
    kind = stock.config.model_type
    own = opened.backbone.layer or (opened.ctc is not None and len(opened.ctc.blocks))
    if opened.ctc is not None and (kind not in _WITH_CTC or own):
        left.append("ctc")
    elif opened.ctc is not None:
        stock = _with_ctc(stock, opened.ctc, folder)
    return stock, [
        f"the adapter's head {name!r} is not in the folder: stock code has none like it" for name in left
    ]


def _with_ctc(stock: Any, head: CtcHead, folder: Path) -> Any:
    """The stock `...ForCTC` around a merged encoder; its tokenizer is written into `folder`."""
    import transformers

    name, inside = _WITH_CTC[stock.config.model_type]
    config = deepcopy(stock.config)
    config.vocab_size, config.pad_token_id = len(head.vocabulary), 0
    whole = getattr(transformers, name)(config).eval().requires_grad_(False)
    setattr(whole, inside, stock)
    with torch.no_grad():
        whole.lm_head.weight.copy_(head.linear.weight)
        whole.lm_head.bias.copy_(head.linear.bias)
    tokens = [_PAD, *(_SPACE if character == " " else character for character in head.vocabulary.characters)]
    vocabulary = folder / "vocab.json"
    ids = {token: i for i, token in enumerate(tokens)}
    vocabulary.write_text(json_text.write(ids, ensure_ascii=False), encoding="utf-8")
    tokenizer: Any = transformers.Wav2Vec2CTCTokenizer  # whose annotations know no None
    tokenizer(
        str(vocabulary),
        bos_token=None,
        eos_token=None,
        unk_token=_PAD,
        pad_token=_PAD,
        word_delimiter_token=_SPACE,
    ).save_pretrained(folder)
    return whole.to(stock.dtype)


def _add_side_files(backbone: Backbone, folder: Path) -> None:
    """What the checkpoint had beside its weights, and what stock readers need where it had none."""
    source = backbone.origin.folder
    for file in source.iterdir() if source else ():
        if (
            file.suffix in (".json", ".txt")
            and ".index." not in file.name
            and not (folder / file.name).exists()
        ):
            shutil.copyfile(file, folder / file.name)
    if not (folder / "preprocessor_config.json").exists() and (extractor := _extractor(backbone)) is not None:
        extractor.save_pretrained(folder)
    if backbone.module.config.model_type == "whisper" and not _is_whispers(folder / "tokenizer_config.json"):
        from transformers import WhisperTokenizer

        tokenizer = WhisperTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer.save_pretrained(folder)


def _is_whispers(path: Path) -> bool:
    """Whether the tokenizer opens as Whisper's, which alone knows times and languages."""
    kind = json_text.read_object(path).get("tokenizer_class") if path.is_file() else None
    return isinstance(kind, str) and kind.startswith("Whisper")


def _extractor(backbone: Backbone) -> Any:
    """The stock extractor of the features that a backbone computes; None for a family without one."""
    import transformers as stock

    config: Any = backbone.module.config
    match config.model_type:
        case "whisper":
            return stock.WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        case "audio-spectrogram-transformer":
            normal = {"mean": getattr(backbone, "mean"), "std": getattr(backbone, "std")}  # noqa: B009
            return stock.ASTFeatureExtractor(
                num_mel_bins=config.num_mel_bins, max_length=config.max_length, **normal
            )
        case "wav2vec2-bert":
            stride = backbone.stacked_frames
            bins = config.feature_projection_input_dim // stride
            return stock.SeamlessM4TFeatureExtractor(feature_size=bins, num_mel_bins=bins, stride=stride)
        case "wav2vec2-conformer":
            settings = getattr(backbone, "settings", {})
            normalise = settings.get("do_normalize", True)
            return stock.Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True)
    return getattr(backbone, "_extract", None)  # the stock one is what such a backbone uses
