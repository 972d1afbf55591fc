"""Adapters found by what they are for: what is offered, in what order, how much of it, and when none is."""

import numpy as np
import pytest

from speech_peft.compose.cards.card import AdapterCard, Sound, read_card, write_card
from speech_peft.compose.cards.catalogue import Catalogue, Entry
from speech_peft.compose.cards.select import CAP, Request, search, select, terms
from speech_peft.core.saved.save import BackboneCard, Manifest, Saved
from speech_peft.errors import ConfigError
from speech_peft.methods.lora import Lora

LANGUAGES, CHANNELS = ("cs", "nl", "en", "fr"), ("telephone", "studio", "room")
BASE = BackboneCard(name="whisper", id="base", dim=4, layers=2, sha256="a" * 64)
PLACES = np.random.default_rng(0).normal(size=(12, 4))


def saved(folder, base=BASE) -> Saved:
    manifest = Manifest(method="lora", config={}, backbone=base, sites=("layers.0.attn.q",))
    return Saved(folder, manifest, Lora())


def entry(i: int, folder, **card) -> Entry:
    language, channel = LANGUAGES[i % 4], CHANNELS[i // 4]
    sound = Sound(mean=tuple(PLACES[i]), variance=(0.01,) * 4, clips=9)
    given = {"language": (language,), "channel": (channel,), "tags": ("speech",), "sound": sound, **card}
    return Entry(f"{language}-{channel}", saved(folder), AdapterCard(**given))


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    return Catalogue(tmp_path, [entry(i, tmp_path) for i in range(12)])


@pytest.mark.parametrize(
    "words", ["czech telephone", "telefone, Czech", "a cs recording by telephone, please"]
)
def test_words_find_what_says_all_of_them_however_a_language_is_called(catalogue, words):
    assert search(catalogue, Request(words))[0].entry.name == "cs-telephone"
    assert dict(select(catalogue, Request(words)).factors) == {"cs-telephone": 1.0}


def test_a_sound_finds_those_that_sound_like_it(catalogue):
    for i, own in enumerate(catalogue.entries):
        near = PLACES[i] + 0.05
        assert search(catalogue, Request(sound=near), 1)[0].entry is own
        assert list(select(catalogue, Request(sound=near)).factors) == [own.name]


def test_what_differs_among_the_clips_of_every_card_tells_none_of_them_apart(tmp_path):
    """Two cards 1 apart along one number; what both differ in most leads across that line."""
    rng = np.random.default_rng(0)
    across = np.array([0.7, 0.7, 0.0, 0.0])
    entries = []
    for i, mean in enumerate(([0.0, 0, 0, 0], [1.0, 0, 0, 0])):
        clips = np.array(mean) + rng.normal(size=(40, 1)) * across + 0.05 * rng.normal(size=(40, 4))
        _, size, along = np.linalg.svd(clips - clips.mean(0), full_matrices=False)
        first = (size[:1, None] * along[:1] / 40**0.5).tolist()
        sound = Sound(mean=mean, variance=clips.var(0).tolist(), clips=40, directions=first)
        entries.append(Entry(str(i), saved(tmp_path), AdapterCard(sound=sound)))
    both, far = Catalogue(tmp_path, entries), 1.2 * across  # nearer to the other mean by any measure but one
    assert [one.entry.name for one in search(both, Request(sound=far))] == ["0", "1"]
    assert list(select(both, Request(sound=far)).factors) == ["0"]
    assert not select(both, Request(sound=np.array([0, 0, 1.2, 0]))).factors, "their clips never go there"


@pytest.mark.parametrize(
    "request_",
    [
        Request("german telephone broadcast"),
        Request("medical dictation"),
        Request(sound=PLACES[0] + 3.0),
        Request("czech telephone", PLACES[0] + 3.0),
    ],
    ids=["language", "domain", "sound", "words without the sound"],
)
def test_where_nothing_suits_nothing_is_chosen(catalogue, request_):
    picked = select(catalogue, request_)
    assert not picked.factors
    assert picked.why.startswith("nothing suits: of the nearest, ")


def test_an_adapter_of_other_weights_is_never_offered(catalogue, tmp_path):
    others = [
        BASE.model_copy(update={"sha256": "b" * 64}),
        BASE.model_copy(update={"sha256": None}),
        BASE.model_copy(update={"name": "ast"}),
    ]
    strange = [Entry(f"x{i}", saved(tmp_path, card), AdapterCard()) for i, card in enumerate(others)]
    mixed = Catalogue(tmp_path, [*catalogue.entries, *strange])
    assert len(mixed.bases) == 3
    assert mixed.of_base(BASE).entries == catalogue.entries
    assert not mixed.of_base(others[1]).entries, "of what has no digest nobody can say so"
    assert not select(Catalogue(tmp_path, []), Request("czech")).factors


def test_what_one_adapter_does_not_cover_another_adds_and_the_sum_is_capped(tmp_path):
    parts = [
        ("cs", AdapterCard(language=("cs",), weight=1.2)),
        ("tel", AdapterCard(channel=("telephone",))),
        ("games", AdapterCard(domain=("games",), weight=0.5)),
    ]
    several = Catalogue(tmp_path, [Entry(name, saved(tmp_path), card) for name, card in parts])
    two = select(several, Request("czech telephone")).factors
    assert dict(two) == pytest.approx({"cs": 0.8 * 1.2 * CAP / 1.76, "tel": 0.8 * CAP / 1.76})
    assert not select(several, Request("czech telephone games")).factors, "one alone covers a third"
    assert select(several, Request("czech")).factors == {"cs": 1.2}


def test_words_that_every_card_says_count_for_less(catalogue):
    found = search(catalogue, Request("speech czech"))
    assert found[0].entry.card.language == ("cs",)
    assert 0 < found[-1].words < 0.5 < found[0].words == 1.0


def test_a_card_says_what_it_was_told_and_the_recipe_the_rest(tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: {name: asr, language: nl}")
    write_card(tmp_path, AdapterCard(channel=("room",), weight=0.75))
    card = read_card(saved(tmp_path))
    assert (card.task, card.language, card.channel, card.weight) == ("asr", ("nl",), ("room",), 0.75)
    (tmp_path / "card.json").write_text('{"weight": -1}')
    with pytest.raises(ConfigError, match=r"card\.json: weight: .*greater than 0"):
        read_card(saved(tmp_path))


def test_names_of_languages_are_their_codes():
    assert terms("Dutch and Flemish") == {"nl"}
