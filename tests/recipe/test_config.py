"""A recipe is checked before anything is loaded, and the message says what to type instead."""

import subprocess
import sys

import pytest
import yaml

from speech_peft.errors import ConfigError
from speech_peft.recipe import config

RECIPE = {
    "out": "runs/x",
    "backbone": {"name": "whisper", "weights": "pkg:w/model"},
    "adapters": {"a": {"method": "lora", "rank": 4}},
    "task": {"name": "asr", "decoder": "whisper"},
    "data": {"train": "???"},
    "trainer": {"max_steps": 3},
}


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "train.jsonl").touch()
    path = tmp_path / "recipe.yaml"

    def write(**changes):
        tree = {**RECIPE, "data": {"train": str(tmp_path / "train.jsonl")}, **changes}
        path.write_text(yaml.safe_dump(tree))
        return str(path)

    return write


def test_overrides_are_applied_on_the_dotted_path_before_validation(recipe):
    read = config.read(
        recipe(), ["optim.lr=1e-4", "adapters.a.rank=8", "data.valid=null", "trainer.max_minutes=4"]
    )
    assert read.optim.lr == 1e-4
    assert read.adapters["a"]["rank"] == 8
    assert read.trainer.max_minutes == 4


def test_a_saved_recipe_reads_back_equal(recipe, tmp_path):
    read = config.read(recipe(), ["data.clean=0.25"])
    (tmp_path / "again.yaml").write_text(config.dump(read))
    assert config.read(str(tmp_path / "again.yaml")) == read


def test_required_values_are_all_reported_by_their_full_path(recipe):
    path = recipe(data={"train": "???", "valid": "???"})
    with pytest.raises(ConfigError, match=r"data\.train: required(.|\n)*data\.valid: required"):
        config.read(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", r"optim\.lrr: OptimConfig has no field 'lrr'. Did you mean 'lr'"),
        ("optim.lr=fast", r"optim\.lr: got 'fast' \(str\)"),
        ("task.decoder=whispr", r"task\.decoder: got 'whispr'.*Did you mean 'whisper'"),
        ("active=[b]", r"active: no adapter is called 'b'"),
        ("adapters.a.from=x", r"adapters\.a: give either"),
        ("data.train=nowhere/x.jsonl", r"data\.train: nowhere/x\.jsonl does not exist"),
        ("trainer.max_steps=null", r"trainer: give max_steps, max_minutes or both"),
        ("optim.lr.x=1", r"optim\.lr is .*no parts|optim\.lr: got"),
        ("novalue", "overrides are key=value"),
    ],
)
def test_mistakes_name_the_dotted_key_and_the_way_out(recipe, override, message):
    with pytest.raises(ConfigError, match=message):
        config.read(recipe(optim={"lr": 1e-3}), [override])


def test_a_cache_refuses_degradation_that_is_new_in_every_epoch(recipe):
    path = recipe()
    over = ["data.cache={where: memory}", "data.degrade=[{kind: band}]"]
    with pytest.raises(ConfigError, match=r"data\.variants=N"):
        config.read(path, over)
    config.read(path, [*over, "data.variants=2"])


CLASSIFY = {"task": {"name": "classify"}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.name=clasify", r"task\.name: got 'clasify'. Did you mean 'classify'"),
        ("task.hed=mlp", r"task\.hed: ClassifyConfig has no field 'hed'. Did you mean 'head'"),
        ("task.head=liner", r"task\.head: got 'liner', expected .*Did you mean 'linear'"),
        ("task.layer=0", r"task\.layer: got 0"),
        ("task.decoder=ctc", r"task\.decoder: ClassifyConfig has no field 'decoder'"),
        ("data.native_share=0.5", r"data\.native_share: only task\.name=asr knows it"),
    ],
)
def test_mistakes_in_one_of_several_tasks_name_the_key_as_a_recipe_has_it(recipe, override, message):
    with pytest.raises(ConfigError, match=message):
        config.read(recipe(**CLASSIFY), [override])


def test_what_only_classification_knows_is_refused_elsewhere(recipe):
    with pytest.raises(ConfigError, match=r"data\.per_class: only task\.name=classify knows it"):
        config.read(recipe(), ["data.per_class=4"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.spec_augment={}", r"data\.spec_augment makes new audio or features in every epoch"),
        ("data.shift_seconds=1", r"data\.shift_seconds makes new audio"),
        ("task.mixup=0.3", r"task\.mixup makes new audio"),
        ("backbone.train=true", r"backbone\.train changes the blocks"),
        ("task.layer=mix", r"task\.layer=mix reads every block"),
    ],
)
def test_a_cache_refuses_what_it_would_make_untrue(recipe, override, message):
    cache = "data.cache={where: memory}"
    config.read(recipe(**CLASSIFY), [cache])
    with pytest.raises(ConfigError, match=message):
        config.read(recipe(**CLASSIFY), [cache, override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.layer=2", r"backbone\.train: to tune only 2 blocks give backbone\.layer=2"),
        ("trainer.precision=bf16-true", r"trainer\.precision: .*use bf16-mixed"),
    ],
)
def test_full_fine_tuning_refuses_what_would_not_tune(recipe, override, message):
    with pytest.raises(ConfigError, match=message):
        config.read(recipe(**CLASSIFY), ["backbone.train=true", override])


def test_classification_hears_clips_at_their_length_unless_told_otherwise(recipe):
    assert config.read(recipe(**CLASSIFY)).backbone.context == "fit"
    assert config.read(recipe(**CLASSIFY), ["backbone.context=full"]).backbone.context == "full"
    assert config.read(recipe()).backbone.context is None


def test_validation_by_a_column_needs_no_second_manifest(recipe):
    read = config.read(recipe(**CLASSIFY), ["data.valid_where={fold: [3]}"])
    assert read.data.valid == read.data.train
    assert config.read(recipe(**CLASSIFY)).data.valid is None


def test_unknown_recipe_names_the_bundled_ones():
    with pytest.raises(ConfigError, match="asr/whisper_parallel"):
        config.find("asr/whisper_paralel")


def test_reading_a_recipe_does_not_import_torch(recipe):
    code = f"from speech_peft.recipe import config; config.read({recipe()!r})"
    subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; assert 'torch' not in sys.modules"], check=True
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task={name: restore, stage: features}"], r"speed moves sounds"),
        (
            ["data.cache={where: memory}", "data.variants=2"],
            r"data\.cache: keeps batches of clips of one length",
        ),
    ],
)
def test_speed_is_refused_where_it_would_be_untrue(recipe, overrides, message):
    read = config.read(recipe(), ["data.degrade=[{kind: speed}]", *overrides])
    with pytest.raises(ConfigError, match=message):
        config.degrader_of(read)
    assert config.degrader_of(config.read(recipe(), ["data.degrade=[{kind: speed}]"])) is not None


def test_a_method_made_in_python_says_what_is_wrong_as_the_command_does(recipe):
    from speech_peft.registry import METHODS

    said = "Lora has no field 'r'. Did you mean 'rank'?"
    with pytest.raises(ConfigError) as python:
        METHODS["lora"](r=8)
    assert str(python.value) == f"r: {said}"
    with pytest.raises(ConfigError) as command:
        config.methods_of(config.read(recipe(adapters={"a": {"method": "lora", "r": 8}})))
    assert str(command.value) == f"adapters.a.r: {said}"
    fields = {"method": "sparse", "of": {"method": "lora", "r": 8}}
    with pytest.raises(ConfigError) as nested:
        config.methods_of(config.read(recipe(adapters={"a": fields})))
    assert said in str(nested.value)
