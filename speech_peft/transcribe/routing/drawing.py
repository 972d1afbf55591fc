"""Routing as a page: who has how much of the weight, second by second."""

from dataclasses import dataclass
from importlib.resources import files

from ..result import Result
from .routed import STEP_SECONDS, Routing

WIDTH, HEIGHT = 960, 120
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Paul Tol's bright scheme, told apart by most eyes."""


@dataclass(frozen=True)
class Bar:
    """A piece of a stacked column."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    told: str
    """What a pointer over it is told."""


@dataclass(frozen=True)
class Drawing:
    """One site, or the mean of all."""

    name: str
    bars: tuple[Bar, ...]


def page(result: Result) -> str:
    """The page of one recording; raises ValueError where nothing was routed."""
    from jinja2 import Environment, StrictUndefined

    if result.routing is None:
        raise ValueError("html draws whom a fusion listens to, and none is at work here")
    template = files("speech_peft.transcribe.routing").joinpath("page.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    routing = result.routing
    return environment.from_string(template).render(
        name=result.path or "recording",
        text=result.text,
        seconds=result.duration,
        width=WIDTH,
        height=HEIGHT,
        drawings=drawings(routing, result.duration),
        colours=dict(zip(routing.adapters, _colours(len(routing.adapters)), strict=True)),
        means=routing.means,
    )


def drawings(routing: Routing, seconds: float) -> list[Drawing]:
    """The mean of all sites first, then each by itself."""
    sites = [routing.weights.mean(0), *routing.weights]
    return [
        Drawing(name, _bars(routing, weights.tolist(), seconds))
        for name, weights in zip(("all sites", *routing.sites), sites, strict=True)
    ]


def _bars(routing: Routing, weights: list[list[float]], seconds: float) -> tuple[Bar, ...]:
    across = WIDTH / max(seconds, STEP_SECONDS)
    bars = []
    for start, shares in zip(routing.starts, weights, strict=True):
        y, whole = 0.0, sum(shares)
        wide = across * max(0.0, min(STEP_SECONDS, seconds - start))
        for name, share, colour in zip(routing.adapters, shares, _colours(len(shares)), strict=True):
            high = HEIGHT * share / whole
            told = f"{start:.1f} s: {name} {share:.2f}"
            bars.append(
                Bar(round(across * start, 1), round(y, 1), round(wide, 1), round(high, 1), colour, told)
            )
            y += high
    return tuple(bars)


def _colours(many: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(many)]
