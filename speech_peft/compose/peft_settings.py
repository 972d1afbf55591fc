"""What an adapter_config.json of PEFT may say, so that two matrices at each layer are all there is to it.

PEFT has thirty settings and adds some with every release; most change what the matrices mean. So there is a
list of what is understood, and of the values at which the rest does nothing; all else is refused by its name.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from ..errors import ConfigError
from ..files import json_text

FILE = "adapter_config.json"

# Where it came from and which layers it is at, which the tensors' names say; or of use with a setting that is
# refused anyway.
_SAYS_NOTHING = frozenset(
    {
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "megatron_core",
        "qalora_group_size",
    }
)
# The values besides null at which a setting changes nothing of what two matrices do.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "use_rslora": (False,),
    "use_qalora": (False,),
    "use_bdlora": (False,),
    "fan_in_fan_out": (False,),
    "ensure_weight_tying": (False,),
    "bias": ("none",),
    "modules_to_save": ([],),
    "alpha_pattern": ({},),
    "rank_pattern": ({},),
    "loftq_config": ({},),
    "trainable_token_indices": ([], {}),
    "target_parameters": ([],),
    "layer_replication": ([],),
    # How A and B began. The other ways (pissa, olora, corda, loftq ...) change the base as well.
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}


class PeftLora(BaseModel):
    """What is read of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    r: PositiveInt
    lora_alpha: PositiveFloat
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_bias: bool = False


def read_settings(folder: Path) -> PeftLora:
    """The settings of a PEFT folder; raises ConfigError naming what makes it more than a LoRA."""
    path = folder / FILE
    content = json_text.read_object(path)
    if content.get("peft_type") != "LORA":
        raise ConfigError(f"{path}: peft_type is {content.get('peft_type')!r}; only LORA can be read")
    for key, value in content.items():
        if key in _SAYS_NOTHING or key in PeftLora.model_fields or value is None:
            continue
        if key not in _NEUTRAL:
            raise ConfigError(f"{path}: {key}={value!r:.100} is a setting that is not known here")
        if not any(value == neutral and type(value) is type(neutral) for neutral in _NEUTRAL[key]):
            wanted = " or ".join(repr(neutral) for neutral in _NEUTRAL[key])
            raise ConfigError(f"{path}: {key}={value!r:.100} is not supported; what can be read is {wanted}")
    try:
        return PeftLora.model_validate({key: value for key, value in content.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ConfigError(f"{path}: {first['loc'][0]}: {first['msg']}") from None
