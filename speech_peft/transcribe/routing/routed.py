"""What a fusion chose in a recording: plain frozen data."""

from dataclasses import dataclass, field

from jaxtyping import Float
from numpy import ndarray

STEP_SECONDS = 0.5
"""How finely it is kept, and drawn."""


@dataclass(frozen=True)
class Routing:
    """The weights of a recording at each site of a mixer."""

    adapters: tuple[str, ...]
    """What is chosen among; "itself" is the frozen model alone."""
    sites: tuple[str, ...]
    starts: tuple[float, ...]
    """Seconds where each step begins; they need not follow each other, as silence is not heard."""
    weights: Float[ndarray, "site step adapter"] = field(repr=False)

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """By site, of each adapter over the recording."""
        rows = self.weights.mean(1).tolist()
        return {
            site: dict(zip(self.adapters, row, strict=True))
            for site, row in zip(self.sites, rows, strict=True)
        }
