"""How many steps of an iteration are taken, and by whom: nothing of models."""
