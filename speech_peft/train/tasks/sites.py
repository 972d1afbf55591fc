"""Which sites a task may put adapters at: those that its frames pass through."""

from __future__ import annotations

from ...backbones.base import Backbone
from ...core.site import Site


def encoder_sites(backbone: Backbone, top: int | None = None) -> list[Site]:
    """The sites that the encoder passes through on its way to its states, or to the output of block `top`."""
    found = []
    for site in backbone.sites():
        block = backbone.block_of(site)
        if block is None or (top is not None and block >= top):
            continue
        if site.kind == "stack" and top not in (None, backbone.depth):
            continue  # its exit is the last block, which never runs
        found.append(site)
    return found
