"""Which errors say that memory does not suffice, so that a smaller batch may do."""

import torch


def lacks_memory(error: Exception) -> bool:
    """Whether a smaller batch may do. Torch has a class for it on the GPU, and only these words elsewhere."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
