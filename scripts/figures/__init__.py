"""Parts of the figures of sweeps: axes, curves over what varies, points over what they cost."""
