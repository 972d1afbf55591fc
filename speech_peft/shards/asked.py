"""How the work of a verb is divided, as its options say."""

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class Asked:
    """How the work is divided."""

    shards: int | None = None
    format: str = "tar"
    on: str = "here"
    workers: int = 2
    gpus_per_worker: float = 0.0
    address: str | None = None
    row_seconds: float = 900.0

    def __bool__(self) -> bool:
        """Whether shards are asked for. Raises ConfigError where what needs them is asked for without."""
        if self.shards is None and self.on == "ray":
            raise ConfigError("--on ray: actors work on shards; give --shards N, some ten for each actor")
        return self.shards is not None
