"""Pretrained speech encoders: what each family calls its parts, and how it wants its sound prepared."""

from ..compat import guard_torchaudio

guard_torchaudio()  # before any module here imports transformers, which would trip over a broken torchaudio
