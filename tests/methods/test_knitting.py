"""Knitting: two steps reach the whole map, and there has to be one."""

import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.errors import ConfigError, SpeechPeftError
from speech_peft.methods.knitting import Knitting, _Knitting

BANDS, COLUMNS, DIM = 3, 5, 12
SITE = Site("layers.0.block", "block", "b", "b", DIM, DIM, bands=BANDS)
MAP = Context(summary=(0, 2))
PLACE = 2 + 1 * COLUMNS + 3
"""Band 1, column 3, behind two frames that sum up the clip."""


def part(**settings) -> _Knitting:
    """An adapter that does something."""
    torch.manual_seed(0)
    made = Knitting(width=8, heads=2, **settings).build(SITE, torch.nn.Identity(), None)
    torch.nn.init.normal_(made.up.weight)
    assert isinstance(made, _Knitting)
    return made


def reached(**settings) -> set[tuple[int, int]]:
    """Bands and columns whose frames one frame of the map has a part in."""
    made, y = part(**settings), torch.randn(1, 2 + BANDS * COLUMNS, DIM)
    other = y.clone()
    other[:, PLACE] += torch.randn(DIM)
    moved = (made(y, other, MAP) - other - made(y, y, MAP) + y)[0, 2:].abs().sum(-1) > 1e-6
    return {divmod(i, COLUMNS) for i in moved.nonzero().flatten().tolist()}


def test_two_steps_reach_every_patch_and_one_its_line_alone():
    assert reached() == reached(order=("frequency", "time")) == set(map(divmod_of, range(BANDS * COLUMNS)))
    assert reached(order=("time",)) == {(1, t) for t in range(COLUMNS)}
    assert reached(order=("frequency",)) == {(f, 3) for f in range(BANDS)}


def divmod_of(place: int) -> tuple[int, int]:
    return divmod(place, COLUMNS)


def test_frames_that_sum_up_a_clip_pass_by():
    y = torch.randn(1, 2 + BANDS * COLUMNS, DIM)
    assert torch.equal(part()(y, y, MAP)[:, :2], y[:, :2])


def test_padding_is_not_listened_to_along_time():
    y = torch.randn(2, BANDS * COLUMNS, DIM)
    heard = (torch.arange(COLUMNS) < 3).repeat(2, BANDS)
    short = y.unflatten(1, (BANDS, -1))[:, :, :3].flatten(1, 2)
    made = part()
    together = made(y, y, Context(sound=heard)).unflatten(1, (BANDS, -1))[:, :, :3]
    torch.testing.assert_close(together.flatten(1, 2), made(short, short, Context()))


def test_a_clip_of_padding_alone_stays_a_number():
    y = torch.randn(1, BANDS * COLUMNS, DIM)
    assert part()(y, y, Context(sound=torch.zeros(1, BANDS * COLUMNS, dtype=torch.bool))).isfinite().all()


def test_what_is_no_whole_map_is_refused():
    y = torch.randn(1, 2 + BANDS * COLUMNS - 1, DIM)
    with pytest.raises(
        SpeechPeftError, match=r"layers\.0\.block: 14 frames pass, which are no map of 3 bands"
    ):
        part()(y, y, MAP)


def test_where_frequency_is_folded_into_channels_it_is_refused_with_the_reason():
    whisper = tiny("whisper")
    with pytest.raises(ConfigError, match=r"layers\.0\.block frequency is folded into the channels"):
        AdaptedModel(whisper.module, whisper.sites(), {"a": Knitting()})


def test_on_ast_it_goes_along_the_bands_of_the_spectrogram():
    ast = tiny("ast")
    model = AdaptedModel(ast.module, ast.sites(), {"a": Knitting(width=8, heads=2)})
    assert {model.at("a", site).bands for site in model.sites["a"]} == {ast.bands}
    with pytest.raises(ConfigError, match="heads: 8 channels are not 3 heads"):
        Knitting(width=8, heads=3)
    with pytest.raises(ConfigError, match="order: expected time, frequency or both, each once"):
        Knitting(order=("time", "time"))
