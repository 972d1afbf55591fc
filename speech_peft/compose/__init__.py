"""Operations on saved adapters: merged into weights, exchanged with PEFT."""
