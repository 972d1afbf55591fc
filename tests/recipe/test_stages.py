"""Recipes of several stages become whole recipes."""

import pytest

from speech_peft.errors import ConfigError
from speech_peft.recipe.stages import split
from speech_peft.train import processes

TREE = {
    "out": "runs/x",
    "trainer": {"max_steps": 5, "accumulate": 2},
    "stages": {
        "one": {"adapters": {"a": {"method": "none"}}, "trainer": {"max_steps": 9}},
        "two": {
            "adapters": {"b": {"from": "one/a"}, "c": {"from": "two/c"}},
            "task": {"decoder": {"from": "one/a"}},
        },
    },
}


def test_a_stage_is_the_shared_parts_with_its_own_on_top_in_a_folder_of_its_name():
    one, two = split(TREE, []).values()
    assert one == {
        "out": "runs/x/one",
        "trainer": {"max_steps": 9, "accumulate": 2},
        "adapters": {"a": {"method": "none"}},
    }
    assert two["trainer"] == {"max_steps": 5, "accumulate": 2}


def test_a_folder_of_an_earlier_stage_is_found_where_that_one_puts_it():
    two = split(TREE, ["out=elsewhere"])["two"]
    assert two["adapters"] == {"b": {"from": "elsewhere/one/a"}, "c": {"from": "two/c"}}
    assert two["task"]["decoder"] == {"from": "elsewhere/one/a"}


def test_an_override_holds_for_every_stage_or_for_the_one_it_names():
    given = ["trainer.max_steps=1", "stages.two.trainer.max_steps=3"]
    steps = [tree["trainer"]["max_steps"] for tree in split(TREE, given).values()]
    assert steps == [1, 3]
    assert TREE["trainer"]["max_steps"] == 5


def test_a_recipe_without_stages_is_itself():
    assert split({"seed": 1}, ["seed=2"]) == {"": {"seed": 2}}


@pytest.mark.parametrize(
    ("tree", "over", "message"),
    [
        (TREE, ["stages.tow.seed=1"], "no stage is called 'tow'. Did you mean 'two'"),
        ({"stages": []}, [], "expected names with the parts of each"),
        ({"stages": {"one": 3}}, [], "stages.one: expected parts of a recipe, got 3"),
    ],
)
def test_what_is_wrong_is_named(tree, over, message):
    with pytest.raises(ConfigError, match=message):
        split(tree, over)


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_one_process_of_all_nodes_clears_and_writes(monkeypatch, rank):
    for name in processes.RANKS:
        monkeypatch.delenv(name, raising=False)
    assert processes.is_first()
    monkeypatch.setenv(rank, "1")
    assert not processes.is_first()


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".hidden", "", 1])
def test_the_name_of_a_stage_names_one_folder(name):
    with pytest.raises(ConfigError, match="names a folder; give letters"):
        split({"out": "runs/x", "stages": {name: {"seed": 1}}}, [])
