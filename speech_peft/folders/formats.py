"""The formats that a command is asked for."""

from collections.abc import Collection, Sequence

from ..errors import ConfigError, did_you_mean


def formats(names: Sequence[str], known: Collection[str], besides: Collection[str] = ()) -> tuple[str, ...]:
    """The formats asked for of those that are known, each once; "all" is all of them, and commas separate.

    Those `besides` are written where they are asked for by name.
    """
    asked = [name.strip().lower() for joined in names for name in joined.split(",") if name.strip()]
    for name in asked:
        if name not in (*known, *besides, "all"):
            raise ConfigError(
                f"format: {name!r} cannot be written. {did_you_mean(name, (*known, *besides, 'all'))}"
            )
    every = known if "all" in asked else ()
    return tuple(dict.fromkeys((*every, *(name for name in asked if name != "all"))))
