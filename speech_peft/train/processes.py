"""Which of several processes of one run this is, as launchers tell it by the environment."""

import os

# torchrun and Lightning, then SLURM and MPI.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")


def is_first() -> bool:
    """Whether this is the first of them, on all nodes together: the one that clears, writes and speaks."""
    return all(os.environ.get(name, "0") in ("0", "") for name in RANKS)
