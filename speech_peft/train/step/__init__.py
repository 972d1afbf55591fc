"""What happens in a training step around any task's loss: procedures, gradients, the rate, the clock."""
