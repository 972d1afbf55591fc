"""What lies beside a Whisper's weights in the folders of other engines: tokens and settings."""

from pathlib import Path
from typing import Any

from ..backbones.whisper import Whisper
from ..backbones.whisper_tokens import Generation
from ..files import json_text


def vocabulary(backbone: Whisper, size: int) -> list[str]:
    """Every token's text, by its number; times, which tokenizers leave out, as <|0.00|> and on."""
    by_number = {number: text for text, number in backbone.tokenizer.get_vocab().items()}
    begin = backbone.generation.timestamp_begin
    return [by_number.get(i, f"<|{(i - begin) * 0.02:.2f}|>") for i in range(size)]


def write_side_files(backbone: Whisper, folder: Path) -> None:
    """tokenizer.json and preprocessor_config.json, as stock readers and faster-whisper look for them."""
    from transformers import WhisperFeatureExtractor

    backbone.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    bins = backbone.module.config.num_mel_bins
    features = WhisperFeatureExtractor(feature_size=bins).to_dict()
    text = json_text.write(features, indent=2)
    (folder / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")


def complete(settings: Any, generation: Generation) -> None:
    """Say to stock code where a transcript begins and ends, in so far as the checkpoint did not."""
    known = {
        "decoder_start_token_id": generation.sot,
        "bos_token_id": generation.eot,
        "eos_token_id": generation.eot,
        "pad_token_id": generation.eot,
        "no_timestamps_token_id": generation.no_timestamps,
        "prev_sot_token_id": generation.start_of_previous,
        "is_multilingual": generation.is_multilingual,
    }
    if generation.is_multilingual:
        known["lang_to_id"] = {f"<|{code}|>": token for code, token in generation.languages.items()}
        known["task_to_id"] = dict(generation.tasks)
    for key, value in known.items():
        if getattr(settings, key, None) is None:
            setattr(settings, key, value)
