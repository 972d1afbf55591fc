"""Pretrained speech encoders: what each family calls its parts, and how it wants its sound prepared."""
