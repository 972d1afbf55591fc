"""The `speech-peft` command and the words that have no package of their own."""
