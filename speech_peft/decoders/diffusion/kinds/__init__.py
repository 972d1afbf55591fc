"""What is trained: a masked decoder made of Whisper's own, or one beside an encoder."""
