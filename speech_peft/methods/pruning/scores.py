"""What a weight is worth before training, by the scores of the papers that `sparse` names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...core.adapter import Adapter
from ...core.context import Context
from ...core.model import AdaptedModel
from ...core.site import Site
from ...core.wrapping import generator
from ...errors import ConfigError, SpeechPeftError

Score = Literal["random", "magnitude", "snip", "grasp", "synflow", "er"]
Loss = Callable[[Any], Tensor]
BLIND = ("random", "er")  # to the weights
BY_LOSS = ("snip", "grasp")


@dataclass(frozen=True)
class Scores:
    """Of the matrices of one adapter."""

    model: AdaptedModel
    adapter: str
    weights: Sequence[nn.Parameter]

    def by(self, score: Score, seed: int, loss_fn: Loss, batches: Sequence[Any]) -> list[Tensor]:
        """A number for each weight, by matrix; `seed` is of those that are random."""
        match score:
            case "random" | "er":
                drawn = generator("sparse", seed)
                return [torch.rand(w.shape, generator=drawn).to(w.device) for w in self.weights]
            case "magnitude":
                found = [weight.detach().abs() for weight in self.weights]
            case "snip":
                found = self._times_weights(self._gradient(loss_fn, batches))
            case "grasp":
                found = self._flow(loss_fn, batches)
            case "synflow":
                found = self._synflow()
        return [s.abs() for s in found] if score != "grasp" else found

    def _times_weights(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        return [weight.detach() * g for weight, g in zip(self.weights, gradients, strict=True)]

    def _grad(self, value: Tensor, graph: bool = False) -> list[Tensor]:
        """Of a number by all weights; zero for those it does not depend on."""
        found = torch.autograd.grad(value, self.weights, create_graph=graph, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for w, g in zip(self.weights, found, strict=True)]

    def _gradient(self, loss_fn: Loss, batches: Sequence[Any]) -> list[Tensor]:
        """Of the loss, summed over the batches of every process."""
        return _summed([self._grad(loss_fn(batch)) for batch in batches])

    def _flow(self, loss_fn: Loss, batches: Sequence[Any]) -> list[Tensor]:
        """W (H g), H g being the gradient of g · stopped g."""
        stopped, products = self._gradient(loss_fn, batches), []
        try:
            with sdpa_kernel(SDPBackend.MATH):  # the only attention with second derivatives
                for batch in batches:
                    g = self._grad(loss_fn(batch), graph=True)
                    flow = torch.stack([(a * b).sum() for a, b in zip(g, stopped, strict=True)]).sum()
                    products.append(self._grad(flow))
        except RuntimeError as error:
            if "derivative" not in str(error) and "does not require grad" not in str(error):
                raise
            raise SpeechPeftError(
                f"sparse: grasp needs second derivatives, which this loss has not ({error}); use score=snip"
            ) from error
        return self._times_weights(_summed(products))

    def _synflow(self) -> list[Tensor]:
        if reads := self.model.methods[self.adapter].reads:
            fields = ", ".join(sorted(reads))
            raise ConfigError(
                f"sparse: synflow shows adapters ones, and this one reads {fields} too; use snip"
            )
        parameters = self.model.parameters_of(self.adapter)
        before = [parameter.detach().clone() for parameter in parameters]
        for parameter in parameters:
            parameter.data.abs_()
        made = [self._made_of_ones(site) for site in self.model.sites[self.adapter]]
        scores = self._times_weights(self._grad(torch.stack(made).sum()))
        for parameter, value in zip(parameters, before, strict=True):
            parameter.data.copy_(value)
        return scores

    def _made_of_ones(self, site: Site) -> Tensor:
        """The sum of all that an adapter makes of a few frames of ones."""
        part, ctx = self.model.at(self.adapter, site), Context()
        assert isinstance(part, Adapter), "a mixer has nothing to mix here"
        # A norm makes zeros of ones, whatever stands behind it.
        norms = [module for module in part.modules() if isinstance(module, nn.LayerNorm)]
        handles = [norm.register_forward_hook(lambda module, given, made: given[0]) for norm in norms]
        x, y = (self.weights[0].new_ones(1, 4, dim) for dim in (site.dim_in, site.dim_out))
        found = [part(x, y, ctx), *([part.before(x, ctx)] if part.changes_input else [])]
        found += (part.added(x, ctx) or ()) if part.changes_attention else ()
        for handle in handles:
            handle.remove()
        return torch.stack([one.sum() for one in found]).sum()


def _summed(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """By matrix, over batches and processes."""
    found = [torch.stack(column).sum(0) for column in zip(*rows, strict=True)]
    if dist.is_available() and dist.is_initialized():
        for one in found:
            dist.all_reduce(one)
    return found
