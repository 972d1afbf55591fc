"""What happens in one forward of a model with adapters: hooks, ports, mixers."""
