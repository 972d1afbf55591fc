"""A recipe: its parts, what one part decides for another, and what must not go together."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import Field, model_validator

from ..errors import did_you_mean
from .parts import BackboneConfig, DataConfig, OptimConfig, Part, TrainerConfig
from .tasks import AsrConfig, ClassifyConfig, GenerateConfig, RestoreConfig


class Recipe(Part):
    """One training run, complete."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of weights, order, degradation and augmentation."""
    out: str
    """The run's folder; each trained adapter is written to `out/<its name>`."""
    backbone: BackboneConfig
    """The frozen model."""
    adapters: dict[str, dict[str, Any]]
    """Name to `{method: NAME, **fields}`, or `{from: FOLDER or hub id}`."""
    active: tuple[str, ...] = ()
    """Adapters applied, in order; by default all."""
    train: tuple[str, ...] = ()
    """Adapters trained; by default those that are not `from` somewhere."""
    task: Annotated[AsrConfig | ClassifyConfig | GenerateConfig | RestoreConfig, Field(discriminator="name")]
    """What is learned: asr, classify, generate or restore."""
    data: DataConfig
    """What is heard."""
    optim: OptimConfig = OptimConfig()
    """How it is learned."""
    trainer: TrainerConfig
    """How long and on what."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        """Writes the defaults that depend on other parts out, so that a saved recipe says what ran."""
        tree = cast("dict[str, Any]", raw if isinstance(raw, dict) else {})
        if not isinstance(tree.get("adapters"), dict):
            return cast("Any", raw)
        adapters: dict[str, Any] = tree["adapters"]
        new = [
            name for name, fields in adapters.items() if not (isinstance(fields, dict) and "from" in fields)
        ]
        tree = {**tree, "active": tree.get("active") or list(adapters), "train": tree.get("train") or new}
        return _heard_as_long_as_it_is(_layer_in_both_places(_split_by_column(tree)))

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name, fields in self.adapters.items():
            if ("from" in fields) == ("method" in fields):
                raise ValueError(f"adapters.{name}: give either `method: NAME` or `from: FOLDER`")
            if not name.isidentifier():
                raise ValueError(f"adapters.{name}: a name is letters, digits and _, since it names a folder")
        for key, names in (("active", self.active), ("train", self.train)):
            for name in names:
                if name not in self.adapters:
                    raise ValueError(
                        f"{key}: no adapter is called {name!r}. {did_you_mean(name, self.adapters)}"
                    )
        if not self.train and not self._trains_a_decoder:
            raise ValueError("train: nothing to train; name at least one adapter")
        if idle := set(self.train) - set(self.active):
            raise ValueError(f"train: {', '.join(sorted(idle))} would train without being active")
        if self.data.cache and (why := self._uncacheable()):
            raise ValueError(f"data.cache: {why}, or drop data.cache")
        if self.data.channels == "views":
            _hears_apart(self)
        if self.data.enrol and self.data.join:
            raise ValueError("data.enrol: windows of several clips have no one speaker; drop data.join")
        self._of_one_task_only()
        if isinstance(self.task, RestoreConfig):
            _restores(self, self.task)
        if isinstance(self.task, GenerateConfig) != (self.backbone.name == "mel_diffusion"):
            raise ValueError(
                f"task.name: {self.task.name} and backbone.name={self.backbone.name} do not go together; "
                "task.name=generate is learned by backbone.name=mel_diffusion, and nothing else is"
            )
        if self.backbone.train and self.trainer.precision == "bf16-true":
            raise ValueError(
                "trainer.precision: in bf16-true the encoder's weights lose the small steps of fine-tuning; "
                "use bf16-mixed"
            )
        layer = self.task.layer if isinstance(self.task, ClassifyConfig) else "last"
        if self.backbone.train and isinstance(layer, int):
            raise ValueError(
                f"backbone.train: to tune only {layer} blocks give backbone.layer={layer} and task.layer=last"
            )
        return self

    def _uncacheable(self) -> str | None:
        """Why no prefix cache would be exact, and what to change."""
        data, task = self.data, self.task
        if isinstance(task, RestoreConfig):
            return "task.name=restore hears each clip twice, clean and degraded: set it to null"
        if data.degrade and not data.variants:
            return (
                "on-the-fly degradation gives every epoch new audio, which no cache can hold. "
                "Set data.variants=N to degrade each clip in N fixed ways"
            )
        fresh = {
            "data.spec_augment": data.spec_augment,
            "data.shift_seconds": data.shift_seconds,
            "data.join": data.join,
        }
        if isinstance(task, ClassifyConfig):
            fresh["task.mixup"] = task.mixup
        if used := [key for key, value in fresh.items() if value]:
            return f"{', '.join(used)} makes new audio or features in every epoch: switch it off"
        if self.backbone.train:
            return "backbone.train changes the blocks that a cache takes for frozen: set it to false"
        if isinstance(task, ClassifyConfig) and task.layer == "mix":
            return "task.layer=mix reads every block, and the cache keeps one: name one layer"
        return None

    @property
    def _trains_a_decoder(self) -> bool:
        """Whether there is something to learn without any adapter."""
        return isinstance(self.task, RestoreConfig) and self.task.stage == "finetune"

    def _of_one_task_only(self) -> None:
        data = self.data
        mine: dict[str, dict[str, Any]] = {
            "asr": {
                "native_share": data.native_share,
                "join": data.join,
                "text": data.text,
                "channels": data.channels != "mix",
            },
            "classify": {"per_class": data.per_class, "spec_augment": data.spec_augment},
            "classify or generate": {"shift_seconds": data.shift_seconds},
        }
        for tasks, fields in mine.items():
            for key, value in fields.items():
                if value and self.task.name not in tasks.split(" or "):
                    raise ValueError(
                        f"data.{key}: only task.name={tasks} knows it, and the task is {self.task.name}"
                    )


def _hears_apart(recipe: Recipe) -> None:
    """Raises ValueError for what takes each row of a batch for a recording of its own."""
    data, task = recipe.data, recipe.task
    alone = {"data.join": data.join, "data.enrol": data.enrol, "data.cache": data.cache}
    if isinstance(task, AsrConfig):
        alone |= {"task.distil": task.distil, "task.parallel": task.parallel}
    if used := [key for key, value in alone.items() if value]:
        raise ValueError(
            f"{', '.join(used)}: knows nothing of several microphones; leave it out, or data.channels=views"
        )


def _restores(recipe: Recipe, task: RestoreConfig) -> None:
    """Raises ValueError where the stages of restoration are mixed up."""
    if recipe.backbone.train:
        raise ValueError(
            "backbone.train: restoration is measured against the frozen encoder; set it to false"
        )
    if task.stage == "features":
        if task.decoder or task.discriminators:
            raise ValueError(
                "task.decoder: stage=features makes no waveform; leave it and discriminators out"
            )
        return
    if not task.decoder or ("name" in task.decoder) == ("from" in task.decoder):
        raise ValueError(
            f"task.decoder: stage={task.stage} needs either {{name: mask, ...}} or {{from: FOLDER}}"
        )
    if "from" in task.decoder and task.decoder.keys() - {"from", "adapters"}:
        raise ValueError(
            "task.decoder: a saved decoder has its own settings; give `from`, and `adapters` to put into it"
        )
    if "from" not in task.decoder and "adapters" in task.decoder:
        raise ValueError("task.decoder.adapters: sit in a decoder that has learned; give `from: FOLDER`")
    silent = [name for name, fields in recipe.adapters.items() if fields.get("method") != "none"]
    if task.stage == "decoder" and silent:
        raise ValueError(
            f"adapters.{silent[0]}: stage=decoder hears clean speech through the bare encoder, so that no "
            "adapter would run; give adapters: {decoder: {method: none}}"
        )


def _layer_in_both_places(tree: dict[str, Any]) -> dict[str, Any]:
    """`task.layer` of a restorer is `backbone.layer`; either may be given."""
    backbone, task = tree.get("backbone"), tree.get("task")
    if not isinstance(backbone, dict) or not isinstance(task, dict) or task.get("name") != "restore":
        return tree
    run, read = backbone.get("layer"), task.get("layer")
    if run and read and run != read:
        raise ValueError(f"task.layer: the states of block {read} are wanted, and backbone.layer is {run}")
    layer = {"layer": run or read} if run or read else {}
    return {**tree, "backbone": {**backbone, **layer}, "task": {**task, **layer}}


def _split_by_column(tree: dict[str, Any]) -> dict[str, Any]:
    """With `valid_where` and no manifest of its own, validation takes its rows from the training manifest."""
    data = tree.get("data")
    if not isinstance(data, dict):
        return tree
    fields = cast("dict[str, Any]", data)
    if not fields.get("valid_where") or fields.get("valid") or not fields.get("train"):
        return tree
    return {**tree, "data": {**fields, "valid": fields["train"]}}


def _heard_as_long_as_it_is(tree: dict[str, Any]) -> dict[str, Any]:
    """All but recognition hears clips at their own length, unless the recipe says otherwise."""
    backbone, task = tree.get("backbone"), tree.get("task")
    if not isinstance(backbone, dict) or not isinstance(task, dict) or task.get("name") == "asr":
        return tree
    fields = cast("dict[str, Any]", backbone)
    if fields.get("name") not in ("whisper", "ast") or fields.get("context"):
        return tree
    return {**tree, "backbone": {**fields, "context": "fit"}}
