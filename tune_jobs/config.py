"""What the user asked: `SweepConfig`, frozen, from defaults, a preset, TOML and flags.

Little is imported here, so every other part may import it. Fields marked
`flag=True` are the options that stay stable; the rest is set in the TOML file.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from tune_jobs.errors import UserError, unknown_name
from tune_jobs.recipe import Recipe, recipe_of
from tune_jobs.space import axes_of
from tune_jobs.uris import check_tracking_uri, shown

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
STRUCTURED = "structured"  # one model of all batch sizes, TPE beside it
PBT = "pbt"  # population based training: its best member's schedule
SCHEDULES = ("grow", "seesaw", "late-switch", "follow", PBT)  # run beside the batch size to use
MODELLED = (STRUCTURED, "theory", *SCHEDULES)  # by one model of all batch sizes
SEARCHES = (*MODELLED, "tpe", "random", "grid", "rules", "evolution")
WITH_SPACE = ("tpe", "random")  # ways that search more than the rate
NEEDS = {"evolution": ("cmaes", "optuna")}  # packages that are not installed by themselves
# lr(B) = lr(reference) x (B / reference)^p, by name
SCALING_RULES = {"linear": 1.0, "square root": 0.5, "none": 0.0}
SCHEDULERS = ("asha", "none", "hyperband", "median")
BY_TARGET = ("time", "examples", "energy", "cost")  # goals that a run to the target is judged by
PAIRED = ("time", "examples", "accuracy", "memory")  # that may be the second of a pair
GOALS = ("time", "examples", "energy", "cost", "accuracy", "memory")
MICRO_BATCHES = ("auto", "whole")
LARGEST_BATCH = 2**31 - 1
# Beyond these a sweep would only fail later, or never end. A seed has room for those counted from
# it: numpy's older generator, which TPE uses, takes 32 bits.
RANGES: dict[str, tuple[float, float]] = {
    "base_learning_rate": (1e-12, 1e4),
    "budget_examples": (-math.inf, 10**12),
    "learning_rate_span": (-math.inf, 10**6),
    "max_trials_per_gpu": (-math.inf, 1_000),
    "price_per_device_hour": (-math.inf, 10**9),
    "profile_seconds": (-math.inf, 10**6),
    "reduction_factor": (-math.inf, 1_000),
    "seed": (0, 2**31 - 1),
    "seeds": (-math.inf, 10_000),
    "split_seed": (0, 2**31 - 1),
    "trainings_to_come": (-math.inf, 10**12),
    "trials": (-math.inf, 100_000),
    "validation_examples": (-math.inf, 10**9),
}
LEAST_MEMORY_MIB = 64  # no process with torch holds less
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
LIMITS_OF_A_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def option(default: Any, group: str, help: str, *, flag: bool = False) -> Any:
    """A field of the configuration with its help text, group and whether it is a flag."""
    return field(default=default, metadata={"group": group, "help": help, "flag": flag})


@dataclass(frozen=True)
class SweepConfig:
    """A sweep, resolved. Construct with `resolve`, which validates."""

    name: str = option("sweep", "Sweep", "name of the sweep and of its folder", flag=True)
    preset: str = option("quick", "Sweep", "quick (minutes on 2 cores) or full", flag=True)
    goal: str = option("time", "Sweep", "what is to be best: " + ", ".join(GOALS), flag=True)

    second_goal: str | None = option(
        None, "Sweep", "of a pair, for --search evolution: --goal time,memory"
    )

    workload: str | None = option(
        None,
        "What to train",
        "your own model, data and loss: FILE.py:function or package.module:function",
        flag=True,
    )
    train: str | None = option(
        None,
        "What to train",
        "a training loop of your own, of any framework: FILE.py:function",
        flag=True,
    )
    lightning: str | None = option(
        None,
        "What to train",
        "a function that gives a LightningModule and a DataModule: FILE.py:function",
        flag=True,
    )
    model: str = option(
        "simple_cnn",
        "What to train",
        "built-in name, torchvision:NAME, timm:NAME or package.module:function",
        flag=True,
    )
    data: str = option(
        "mnist",
        "What to train",
        "name of a data source, or folder:PATH, parquet:PATH, hf:PATH",
        flag=True,
    )
    data_dir: str = option(".data", "What to train", "folder that keeps data sets", flag=True)
    optimizer: str = option(
        "adam",
        "What to train",
        ", ".join(OPTIMIZERS) + ", or several with commas, each with rates of its own",
        flag=True,
    )
    validation_examples: int = option(2000, "What to train", "carved from the training split")
    split_seed: int = option(0, "What to train", "seed of the validation split")
    workload_arguments: dict[str, Any] = field(
        default_factory=dict,
        metadata={"group": "What to train", "help": "of the workload's function", "flag": False},
    )
    recipe: dict[str, Any] = field(
        default_factory=dict,
        metadata={"group": "What to train", "help": "of all runs; see README", "flag": False},
    )
    space: dict[str, Any] = field(
        default_factory=dict,
        metadata={"group": "Search", "help": "searched beside the rate; see README", "flag": False},
    )
    data_arguments: dict[str, Any] = field(
        default_factory=dict,
        metadata={"group": "What to train", "help": "of data by its place", "flag": False},
    )
    metric: str = option("accuracy", "What to train", "the workload's own; not to be chosen")
    mode: str = option("max", "What to train", "max or min, the metric's own; not to be chosen")
    unit: str = option("", "What to train", "the metric's own; not to be chosen")

    batch_sizes: tuple[int, ...] = option(
        (16, 32, 64, 128, 256, 512), "Search", "comma-separated", flag=True
    )
    extends: bool = option(
        True,
        "Search",
        "batch sizes are added beyond a leader at the edge; not where some are given",
    )
    search: str = option(STRUCTURED, "Search", ", ".join(SEARCHES), flag=True)
    scheduler: str = option(
        "asha",
        "Search",
        "what stops search trials, among those of their batch size: " + ", ".join(SCHEDULERS),
        flag=True,
    )
    trials: int = option(18, "Search", "search trials over all batch sizes", flag=True)
    population: int | None = option(
        None, "Search", "members of --search pbt, of the trials; default half of them, 8 at most"
    )
    target: float = option(
        0.93, "Search", "validation metric to reach; default by workload", flag=True
    )
    budget_examples: int = option(
        9_216, "Search", "examples that a trial may see at the most", flag=True
    )
    lengthens: bool = option(
        True,
        "Search",
        "the budget is doubled where no trial reaches the target; not where it is given",
    )
    seeds: int = option(
        13,
        "Search",
        "seeds of a batch size's runs at the most; they go where they decide",
        flag=True,
    )
    minutes: float | None = option(
        None, "Search", "of wall time, after which no further run is begun", flag=True
    )
    seed: int = option(0, "Search", "seed of the search and of its trials")
    base_learning_rate: float | None = option(
        None, "Search", "centre of the range at batch 256; default by optimizer"
    )
    base_learning_rates: tuple[float, ...] = option(
        (), "Search", "for --search grid: the rates at batch 256, each at every batch size"
    )
    scaling_rules: tuple[str, ...] = option(
        tuple(SCALING_RULES), "Search", "for --search rules: " + ", ".join(SCALING_RULES)
    )
    learning_rate_span: float = option(10.0, "Search", "range is centre/span .. centre*span")
    reduction_factor: int = option(3, "Search", "ASHA keeps 1 in this many at a rung")
    first_rung_fraction: float = option(1 / 3, "Search", "first rung, as a part of the budget")

    micro_batch: str = option(
        "auto", "Measure", "examples per pass: auto, whole, or a number", flag=True
    )
    memory_limit_mib: float | None = option(
        None, "Measure", "memory that a trial may use; default the device's own", flag=True
    )
    memory_margin: float = option(0.1, "Measure", "part of the memory kept free of any plan")
    profile_seconds: float = option(
        90.0, "Measure", "cap on profiling a device, and on timing further what may win"
    )
    noise_scale: bool = option(True, "Measure", "measure the gradient noise scale along a run")

    confidence: float = option(0.95, "Verdict", "of every interval and comparison")
    tolerance: float = option(0.05, "Verdict", "batch sizes this close to the best count as equal")
    price_per_device_hour: float | None = option(
        None, "Verdict", "for --goal cost, in any currency", flag=True
    )
    trainings_to_come: int = option(
        100,
        "Verdict",
        "how many trainings the answer is for: what more knowledge is worth",
        flag=True,
    )

    cpus_per_trial: str = option(
        "auto",
        "Resources",
        "CPUs of a trial, or auto: by measured throughput",
        flag=True,
    )
    gpus_per_trial: str = option(
        "auto", "Resources", "GPUs, a fraction, or auto: by measured memory", flag=True
    )
    max_trials_per_gpu: int = option(4, "Resources", "neighbours on one GPU at the most, for auto")
    accelerator: str | None = option(
        None, "Resources", "use devices of this type alone, as Ray names it", flag=True
    )

    custom_resources: str = option(
        "", "Resources", 'what a trial asks of nodes besides, such as "local_ssd=1,rack7=0.001"'
    )

    runs_dir: str = option("runs", "Output", "folder that keeps sweeps", flag=True)
    tracking_uri: str | None = option(None, "Output", "MLflow server or store", flag=True)
    tracking_required: bool = option(False, "Output", "refuse to start without tracking", flag=True)
    experiment: str = option("batch-size", "Output", "MLflow experiment")

    @property
    def workload_name(self) -> str:
        """What is trained, in words."""
        return self.model if self.workload or self.own_loop else f"{self.model} on {self.data}"

    @property
    def own_loop(self) -> str | None:
        """The name of the user's own training loop, plain or Lightning's."""
        return self.train or self.lightning

    @property
    def structured(self) -> bool:
        """Whether the fixed batch sizes are searched by the model of them all."""
        return self.search in MODELLED

    @property
    def members(self) -> int:
        """How many of the trials are members of a population."""
        if self.search != PBT:
            return 0
        return min(8, self.trials // 2) if self.population is None else self.population

    @property
    def training(self) -> Recipe:
        """The recipe of all runs."""
        return recipe_of(self.recipe)

    @property
    def compared_by(self) -> str:
        """The goal that races and searches compare by: the metric at the end, where a run means
        something only there."""
        return "accuracy" if self.training.ends_with_the_budget else self.goal


PRESETS: dict[str, dict[str, Any]] = {"quick": {}, "full": {"trials": 60, "seeds": 13}}
# What suits a data source: (target, budget in examples, validation examples), by preset.
OF_DATA: dict[tuple[str, str], tuple[float, int, int]] = {
    ("mnist", "quick"): (0.93, 9_216, 2000),
    ("mnist", "full"): (0.985, 299_520, 5000),
    ("fashion_mnist", "quick"): (0.76, 9_216, 2000),
    ("fashion_mnist", "full"): (0.9, 299_520, 5000),
    ("digits", "quick"): (0.93, 9_216, 287),
    ("digits", "full"): (0.96, 46_080, 287),
}


# What --resume may give anew; of seeds only more.
MAY_CHANGE = frozenset(
    ("tracking_uri", "tracking_required", "runs_dir", "trainings_to_come", "minutes", "seeds")
)


def resolve(
    file: Path | None, flags: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> SweepConfig:
    """Defaults, then the preset, what is `known` of the workload, the TOML file, the flags: the
    later one wins."""
    given = settings_of(file, flags)
    preset = given.get("preset", "quick")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise unknown_name("preset", str(preset), PRESETS)
    suits = _suiting(str(given.get("data", SweepConfig.data)), preset)
    chosen = {**PRESETS[preset], **suits, **(known or {}), **given}
    chosen.setdefault("extends", "batch_sizes" not in chosen)
    own_loop = given.get("train") or given.get("lightning")  # which may go by its budget
    chosen.setdefault("lengthens", "budget_examples" not in given and not own_loop)
    if isinstance(chosen.get("goal"), str) and "," in chosen["goal"]:
        chosen["goal"], chosen["second_goal"] = chosen["goal"].split(",", 1)
    if "search" not in chosen and _ends_with_the_budget(chosen.get("recipe")):
        chosen["search"] = "tpe"
    config = replace(SweepConfig(), **chosen)
    validate(config)
    return config


def settings_of(file: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, and nothing else: the TOML file's settings, then the flags."""
    given = {**(read_toml(file) if file else {}), **flags}
    taken = replace(SweepConfig(), **given)
    _validate_types(taken)
    _validate_texts(taken)
    return given


def _ends_with_the_budget(recipe: Any) -> bool:
    return isinstance(recipe, dict) and recipe_of(recipe).ends_with_the_budget


def _suiting(data: str, preset: str) -> dict[str, Any]:
    found = OF_DATA.get((data, preset), OF_DATA["mnist", preset])
    return dict(zip(("target", "budget_examples", "validation_examples"), found, strict=True))


def resumed(before: SweepConfig, flags: Mapping[str, Any]) -> SweepConfig:
    """What the sweep was begun with; a flag that says otherwise is refused, but for tracking.

    `--seeds` may be more than before: just the runs of the further seeds are made.
    """
    free = MAY_CHANGE
    if flags.get("seeds", before.seeds) < before.seeds:
        free -= {"seeds"}
    for f in fields(SweepConfig):
        given = flags.get(f.name)
        if f.name not in free and given is not None and given != getattr(before, f.name):
            raise UserError(
                f"--resume with {f.name} {given!r}: the sweep was begun with "
                f"{getattr(before, f.name)!r}; leave it out, or begin a sweep with another --name"
            )
    changed = replace(before, **{name: flags[name] for name in free if name in flags})
    validate(changed)
    return changed


def may_wait(path: Path) -> bool:
    """Whether to read it could take for ever: it is a pipe or a device."""
    return path.exists() and not (path.is_file() or path.is_dir())


def read_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML file; an unknown key is refused with its name and line."""
    if may_wait(path):
        raise UserError(f"--config {path}: is a pipe or a device; give a readable TOML file")
    try:
        text = path.read_text(encoding="utf-8")
        settings = tomllib.loads(text)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}; give a readable TOML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--config {path}: not valid TOML: {error}; save it as UTF-8") from error
    except ValueError as error:  # also an integer of thousands of digits
        raise UserError(f"--config {path}: not valid TOML: {error}; correct it") from error
    except RecursionError as error:
        raise UserError(f"--config {path}: values are nested too deeply; correct it") from error
    known = {f.name for f in fields(SweepConfig)}
    for key in settings:
        if key not in known:
            lines = text.splitlines()
            line = next((n for n, at in enumerate(lines, 1) if _defines(at, key)), 1)
            raise unknown_name(f"{path}, line {line}: key", key, known)
    lists = {f.name for f in fields(SweepConfig) if str(f.type).startswith("tuple")}
    return {k: tuple(v) if k in lists and isinstance(v, list) else v for k, v in settings.items()}


def _defines(line: str, key: str) -> bool:
    return re.match(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[\].=]", line) is not None


def to_toml(config: SweepConfig) -> str:
    """The whole configuration as TOML, from which the sweep can be run again; no password in it."""
    return tomli_w.dumps({k: v for k, v in asdict(to_be_kept(config)).items() if v is not None})


def to_be_kept(config: SweepConfig) -> SweepConfig:
    """The configuration as it may be shown, stored and pickled: passwords are `***`."""
    uri = config.tracking_uri
    return config if uri is None else replace(config, tracking_uri=shown(uri))


def validate(config: SweepConfig) -> None:
    """Refuse what can be seen to be wrong without data, model or cluster. Raises UserError."""
    _validate_types(config)
    _validate_texts(config)
    _validate_ranges(config)
    _validate_recipe(config)
    _known("search", config.search, SEARCHES)
    _known("scheduler", config.scheduler, SCHEDULERS)
    _known("goal", config.goal, GOALS)
    _validate_way(config)
    _validate_schedule(config)
    if not LIMITS_OF_A_NAME.fullmatch(config.name):
        raise UserError(
            f"--name {config.name!r}: a sweep's name is 1 to 80 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit; choose another"
        )
    _validate_batch_sizes(config)
    if config.metric == "accuracy" and not 0 < config.target <= 1:
        raise UserError(
            f"--target {config.target}: the target is a validation accuracy in (0, 1]; "
            "give a fraction such as 0.97"
        )
    _known("mode", config.mode, ("max", "min"))
    if config.data_arguments and config.workload:
        raise UserError("[data_arguments] are of --data; --workload brings its own data")
    if config.workload_arguments and not config.workload:
        raise UserError("[workload_arguments] are of --workload's function; name it as well")
    if config.trials - config.members < len(config.batch_sizes) <= config.trials:
        raise UserError(
            f"--trials {config.trials} with a population of {config.members} leaves "
            f"{config.trials - config.members} for {len(config.batch_sizes)} batch sizes: each "
            "needs at least one; raise --trials, or set a smaller population in the TOML"
        )
    if config.trials < len(config.batch_sizes):
        raise UserError(
            f"--trials {config.trials} is fewer than the {len(config.batch_sizes)} batch sizes: "
            f"each needs at least one; give --trials {3 * len(config.batch_sizes)} or fewer sizes"
        )
    if config.budget_examples < max(config.batch_sizes):
        raise UserError(
            f"--budget-examples {config.budget_examples} is smaller than the largest batch "
            f"({max(config.batch_sizes)}): not one update could be made; raise it"
        )
    _positive("seeds", config.seeds)
    if config.minutes is not None:
        _positive("--minutes", config.minutes)
    if config.validation_examples < 0 or not (
        config.validation_examples or config.workload or config.own_loop
    ):
        raise UserError(
            f"validation_examples {config.validation_examples}: must be greater than 0; raise it"
        )
    if not config.learning_rate_span > 1:
        raise UserError(f"learning_rate_span {config.learning_rate_span}: must be over 1")
    if config.reduction_factor < 2:
        raise UserError(f"reduction_factor {config.reduction_factor}: must be 2 or more")
    if not 0 < config.first_rung_fraction <= 1:
        raise UserError(f"first_rung_fraction {config.first_rung_fraction}: must be in (0, 1]")
    _validate_measure_and_verdict(config)
    requested_cpus(config)
    requested_gpus(config, available=0)
    custom_resources(config)


def _validate_way(config: SweepConfig) -> None:
    """What only some ways to search take."""
    axes_of(config.space, config.optimizer)
    if config.space and config.search not in WITH_SPACE:
        raise UserError(
            f"[space] with --search {config.search}: that is of learning rates alone; give "
            f"--search {' or '.join(WITH_SPACE)}"
        )
    if config.space and config.own_loop:
        raise UserError("[space]: what a loop of your own searches besides, it cannot be told")
    if config.second_goal is not None:
        _known("goal", config.second_goal, PAIRED)
        if config.second_goal == config.goal or config.search != "evolution":
            raise UserError(
                f"--goal {config.goal},{config.second_goal} with --search {config.search}: a pair "
                "of two goals is searched by evolution; give --search evolution, or one goal"
            )
    low, high = RANGES["base_learning_rate"]
    for base in config.base_learning_rates:
        number = isinstance(base, (int, float)) and not isinstance(base, bool)
        if not number or not low <= base <= high:
            raise UserError(f"base_learning_rates: {_shortened(base)} must be {low} to {high:g}")
    if config.base_learning_rates and config.search != "grid":
        raise UserError(
            f"base_learning_rates with --search {config.search}: they are of a grid; give --search "
            "grid, or leave them out"
        )
    points = len(config.base_learning_rates) * len(config.batch_sizes)
    if points > config.trials:
        raise UserError(
            f"--search grid: {len(config.base_learning_rates)} learning rates at "
            f"{len(config.batch_sizes)} batch sizes are {points} trials, more than --trials "
            f"{config.trials}; give --trials {points}, or fewer of either"
        )
    for rule in config.scaling_rules:
        if rule not in SCALING_RULES:
            raise unknown_name("scaling_rules:", str(rule), SCALING_RULES)
    if config.search == "rules" and not config.scaling_rules:
        raise UserError(f"scaling_rules: none is named; give some of {', '.join(SCALING_RULES)}")
    if config.search == "rules" and config.own_loop and config.base_learning_rate is None:
        raise UserError(
            "--search rules: a loop of your own has no range test to begin from; give "
            "base_learning_rate, a rate at batch 256"
        )
    if config.search == "theory" and (not config.noise_scale or config.own_loop):
        what = "a loop of your own has none" if config.own_loop else "noise_scale is off"
        raise UserError(
            f"--search theory needs the gradient noise scale, and {what}; give --search structured"
        )


def _validate_recipe(config: SweepConfig) -> None:
    recipe = config.training
    if ":" not in config.optimizer:
        _known("optimizer", config.optimizer, OPTIMIZERS)
    elif config.base_learning_rate is None:
        raise UserError(
            f"--optimizer {config.optimizer}: where its learning rates lie is not known here; give "
            "base_learning_rate, the centre of the range at batch 256"
        )
    if recipe.ends_with_the_budget and config.structured:
        raise UserError(
            f"search {config.search!r} with [recipe] schedule {recipe.schedule!r}: such runs mean "
            "something only at their end, of which that search knows nothing; give --search tpe"
        )


def _validate_schedule(config: SweepConfig) -> None:
    """A batch schedule is judged by what it takes to the target, in this project's own loop."""
    if config.search not in SCHEDULES:
        return
    if config.search == PBT and config.members < 2:
        raise UserError(
            f"population {config.members}: a population has 2 members at the least; raise it, or "
            "--trials"
        )
    if config.own_loop:
        raise UserError(
            f"--search {config.search}: a loop of your own is given one batch size for a whole "
            "run; take --search structured, or hand over a --workload"
        )
    if config.goal not in BY_TARGET:
        raise UserError(
            f"--search {config.search} with --goal {config.goal}: a schedule is judged by what it "
            f"takes to the target; give --goal {' or '.join(BY_TARGET)}"
        )


def _validate_measure_and_verdict(config: SweepConfig) -> None:
    requested_micro_batch(config)
    if config.memory_limit_mib is not None:
        _positive("--memory-limit-mib", config.memory_limit_mib)
        if config.memory_limit_mib < LEAST_MEMORY_MIB:
            raise UserError(
                f"--memory-limit-mib {config.memory_limit_mib:g}: torch alone holds more than "
                f"{LEAST_MEMORY_MIB}; raise it, or leave it out"
            )
    if not 0 <= config.memory_margin < 1:
        raise UserError(f"memory_margin {config.memory_margin}: must be in [0, 1), such as 0.1")
    _positive("profile_seconds", config.profile_seconds)
    _positive("max_trials_per_gpu", config.max_trials_per_gpu)
    if not 0.5 <= config.confidence < 1:
        raise UserError(f"confidence {config.confidence}: must be in [0.5, 1), such as 0.95")
    if not 0 <= config.tolerance < 1:
        raise UserError(f"tolerance {config.tolerance}: must be in [0, 1), such as 0.05")
    _positive("--trainings-to-come", config.trainings_to_come)
    if config.price_per_device_hour is not None:
        _positive("--price-per-device-hour", config.price_per_device_hour)
    elif config.goal == "cost":
        raise UserError("--goal cost needs a price: give --price-per-device-hour")


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str | None": (str, type(None)),
    "float | None": (float, int, type(None)),
    "int | None": (int, type(None)),
    "tuple[int, ...]": (tuple,),
    "tuple[float, ...]": (tuple,),
    "tuple[str, ...]": (tuple,),
    "dict[str, Any]": (dict,),
}


def _validate_types(config: SweepConfig) -> None:
    for f in fields(config):
        value = getattr(config, f.name)
        allowed = _TYPES[str(f.type)]
        mistaken_bool = isinstance(value, bool) and bool not in allowed
        infinite = isinstance(value, float) and not math.isfinite(value)
        if mistaken_bool or infinite or not isinstance(value, allowed):
            raise UserError(f"{f.name} = {_shortened(value)}: must be {f.type}; correct it")
        names = value if isinstance(value, tuple) and f.type == "tuple[str, ...]" else ()
        for part in names:
            if not isinstance(part, str):
                raise UserError(f"{f.name}: {_shortened(part)} is no text; give names in quotes")


def _validate_texts(config: SweepConfig) -> None:
    for f in fields(config):
        value = getattr(config, f.name)
        if isinstance(value, str) and CONTROL_CHARACTERS.search(value):
            raise UserError(f"{_label(f)} {_shortened(value)}: has control characters; correct it")
    if config.accelerator is not None and not config.accelerator.strip():
        raise UserError(f"--accelerator {config.accelerator!r}: names none; leave it out")
    if not config.experiment.strip():
        raise UserError(f"experiment {config.experiment!r}: names none; leave it out")
    if config.tracking_uri is not None:
        check_tracking_uri(config.tracking_uri, "--tracking-uri")


def _validate_ranges(config: SweepConfig) -> None:
    for f in fields(config):
        low, high = RANGES.get(f.name, (-math.inf, math.inf))
        value = getattr(config, f.name)
        if f.name in RANGES and value is not None and not low <= value <= high:
            rule = f"at most {high:,}" if low == -math.inf else f"{low:,} to {high:,}"
            raise UserError(f"{_label(f)} {_shortened(value)}: must be {rule}; correct it")


def _label(f: Field[Any]) -> str:
    return "--" + f.name.replace("_", "-") if f.metadata["flag"] else f.name


def _shortened(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:60]}... ({len(shown):,} characters)"


def _validate_batch_sizes(config: SweepConfig) -> None:
    sizes = config.batch_sizes
    if not sizes:
        raise UserError("--batch-sizes is empty: give at least one, such as 16,32,64")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_BATCH:
            raise UserError(
                f"--batch-sizes: {_shortened(size)} is not a positive integer up to "
                f"{LARGEST_BATCH:,}; correct it"
            )
    twice = sorted({s for s in sizes if sizes.count(s) > 1})
    if twice:
        raise UserError(f"--batch-sizes: {twice[0]} stands twice; name each batch size once")


def validate_against_data(config: SweepConfig, train_examples: int, *, carved: bool = True) -> None:
    """Refuse batch sizes that the training split cannot fill, once validation is `carved` off it
    where it has none of its own."""
    if carved and config.validation_examples >= train_examples:
        raise UserError(
            f"validation_examples {config.validation_examples}: {config.data} has only "
            f"{train_examples} training examples; lower it"
        )
    held_out = config.validation_examples if carved else 0
    left = train_examples - held_out
    for size in config.batch_sizes:
        if size > left:
            raise UserError(
                f"--batch-sizes: {size} exceeds the training split of {config.data} "
                f"({left} examples after {held_out} for validation); lower it"
            )


def requested_gpus(config: SweepConfig, available: float) -> float:
    """GPUs per trial: the number given, or for `auto` one GPU where there is one, else none."""
    if config.gpus_per_trial == "auto":
        return 1.0 if available >= 1 else 0.0
    gpus = _number(config.gpus_per_trial)
    if not (0 <= gpus <= 1 or (gpus > 1 and gpus == int(gpus))):
        raise UserError(
            f"--gpus-per-trial {config.gpus_per_trial}: must be auto, a share of one GPU in "
            "[0, 1], or a whole number of GPUs"
        )
    return gpus


def requested_cpus(config: SweepConfig) -> float | None:
    """CPUs per trial: the number given, or None for `auto`."""
    if config.cpus_per_trial == "auto":
        return None
    cpus = _number(config.cpus_per_trial)
    if not cpus > 0:
        raise UserError(
            f"--cpus-per-trial {config.cpus_per_trial}: must be auto or a number greater than 0"
        )
    return cpus


def custom_resources(config: SweepConfig) -> dict[str, float]:
    """Amounts of the cluster's own resources that every trial asks for, by name."""
    amounts = {}
    for pair in filter(None, config.custom_resources.split(",")):
        name, _, amount = (part.strip() for part in pair.partition("="))
        amounts[name] = _number(amount)
        if not name or name in ("CPU", "GPU", "memory") or not amounts[name] > 0:
            raise UserError(
                f"custom_resources {pair!r}: must be NAME=AMOUNT, the amount greater than 0; CPUs "
                "and GPUs have options of their own"
            )
    return amounts


def requested_micro_batch(config: SweepConfig) -> int | None:
    """Examples per pass when a number was given; None for `auto` and `whole`."""
    if config.micro_batch in MICRO_BATCHES:
        return None
    if not re.fullmatch("0*[1-9][0-9]{0,9}", config.micro_batch):
        raise UserError(
            f"--micro-batch {_shortened(config.micro_batch)}: must be auto, whole, or a positive "
            "integer"
        )
    return int(config.micro_batch)


def probe_seconds(profile_seconds: float) -> float:
    """How long one probe may take, and the first try of a training function of the user's own."""
    return max(60.0, 2 * profile_seconds)


def _number(text: str) -> float:
    """The finite number that `text` says, or NaN."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _known(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise unknown_name(f"--{kind}", name, known)


def _positive(name: str, value: float) -> None:
    if value <= 0:
        raise UserError(f"{name} {value}: must be greater than 0; raise it")
