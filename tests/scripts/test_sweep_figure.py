"""Figures of sweeps: what is named, what is grey, and that those in the docs are what the script draws."""

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from speech_peft.errors import ConfigError

ROOT = Path(__file__).parents[2]
LABEL = "bytes of the adapter's folder"
FIGURES = {"esc10": ("ESC-10", "accuracy"), "fsdd": ("FSDD", "accuracy"), "telephone": ("telephone", "wer")}


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """The SVG that the script makes of `sweep`, a file or what a summary says of methods."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import sweep_figure  # type: ignore[import-not-found]

    def drawn(sweep, *options: str, title: str = "a") -> str:
        if isinstance(sweep, list):
            (tmp_path / "summary.json").write_text(json.dumps({"methods": sweep}))
            sweep = tmp_path
        out = tmp_path / "out.svg"
        monkeypatch.setattr(sys, "argv", ["sweep_figure.py", f"{title}={sweep}", *options, "-o", str(out)])
        sweep_figure.main()
        return out.read_text(encoding="utf-8")

    yield drawn
    for name in [name for name in sys.modules if name.split(".")[0] in ("figures", "sweep_figure")]:
        del sys.modules[name]


def entry(name: str, size: float, mean: float | None, adapter: int = 10, **vary: float) -> dict[str, object]:
    figure = {"mean": mean, "deviation": 0.01}
    return {
        "method": name,
        "vary": {f"data.{key}": value for key, value in vary.items()},
        "adapter_bytes": size,
        "adapter_parameters": adapter,
        "accuracy": figure,
        "wer": figure,
    }


METHODS = [
    entry("probe", 1_000, 0.5, adapter=0),
    entry("small", 2_000, 0.7),
    entry("equal_but_larger", 3_000, 0.7 + 1e-16),
    entry("worse", 4_000, 0.6),
    entry("best", 50_000, 0.8),
    entry("full", 9_000_000, 0.75, adapter=0),
    entry("unfinished", 1, None),
]


def texts(svg: str) -> set[str]:
    """Words on the picture, without those of axes and legend."""
    found = {one.text for one in ElementTree.fromstring(svg).iterfind(".//{*}text")}
    return {text for text in found if text and not re.match(r"[\d.]+[kM]?$", text)} - {
        *("a", "accuracy", "wer", "bytes", "Pareto front", "baselines", "others")
    }


def hovered(svg: str) -> set[str]:
    """The names in titles of points."""
    return {
        str(one.text).partition(":")[0] for one in ElementTree.fromstring(svg).iterfind(".//{*}g/{*}title")
    }


def test_the_front_and_the_baselines_are_named_and_all_say_their_names_when_pointed_at(draw):
    svg = draw(METHODS, "--x", "adapter_bytes", "--x-label", "bytes")
    assert texts(svg) == {"probe", "small", "best", "full"}
    assert hovered(svg) == {"probe", "small", "equal but larger", "worse", "best", "full"}
    assert "<title>worse: accuracy 0.600 ± 0.010, 4,000 bytes</title>" in svg


def test_of_error_rates_the_lower_is_on_the_front(draw):
    svg = draw(METHODS[:-2], "--x", "adapter_bytes", "--x-label", "bytes", "--metric", "wer")
    assert texts(svg) == {"probe"}  # the smallest and the best


def test_labels_lie_inside_the_picture_and_apart_from_each_other(draw):
    crowd = [entry(f"a_rather_long_name_{at}", 1_000 + at, 0.9 + at / 1_000) for at in range(8)]
    svg = draw([*crowd, entry("far", 1e6, 0.1)], "--x", "adapter_bytes", "--x-label", "bytes")
    labels = [one for one in ElementTree.fromstring(svg).iterfind(".//{*}text") if one.get("paint-order")]
    places = [(float(one.get("x", 0)), float(one.get("y", 0)), 5.9 * len(one.text or "")) for one in labels]
    assert len(places) == 8
    for at, (x, y, wide) in enumerate(places):
        assert x - wide / 2 >= 52
        assert x + wide / 2 <= 520
        for other_x, other_y, other_wide in places[:at]:
            assert abs(x - other_x) >= (wide + other_wide) / 2 - 1 or abs(y - other_y) >= 11


def test_what_varies_is_a_curve_for_each_method_with_its_name(draw):
    svg = draw(
        [entry(name, 1, at / 10, clips=at) for name in ("lora", "probe") for at in (1, 2, 4)],
        "--key",
        "data.clips",
    )
    assert texts(svg) >= {"lora", "probe"}
    assert svg.count("<polyline") == 2
    with pytest.raises(ConfigError, match="clips does not vary"):
        draw(METHODS, "--key", "data.clips")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_the_docs_are_what_the_script_draws_of_their_numbers(draw, name):
    title, metric = FIGURES[name]
    folder = ROOT / "docs" / "measured"
    options = ("--x", "adapter_bytes", "--x-label", LABEL, "--metric", metric)
    kept = (folder / f"{name}_bytes.svg").read_text(encoding="utf-8")
    assert draw(folder / f"{name}.json", *options, title=title) == kept
