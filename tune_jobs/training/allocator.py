"""glibc's allocator, kept from giving pages back that the next update asks for again.

As it comes, glibc returns large freed blocks to the kernel, and every update faults the pages of
its activations in anew. Worse for a measurement, it raises that threshold by itself once a larger
block was freed, so that an update costs less after an evaluation than before one. Here all blocks
come from the heap, and its pages stay. In the environment of any other program the same is

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864
"""

from __future__ import annotations

import ctypes
from typing import Any

# malloc.h: parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_MIB = 1024 * 1024
KEPT_BYTES = 1024 * _MIB  # free memory at the heap's top that is kept for the next update
STEP_BYTES = 64 * _MIB  # by how much the heap grows at a time


def keep_pages() -> bool:
    """Set this process's allocator so; False where it is not glibc's."""
    mallopt = _function("mallopt")
    if mallopt is None:
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: KEPT_BYTES, _TOP_PAD: STEP_BYTES}
    return all([bool(mallopt(parameter, value)) for parameter, value in settings.items()])


def give_pages_back() -> None:
    """Return what is free: a reused process would begin with its predecessor's pages."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
