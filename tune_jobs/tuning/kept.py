"""Processes of trials, kept while the plan waits, and left to the trials that they start for.

Ray Tune keeps one process that nothing has been asked for, and ends the others: where a plan waits
for its last runs before it goes on, each slot but one would start anew, which takes seconds. And it
gives a trial whose process starts to the first idle one, and ends the one that starts: where runs
are shorter than a start, as many nodes never ran one as came late. On one machine the first
processes are those that Ray began ahead (`starting.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any

import ray
from ray.air.execution import FixedResourceManager
from ray.exceptions import GetTimeoutError, RayActorError
from ray.tune.execution.class_cache import _ActorClassCache
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

from tune_jobs.tuning.cluster import cluster_now, in_a_cluster
from tune_jobs.tuning.leaving import on_a_leaving_node

ANSWER_SECONDS = 10.0  # an idle process answers within milliseconds; one of a lost node never


class Kept(_ObjectCache):  # type: ignore[misc]
    """Ray's cache of idle processes, by what they asked for: up to `most`, of a Tune controller.

    They are kept as long as no trial waits for the room they take, and given to trials that have no
    process, not even one that starts. One that died, or whose node leaves, is given to none.
    """

    def __init__(self, controller: Any, most: int) -> None:
        super().__init__(may_keep_one=True)
        self.controller = controller
        self.most = most

    def has_cached_object(self, key: Hashable) -> bool:
        if not self._waiting()[key]:
            return False
        idle = self._cached_objects[key]
        while idle and not self._goes_on(idle[0]):
            self._num_cached_objects -= 1
            self._end(idle.pop(0))
        return bool(idle)

    def cache_object(self, key: Hashable, obj: Any) -> bool:
        waiting, idle = self._waiting(), self._cached_objects[key]
        if waiting[key] <= len(idle) and (
            self._lack_room(waiting) or self._num_cached_objects >= self.most
        ):
            return False
        idle.append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        waiting = self._waiting()
        if not (force_all or self._lack_room(waiting)):
            return
        for key, idle in self._cached_objects.items():
            while len(idle) > (0 if force_all else waiting[key]):
                self._num_cached_objects -= 1
                yield idle.pop(0)

    def _waiting(self) -> Counter[Hashable]:
        """How many trials without a process there are, by what they ask for."""
        return Counter(t.placement_group_factory for t in waiting_trials(self.controller))

    def _lack_room(self, waiting: Counter[Hashable]) -> bool:
        """Whether some of them are more than the idle processes they could take."""
        return any(n > len(self._cached_objects[key]) for key, n in waiting.items())

    def _goes_on(self, process: Any) -> bool:
        """Whether it answers, from a node that stays."""
        actor, _ = self.controller._actor_manager._live_actors_to_ray_actors_resources[process]
        try:
            return not ray.get(actor.__ray_call__.remote(_leaves), timeout=ANSWER_SECONDS)
        except (RayActorError, GetTimeoutError):
            return False

    def _end(self, process: Any) -> None:
        process.set_on_stop(None)
        process.set_on_error(None)
        self.controller._remove_actor(tracked_actor=process)


class OfTheDriver(_ActorClassCache):  # type: ignore[misc]
    """Ray's cache of what begins a trial's process, in the environment of all processes."""

    def get(self, trainable: type) -> Any:
        if trainable not in self._cache:
            self._cache[trainable] = ray.remote(trainable)
        return self._cache[trainable]


def _leaves(process: object) -> bool:
    """Asked in the process itself."""
    return on_a_leaving_node()


def waiting_trials(controller: Any) -> list[Trial]:
    """A Tune controller's trials without a process, not even one that starts, oldest first."""
    pending, of, started = (
        controller._pending_trials,
        controller._trial_to_actor,
        controller._actor_manager.is_actor_started,
    )
    if not pending:
        return []
    return [t for t in controller.get_trials() if t in pending and not started(of.get(t))]


def next_to_start(controller: Any) -> Trial | None:
    """The trial that is to have the next process, idle or new, of a controller as its scheduler
    sees it: one that an idle process suits, else the oldest."""
    inner = controller._tune_controller
    waiting = waiting_trials(inner)
    suited = (t for t in waiting if inner._actor_cache.has_cached_object(t.placement_group_factory))
    return next(suited, waiting[0] if waiting else None)


def keep_processes(controller: Any, most: int) -> None:
    """Have a Tune controller, as its scheduler sees it, keep so many idle processes."""
    inner = getattr(controller, "_tune_controller", None)
    if inner is not None and not isinstance(inner._actor_cache, Kept):
        inner._actor_cache = Kept(inner, most)
        if not in_a_cluster() and not cluster_now().spread_out:
            take_those_begun_ahead(inner)


def take_those_begun_ahead(controller: Any) -> None:
    """Have a Tune controller on one machine give its trials the processes that Ray began ahead.

    Ray gives them to actors that ask for no environment of their own, and ends those that have run
    a task, such as the one by which Tune waits for each placement group: no such is needed here.
    """
    controller._class_cache = OfTheDriver()
    controller._actor_manager._resource_manager = FixedResourceManager()
