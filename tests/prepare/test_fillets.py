"""The Fish Fillets corpus, on a replica of the game's folder with a few dialogs of each kind."""

import io as stdio

import numpy as np
import pytest
import soundfile

from speech_peft.audio import manifest
from speech_peft.errors import ConfigError
from speech_peft.prepare import __main__ as command
from speech_peft.prepare.corpora import fillets

CZECH = r"""
dialogId("bot-v", "font_big", "Nothing\nnew.")
dialogStr("Nic \"nového\".")

-- a remark
dialogId("bot-m", "font_small", "I will.")
dialogStr("...B-b-budu tu -- Halóóó.")

dialogId("parrot", "font_parrot", "Cruel captain")
dialogStr("Krrrutý kapitán")
dialogId("ghost", "font_lightgrey", "Who is there?")
dialogStr("Kdo je tam?")
dialogId("untold", "font_big", "In English only.")
dialogId("count", "font_cyan", "C%1.")
dialogStr("C%1.")
dialogId("cry", "font_big", "Aaargh!")
dialogStr("Ááááá... Pssst!")
dialogId("fast", "font_big", "Too much.")
dialogStr("Tolik slov do tak krátké nahrávky nikdo nikdy nevtěsná.")
dialogId("russian", "font_big", "Wait.")
dialogStr("Подожди, počkej tady.")
dialogId("silent", "font_big", "No recording.")
dialogStr("Bez nahrávky.")
"""
JOKES = 'dialogId("joke", "font_small", "Shame.")\ndialogStr("Škoda.")\n'
DUTCH = 'dialogId("bot-v", "font_big", "Hi.")\ndialogStr("Hallo.")\n'
DUTCH += 'dialogId("bot-m", "font_small", "Bye.")\ndialogStr("Dag dan.")\n'


@pytest.fixture(scope="module")
def game(tmp_path_factory):
    root = tmp_path_factory.mktemp("fillets-ng")
    pitch = iter(range(100))
    levels = {
        "script/aztec/dialogs_cs.lua": CZECH,
        "script/aztec/dialogs_nl.lua": DUTCH,
        "script/share/black_dialogs_cs.lua": JOKES,
        "script/aztec/code.lua": "nothing of ours",
    }
    for name, text in levels.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    spoken = ["bot-v", "bot-m", "parrot", "ghost", "untold", "count", "cry", "fast", "russian", "wordless"]
    clips = [f"aztec/cs/{name}" for name in spoken] + ["share/blackjokes/cs/joke"]
    for name in [*clips, "aztec/nl/bot-v", "aztec/nl/bot-m"]:
        file = root / "sound" / f"{name}.ogg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(clip(next(pitch)))
    (root / "sound/share/sp-bubbles.ogg").write_bytes(b"no clip of ours")
    return root


def clip(pitch: int) -> bytes:
    sound = stdio.BytesIO()
    tone = 0.1 * np.sin(np.arange(22_050 * 2) * (0.1 + 0.01 * pitch))
    soundfile.write(sound, np.stack([tone, tone], 1), 22_050, format="OGG", subtype="VORBIS")
    return sound.getvalue()


def rows(prepared):
    return {
        part: [(row.id, row.speaker, row.text, row.extra["english"]) for row in manifest.read(found.path)]
        for part, found in prepared.parts.items()
        if found.rows
    }


def test_each_clip_has_its_words_in_both_languages_and_characters_are_apart(game, tmp_path):
    prepared = fillets.prepare(tmp_path, lang="cs", sources=[game])
    assert rows(prepared) == {
        "train": [
            ("aztec/bot-m", "small", "budu tu - Haló.", "I will."),
            ("aztec/bot-v", "big", 'Nic "nového".', "Nothing new."),
            ("share/blackjokes/joke", "small", "Škoda.", "Shame."),
        ],
        "valid": [("aztec/ghost", "lightgrey", "Kdo je tam?", "Who is there?")],
        "test": [("aztec/parrot", "parrot", "Krutý kapitán", "Cruel captain")],
    }
    row = manifest.read(prepared.parts["test"].path)[0]
    assert (row.duration, row.lang, row.extra["scene"]) == (2.0, "cs", "aztec")
    assert len(list((tmp_path / "audio").rglob("*.ogg"))) == 5  # what is left out leaves no file
    assert fillets.prepare(tmp_path, lang="cs", sources=[game]).reused


def test_the_dutch_test_is_the_voice_that_training_lacks(game, tmp_path, capsys):
    assert command.main(["fillets", str(tmp_path), "--lang", "nl", "--source", str(game)]) == 0
    assert "test: 1 recordings" in capsys.readouterr().out
    speakers = {
        part: {row.speaker for row in manifest.read(tmp_path / f"{part}.jsonl")} for part in ("train", "test")
    }
    assert speakers == {"train": {"big"}, "test": {"small"}}


def test_a_recording_of_two_levels_is_heard_once(game, tmp_path):
    twin = game.parent / "twin"
    for name in ("script/aztec", "script/cave"):
        (twin / name).mkdir(parents=True)
        (twin / name / "dialogs_nl.lua").write_text(DUTCH)
    recording = clip(3)
    for name in ("aztec", "cave"):
        (twin / "sound" / name / "nl").mkdir(parents=True)
        (twin / "sound" / name / "nl" / "bot-m.ogg").write_bytes(recording)
    assert [name for name, _, _ in fillets.read_clips("nl", [twin])] == ["aztec/bot-m"]


def test_what_is_missing_is_named(game, tmp_path):
    with pytest.raises(ConfigError, match="no texts \\(fillets-ng-data\\)"):
        fillets.read_clips("cs", [game / "sound"])
    with pytest.raises(ConfigError, match="no recordings \\(fillets-ng-data-cs\\)"):
        fillets.read_clips("cs", [game / "script"])
