"""Sound from noise: the steps of a mel diffusion, guidance, and a waveform from a spectrogram."""
