"""Processes of trials, kept while the plan waits.

Ray Tune keeps one process that nothing has been asked for, and ends the others: where a plan waits
for its last runs before it goes on, each slot but one would start anew, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from ray.tune.utils.object_cache import _ObjectCache


class Kept(_ObjectCache):  # type: ignore[misc]
    """Ray's cache of idle processes, by what they asked for, which keeps up to `most` of them as
    long as no other ones are wanted."""

    def __init__(self, most: int) -> None:
        super().__init__(may_keep_one=True)
        self.most = most

    def cache_object(self, key: Hashable, obj: Any) -> bool:
        if super().cache_object(key, obj):
            return True
        if self._others_wanted() or self._num_cached_objects >= self.most:
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        if force_all or self._others_wanted():
            yield from super().flush_cached_objects(force_all)

    def _others_wanted(self) -> bool:
        """Whether a trial waits for a process that is not there."""
        return any(n > len(self._cached_objects[k]) for k, n in self._max_num_objects.items())


def keep_processes(controller: Any, most: int) -> None:
    """Have a Tune controller, as its scheduler sees it, keep so many idle processes."""
    inner = getattr(controller, "_tune_controller", None)
    if inner is not None and not isinstance(inner._actor_cache, Kept):
        inner._actor_cache = Kept(most)
