"""Text in a few parallel steps: masked-diffusion decoders, how they are sampled, chosen from and trained."""
