"""What methods there are and where they can sit, as the command line says it."""

import pytest

from speech_peft.cli import methods, sites
from speech_peft.registry import METHODS


def test_every_method_is_listed_with_what_it_is(capsys):
    assert methods.main(["list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in shown] == METHODS.names()
    assert all(len(row.split()) > 3 for row in shown)


def test_a_method_is_shown_with_equation_paper_settings_and_cost(capsys):
    assert methods.main(["show", "lora"]) == 0
    shown = capsys.readouterr().out
    for part in ("arXiv:2106.09685", "y' =", "Sits at:", "numbers train", "rank: int, default"):
        assert part in shown


def test_a_method_there_is_none_of_is_told_with_the_nearest(capsys):
    assert methods.main(["show", "lorra"]) == 2
    assert "'lora'" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["whisper", "ast"])
def test_sites_are_one_line_a_kind_or_all_of_them(capsys, family):
    assert sites.main([f"tiny:{family}"]) == 0
    few = capsys.readouterr().out
    assert "layers.N.ffn" in few
    assert sites.main([f"tiny:{family}", "--all"]) == 0
    every = capsys.readouterr().out
    assert "layers.1.ffn" in every
    assert len(every) > len(few)


def test_weights_that_are_not_there_are_told(capsys):
    assert sites.main(["./nowhere", "--offline"]) == 2
    assert "nowhere" in capsys.readouterr().err
