"""Several adapters of one base as one adapter.

    average, sum      tensor by tensor; of LoRAs, the mean or sum of what they change, at their rank
    mera              the average of adapters whose inner units were brought into one order (`alignment.py`)
    cat               of LoRAs the exact sum, as one of higher rank
    svd               the same at a rank of your choice
    ties, dare        of LoRAs without what contradicts, or repeats, itself (`changes.py`)

What is made is another method at times: whatever amounts to a LoRA is joined as one.
"""

from collections.abc import Sequence

from ..core.method import Mixing
from ..core.model import AdaptedModel
from ..core.wrapping import Wrapping
from ..errors import ConfigError
from .join_changes import join_changes
from .join_tensors import join_tensors
from .joining import OF_LORAS, Activations, Joined, Joining
from .stated import states_lora


def join(
    model: AdaptedModel,
    names: Sequence[str],
    joining: Joining,
    activations: Activations | None = None,
    least: int = 2,
) -> Joined:
    """Adapters of `model` as one. Their own tensors may be brought into another order or form by it.

    Raises ConfigError naming the adapter, the site and what would work, where they cannot be joined so.
    """
    _check_joinable(model, names, least)
    factors = joining.factors_of(len(names))
    low = all(states_lora(model, name) for name in names)
    if joining.how in OF_LORAS and not low:
        other = next(name for name in names if not states_lora(model, name))
        raise ConfigError(
            f"how: {joining.how} joins what amounts to LoRAs, and {other} is a {model.methods[other].name}. "
            "Take average, sum or mera"
        )
    if joining.how == "mera" and low:
        raise ConfigError(
            "how: mera brings inner units into one order, and those of a LoRA can be turned in any way, not "
            "only reordered. Take average, svd or ties, which join what they change"
        )
    if low:
        return join_changes(model, names, joining, factors)
    return join_tensors(model, names, joining, factors, activations or {})


def _check_joinable(model: AdaptedModel, names: Sequence[str], least: int) -> None:
    if len(names) < least:
        raise ConfigError(f"expected two adapters or more to make one of, got {len(names)}")
    for name in names:
        method = model.methods[name]
        if isinstance(method, Mixing):
            raise ConfigError(f"{name} is a {method.name} over {', '.join(method.over)}; join these")
        if isinstance(method, Wrapping):
            raise ConfigError(
                f"{name} is a {method.name}, whose numbers must keep to a form that no mean of them keeps"
            )
