"""Where a workload comes from: a user's function, or the names of a model and a data set.

A `WorkloadSource` is small and travels to trials; each process opens it once.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tune_jobs.config import SweepConfig
from tune_jobs.errors import UserError
from tune_jobs.lightning_loop import check_installed, trained_by_lightning
from tune_jobs.own_loop import OwnLoop
from tune_jobs.workload import Workload

WRITE = "write it as FILE.py:function or package.module:function"
SIMPLE = (bool, int, float, str)


@dataclass(frozen=True)
class WorkloadSource:
    """Attributes:
    model, data: names; of a user's workload its own name, and the function's.
    data_path: the data set's Arrow file; None for a user's workload.
    function: `FILE.py:function` or `package.module:function`; None for a named model and data.
    arguments: keyword arguments of the function.
    folder: where the sweep was begun, from which the file's path leads.
    train: a training function of the user's own, in place of a workload; `lightning`: it gives
        what Lightning trains.
    """

    model: str
    data: str
    data_path: str | None
    function: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    train: str | None = None
    lightning: bool = False

    def open(self) -> Workload:
        """The workload, made anew.

        Errors:
            UserError: the function cannot be had, raises, or gives something else.
        """
        if self.function is not None:
            return users_workload(self.function, self.arguments, self.folder)
        from tune_jobs.data.dataset import open_dataset

        assert self.data_path is not None
        return self.of_dataset(open_dataset(Path(self.data_path)))

    def of_dataset(self, dataset: Any) -> Workload:
        """The named model on a data set that is open already: of images, or a table."""
        from models.registry import build
        from tune_jobs.data.image_workload import image_workload
        from tune_jobs.data.table_workload import table_workload
        from tune_jobs.data.tables import Table

        shape, classes = tuple(dataset.train.inputs.shape[1:]), dataset.classes
        made = lambda: build(self.model, shape, classes)  # noqa: E731
        of_kind = table_workload if isinstance(dataset, Table) else image_workload
        return of_kind(f"{self.model} on {self.data}", dataset, made)


def source_of(config: SweepConfig, data_path: Path | str | None) -> WorkloadSource:
    """Where the workload of a sweep comes from, on a host that has its data file there."""
    return WorkloadSource(
        model=config.model,
        data=config.data,
        data_path=None if data_path is None else str(data_path),
        function=config.workload,
        arguments=config.workload_arguments,
        folder=os.getcwd(),
        train=config.own_loop,
        lightning=config.lightning is not None,
    )


def users_workload(name: str, arguments: Mapping[str, Any], folder: str = "") -> Workload:
    """What the user's function of this name gives for these arguments.

    Errors:
        UserError: there is no such function, it does not take the arguments, it raises, or what it
            gives is no Workload.
    """
    function = users_function(name, "workload", folder)
    _check_arguments(name, function, arguments)
    try:
        made = function(**arguments)
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise raised(f"workload {name!r}", error) from error
    if not isinstance(made, Workload):
        raise UserError(
            f"workload {name!r} gave {type(made).__name__}, not a Workload; let the function "
            "return tune_jobs.workload.Workload(...)"
        )
    return made


def users_loop(name: str, folder: str = "", lightning: bool = False) -> OwnLoop:
    """The user's own training function of this name.

    Errors:
        UserError: there is none, or nothing says what its metric and budget are.
    """
    if lightning:
        check_installed()
    flag = "lightning" if lightning else "train"
    found = users_function(name, flag, folder)
    if not isinstance(found, OwnLoop):
        raise UserError(
            f"--{flag} {name!r}: nothing says what it reports; put "
            '@own_loop(metric="accuracy", target=0.9, budget_examples=20_000) of '
            "tune_jobs.own_loop before it"
        )
    return trained_by_lightning(found) if lightning else found


def users_function(name: str, what: str, folder: str = "") -> Callable[..., Any]:
    """The function of `FILE.py:function` or `package.module:function`.

    A file's path leads from here, from `folder`, or from wherever modules are: a trial works in a
    folder of its own, on another host perhaps.

    Errors:
        UserError: file, module or function do not exist, or importing raises.
    """
    place, _, function_name = name.rpartition(":")
    if not place or not function_name.isidentifier():
        raise UserError(f"--{what} {name!r} names no function; {WRITE}")
    try:
        if place.endswith(".py"):
            module = _from_file(Path(place), folder)
        else:
            module = importlib.import_module(place)
    except FileNotFoundError as error:
        raise UserError(
            f"--{what} {name!r}: there is no file {place}; {WRITE}, the file's path from here"
        ) from error
    except (Exception, SystemExit) as error:
        raise raised(f"--{what} {name!r}: importing {place}", error) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        own = (f for f in vars(module).values() if inspect.isfunction(f))
        there = [f.__name__ for f in own if f.__module__ == module.__name__]
        raise UserError(
            f"--{what} {name!r}: {place} has no function {function_name!r}; it has: "
            f"{', '.join(there) or 'none'}"
        )
    return function  # type: ignore[no-any-return]


def _from_file(path: Path, folder: str) -> ModuleType:
    """The module in a file, its neighbours importable; the same one when asked again."""
    places = (path, *(Path(at) / path for at in (folder, *sys.path)))
    path = next((place for place in places if place.is_file()), path).resolve()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if not path.is_file():
        raise FileNotFoundError(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    name = path.stem if path.stem not in sys.modules else f"_workload_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_arguments(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    where = f"workload_arguments of {name!r}"
    signature = inspect.signature(function)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise UserError(f"{where}: {error}; its signature is {signature}") from error
    hints = _hints(function)
    for key, value in arguments.items():
        wanted = hints.get(key)
        fits = isinstance(value, (int, float) if wanted is float else wanted or object)
        if wanted in SIMPLE and (not fits or (isinstance(value, bool) and wanted is not bool)):
            raise UserError(
                f"{where}: {key} = {value!r} is {type(value).__name__}, the function takes "
                f"{wanted.__name__}; correct it"
            )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        found = typing.get_type_hints(function)
    except Exception:  # a hint that names what is not there is nothing to check by
        return {}
    return {name: hint for name, hint in found.items() if isinstance(hint, type)}


def raised(where: str, error: BaseException) -> UserError:
    """The error and where it was raised: the last line that is not of an installed package."""
    at = place_in(traceback.extract_tb(error.__traceback__))
    said = str(error).strip().splitlines()
    told = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    return UserError(f"{where} raised {told}{at}; correct it")


def place_in(frames: traceback.StackSummary) -> str:
    """The last line that is not of Python or an installed package, in parentheses."""
    theirs = ("site-packages", "<", os.path.dirname(os.__file__))
    own = [f for f in frames if not any(part in f.filename for part in theirs)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
