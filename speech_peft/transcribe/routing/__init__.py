"""Which adapters a fusion listens to in a recording, and when: collected, and drawn."""
