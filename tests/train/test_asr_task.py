"""How recognition is validated."""

from types import SimpleNamespace

import pytest

from speech_peft.recipe.tasks import AsrConfig
from speech_peft.train.tasks.asr import Asr, Examined
from speech_peft.train.tasks.scores import Scores


def validated(said: str, heard: str, **config) -> Scores:
    task = SimpleNamespace(config=AsrConfig(name="asr", **config))
    return Asr.validate(task, [Examined(1.0, 2, [said], [heard])])


@pytest.mark.parametrize("decoder", ["whisper", "ctc"])
def test_scripts_without_spaces_are_validated_by_characters(decoder):
    scores = validated("今天天气很好我们去公园", "今天天气很好我们去花园。", decoder=decoder, language="zh")
    assert (scores.name, scores.value) == ("cer", pytest.approx(1 / 11))
    assert validated("今天天气很好", "今天天气很坏", decoder=decoder).name == "cer"


def test_other_scripts_are_validated_by_words():
    scores = validated("twenty-one dollars", "$22", decoder="whisper")
    assert (scores.name, scores.value) == ("wer", 1.0)


def test_the_best_is_the_lowest_of_one_measure():
    old = Scores("cer", 0.1, 2.0)
    assert Scores("cer", 0.1, 1.9).better_than(old)
    assert not Scores("cer", 0.1, 2.1).better_than(old)
    assert not Scores("cer", 0.2, 1.0).better_than(old)
    assert Scores("wer", 0.2, 3.0).better_than(old)
    assert old.better_than(None)
