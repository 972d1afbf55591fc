"""What a saved adapter's card asks for is not built where its file could never fill it."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import room, save
from speech_peft.core.saved.room import Room
from speech_peft.decoders.ctc import CtcHead
from speech_peft.decoders.waveform import build_decoder
from speech_peft.errors import ConfigError, SpeechPeftError
from speech_peft.methods.lora import Lora
from speech_peft.registry import DECODERS, METHODS
from tests import toy

HUGE = 10**13
"""More numbers than any address reaches, so that without a limit torch refuses, and nothing is filled."""
ROOM = Room(Path("a/adapter.json"), Path("a/adapter.safetensors"), 1000)


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where numbers stand in settings, and where one could."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from places(value, (*at, key))
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield (*at, key)


def with_huge(tree: dict[str, Any], place: tuple[Any, ...]) -> dict[str, Any]:
    tree = json.loads(json.dumps(tree))
    here = tree
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = HUGE
    return tree


METHOD_CASES = [
    pytest.param(name, with_huge(settings, place), id=f"{name}-{i}-{'.'.join(place)}")
    for name in METHODS.names()
    for i, example in enumerate(METHODS[name].examples())
    for settings in [example.model_dump(mode="json")]
    for place in places(settings)
]


DECODER_CASES = [
    pytest.param(name, with_huge(settings, place), id=f"{name}-{'.'.join(place)}")
    for name in DECODERS.names()
    for settings in [DECODERS[name](sample_rate=16_000).model_dump(mode="json")]
    for place in places(settings)
]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """The toy has few sites, so that counting to the limit of the largest models would be waiting."""
    monkeypatch.setattr(room, "MOST_STEPS", 5000)


def bounded(build: Callable[[], Any]) -> None:
    """It is built small or refused for the user, and either at once."""
    start = time.process_time()
    try:
        made = build()
    except (SpeechPeftError, ValidationError):
        pass
    else:
        assert sum(p.numel() for p in made.parameters()) < 2 * room.SPARE
    assert time.process_time() - start < 3


@pytest.mark.parametrize(("name", "settings"), METHOD_CASES)
def test_no_number_of_a_method_makes_more_than_its_file_fills(name, settings):
    bounded(
        lambda: AdaptedModel(
            toy.toy(), toy.sites(), {"a": METHODS[name].model_validate(settings)}, {"a": ROOM}
        )
    )


@pytest.mark.parametrize(("name", "settings"), DECODER_CASES)
def test_no_number_of_a_decoder_makes_more_than_its_file_fills(name, settings):
    def build() -> Any:
        with ROOM.kept():
            return build_decoder(16, 50.0, name=name, **settings)

    bounded(build)


def test_an_enormous_rank_in_a_card_is_refused_before_anything_is_made(tmp_path):
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Lora(rank=2, sites=("*.attn.q",))})
    folder = save.write(tmp_path / "a", model, "a", toy.CARD)
    card = folder / "adapter.json"
    card.write_text(card.read_text().replace('"rank": 2', f'"rank": {HUGE}'))
    saved = save.read(folder)
    with pytest.raises(ConfigError, match=r"adapter\.json: what it describes takes .*a rank"):
        AdaptedModel(toy.toy(), toy.sites(), {"a": saved.pinned}, {"a": saved.room()})


def test_an_enormous_head_in_a_card_is_refused_before_anything_is_made(tmp_path):
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Lora(rank=2, sites=("*.attn.q",))})
    head = CtcHead(toy.DIM, "ab")
    config = {"ctc": {"characters": "ab"}}
    folder = save.write(tmp_path / "a", model, "a", toy.CARD, heads={"ctc": head}, head_config=config)
    saved = save.read(folder)
    assert torch.equal(
        saved.build_head("ctc", lambda: CtcHead(toy.DIM, "ab")).linear.weight, head.linear.weight
    )
    with pytest.raises(ConfigError, match=r"far more than the .* bytes of head\.safetensors"):
        saved.build_head("ctc", lambda: CtcHead(HUGE, "ab"))


def test_what_a_file_fills_is_built_however_large(tmp_path):
    base = torch.nn.Linear(1, 1)
    with Room(tmp_path / "a", tmp_path / "b", 4 * room.SPARE).kept(base):
        torch.empty(5 * room.SPARE, device="meta")
