"""Engines that speak: text to sound, one file each. All are reached through `base.open_voices`."""
