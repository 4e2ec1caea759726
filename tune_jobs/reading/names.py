"""What a column's name means: one table of synonyms and patterns, units from the name's end.

A name is taken apart to words in lower case (`Batch Size`, `batchSize`, `config/batch_size` are one)
and looked up in MEANINGS; the first that fits counts, and of two columns that mean the same the one
that fits the earlier pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tune_jobs.reading.cells import JOULES, MIB, SECONDS

TO_TARGET = ("time_to_target_seconds", "examples_to_target", "updates_to_target")
SPENT = ("train_seconds", "examples_seen", "updates")
COSTS = ("examples_per_second", "peak_memory_mib", "energy_joules", "learning_rate")
ACCURACIES = ("val_accuracy", "train_accuracy", "test_accuracy")
# What a row of runs that can be judged may hold: our own names, in a table as in MLflow.
COLUMNS = ("workload", "batch_size", "seed", "target", *TO_TARGET, *SPENT, *COSTS, *ACCURACIES,
           "device")  # fmt: skip
# What a table may hold besides, from which those are found.
FOUND_FROM = ("epochs_to_target", "epochs", "train_examples", "epoch_seconds", "update_seconds",
              "updates_per_second", "tokens_per_second", "per_device_batch_size", "devices",
              "accumulation", "wall_time", "reports", "metric", "run", "state", "fault")  # fmt: skip
MAPPABLE = (*COLUMNS, *FOUND_FROM)

PREFIX = re.compile(
    r"^(?:params?|metrics?|tags|config|hparams?|hyper_?parameters?|args|user_attrs|summary)[./_]+"
)
TIME = r"(?:wall_?(?:clock)?_?time|time|duration|runtime|run_time|elapsed|clock)"
UNIT = "|".join(sorted({u for u in SECONDS if len(u) > 1} - {"us", "ns"}, key=len, reverse=True))
COUNT = r"(?:num|n|no|nr|number|count|total)(?:_of)?_"
TARGET = r"(?:to|till|until)_.*?"
DEVICE = r"(?:gpu|device|accelerator|tpu|npu|replica|cuda_device)s?"
RATE = r"_?(?:per|/)_?(?:s|sec|second)"
EXAMPLES = r"(?:example|sample|image|img|sequence|seq|item|record|instance)s?"
UPDATES = r"(?:update|step|iteration|iter|it)s?"
ACCURACY = r"(?:accuracy|acc|top_?1(?:_acc(?:uracy)?)?)"
VALIDATION = r"(?:val|valid|validation|eval|evaluation|dev)"
LAST = r"(?:(?:best|final|last|max|mean|avg)_)?"

# Ours, what unit the name may end in, pattern. A pattern for a time may name its unit `lead`.
MEANINGS: tuple[tuple[str, str, str], ...] = (
    ("batch_size", "", r"(?:global|effective|total|overall)_?(?:train(?:ing)?_)?(?:batch(?:_?size)?|bs)"),
    ("batch_size", "", r"batch_?size|bs|batch|bsz|batchsz|b_?size|(?:mini|minibatch)_?(?:batch)?(?:_?size)?|b"),
    ("batch_size", "", r"train(?:ing)?_(?:batch(?:_?size)?|bs)"),
    ("per_device_batch_size", "", rf"(?:train_)?(?:batch_?size|bs|batch)_?(?:per|/)_?{DEVICE}"
     rf"|per_?{DEVICE}_(?:train(?:ing)?_)?(?:batch_?size|batch|bs)|(?:local|micro)_?(?:batch_?size|batch|bs)"),
    ("accumulation", "", r"(?:grad(?:ient)?_)?accum(?:ulat(?:e|ion))?(?:_(?:steps|grad_batches|iters?))?"),
    ("seed", "", r"(?:random_|rng_|torch_|np_|global_|init_)?seed|random_state"),
    ("target", "", r"(?:target|goal|threshold)(?:_(?:value|metric|acc(?:uracy)?|loss|quality))?"),
    ("epochs_to_target", "", rf"{COUNT}epochs?_{TARGET}|epochs?_(?:{TARGET}|needed|required)|(?:target|converge[nd]\w*)_epochs?"),
    ("time_to_target_seconds", "time", rf"(?:train(?:ing)?_)?(?:{TIME}|(?P<lead>{UNIT}))_{TARGET}|ttt|tta|ttc|"
     rf"(?:target|convergence|solution)_{TIME}"),
    ("updates_to_target", "", rf"(?:{COUNT})?{UPDATES}_(?:{TARGET}|needed|required)|(?:target|convergence)_{UPDATES}"),
    ("examples_to_target", "", rf"(?:{COUNT})?{EXAMPLES}_(?:{TARGET}|needed|required)"),
    ("epoch_seconds", "time", rf"(?:{TIME}|(?P<lead>{UNIT}|s))_?(?:per|/)_?epoch|epoch_{TIME}"),
    ("update_seconds", "time", rf"(?:{TIME}|(?P<lead>{UNIT}|s))_?(?:per|/)_?{UPDATES}|{UPDATES}_{TIME}"),
    ("examples_per_second", "", rf"{EXAMPLES}{RATE}|(?:train_)?throughput(?:_{EXAMPLES}{RATE})?"),
    ("updates_per_second", "", rf"{UPDATES}{RATE}"),
    ("tokens_per_second", "", rf"(?:tokens?|tok){RATE}"),
    ("train_seconds", "time", rf"(?:total_|train(?:ing)?_|whole_|overall_)*{TIME}(?:_total)?"),
    ("train_seconds", "time", rf"(?:_?relative|process|fit|relative_wall)_{TIME}(?:_process)?|(?P<lead>{UNIT})"),
    ("wall_time", "", r"time_?stamp|datetime|date"),
    ("epochs", "", rf"epochs?|{COUNT}epochs?|epoch_(?:num|number|idx|index|no)|(?:train(?:ing)?|total|max)_epochs?"),
    ("reports", "", r"training_iteration|round|checkpoint|point"),
    ("updates", "", rf"(?:global_|train_)?{UPDATES}|(?:{COUNT}|train_|training_|max_){UPDATES}"),
    ("examples_seen", "", rf"{EXAMPLES}_(?:seen|processed)|(?:{COUNT})?{EXAMPLES}_trained"),
    ("train_examples", "", rf"(?:data_?set|train(?:ing)?|train_?set|data)_(?:size|{EXAMPLES})|n_train|{COUNT}train(?:ing)?(?:_{EXAMPLES})?"),
    ("peak_memory_mib", "memory", r"(?:peak_|max_|gpu_|cuda_|device_|total_)*(?:memory|mem|vram|rss)(?:_(?:usage|used|allocated|reserved|peak))*"),
    ("energy_joules", "energy", r"(?:total_|gpu_|train_)*energy(?:_(?:used|usage|consumed|consumption))?"),
    ("learning_rate", "", r"(?:init(?:ial)?_|base_|max_|peak_|start_)?(?:lr|learning_?rate|lrate)(?:_init)?"),
    ("devices", "", rf"(?:{COUNT})?{DEVICE}|{DEVICE}_count|world_size|{COUNT}nodes?|nodes"),
    ("state", "", r"(?:run_|trial_)?(?:state|status|outcome)|(?:did_)?converged?|success|succeeded|diverged|oom"
     r"|reached(?:_target)?|done|completed?|finished|failed|crashed|early_stopped"),
    ("run", "", r"(?:run_?|trial_?|exp(?:eriment)?_?)?name|run|trial|tag|repeat|rep|repetition|replicate|fold"),
    ("run", "", r"(?:run|trial|exp(?:eriment)?)_?(?:id|number|no|index)|exp(?:eriment)?|mlflow_run_?name|config(?:uration)?|setup|id|number"),
    ("val_accuracy", "part", rf"{LAST}{VALIDATION}_{LAST}{ACCURACY}"),
    ("test_accuracy", "part", rf"{LAST}test_{LAST}{ACCURACY}"),
    ("train_accuracy", "part", rf"{LAST}train(?:ing)?_{LAST}{ACCURACY}"),
)  # fmt: skip
UNITS = {
    "time": SECONDS,
    "memory": MIB,
    "energy": JOULES,
    "part": {"%": 0.01, "pct": 0.01, "percent": 0.01},
}
END = {
    kind: "|".join(re.escape(u) for u in sorted(of, key=len, reverse=True))
    for kind, of in UNITS.items()
}
PATTERNS = tuple(
    (ours, kind, re.compile(f"(?:{pattern})(?:_(?:in_)?(?P<unit>{END[kind]}))?" if kind else f"(?:{pattern})"))
    for ours, kind, pattern in MEANINGS
)  # fmt: skip
MACHINE = re.compile(
    r"(?:.*_)?(?:device(?:_(?:name|type))?|hardware|machine|system|platform|processor|cpu|instance(?:_type)?"
    r"|host(?:_?name)?|cluster|node(?:_name)?|gpu(?:_(?:name|type|model))?|accelerator(?:_(?:name|type|model))?)"
)  # fmt: skip

# Metrics: the direction follows the name.
SMALLER = re.compile(
    r"(?:.*_)?(?:loss|losses|errors?|err|mse|rmse|mae|mape|wer|cer|ter|perplexity|ppl|nll|bpb|bpc|bits?|fid|eer"
    r"|log_?loss|x?ent|cross_?entropy|entropy|kl|divergence|distance|regret|residual|bits_per_\w+|error_rate)(?:_.*)?"
)  # fmt: skip
LARGER = re.compile(
    r"(?:.*_)?(?:accuracy|acc|top_?[15]|f_?1|f_?score|auc|auroc|auprc|roc|ap|map|map_?\d+|m?iou|dice|bleu|rouge\w*|meteor"
    r"|r2|precision|recall|score|rewards?|returns?|psnr|ssim|em|exact_match|mrr|ndcg\w*|hits?|pass|win_?rate|elo|kappa"
    r"|mcc|specificity|sensitivity|likelihood|elbo|correct)(?:_.*)?"
)  # fmt: skip
OPEN = re.compile(r"values?|objective(?:_value)?|metric|result|quality|performance|y")
PARTS = re.compile(r"(?:.*_)?(?:accuracy|acc|top_?[15]|f_?1|auc|auroc|m?iou|dice|precision|recall)")
EQUAL_UPDATES = re.compile(rf".*_(?:after|at)_\d+k?_{UPDATES}")
NOT_METRIC = re.compile(
    r".*(?:loss_(?:scale|fn|function|weight)|_(?:min|max|std|sem|var|stderr)$|__.*)"
)


@dataclass(frozen=True)
class Meaning:
    """Ours for a name, the unit that it ends in, and that unit in base units."""

    ours: str
    kind: str
    unit: str | None
    factor: float
    rank: int


def words(name: str) -> str:
    """`Batch Size`, `batchSize` and `config/batch_size` as `batch_size`; `%` and `/` stay."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.strip())
    name = re.sub(r"([A-Z])([A-Z][a-z])", r"\1_\2", name).lower()
    name = PREFIX.sub("", name)
    return re.sub(r"[^a-z0-9%/]+", "_", name).strip("_/")


def meaning(name: str) -> Meaning | None:
    """The first meaning that fits; None for an unknown name."""
    if name in MAPPABLE:
        return Meaning(name, _kind(name), None, 1.0, -1)
    plain = words(name)
    for rank, (ours, kind, pattern) in enumerate(PATTERNS):
        if found := pattern.fullmatch(plain):
            groups = found.groupdict()
            unit = groups.get("unit") or groups.get("lead")
            return Meaning(ours, kind, unit, UNITS[kind][unit] if unit else 1.0, rank)
    return None


def meant_as(ours: str, name: str) -> Meaning:
    """A name that was mapped: what it means is told, its unit is taken from its end."""
    kind = _kind(ours)
    plain = words(name)
    found = re.fullmatch(f"(?:.*_)?(?P<unit>{END[kind]})(?:_{TARGET})?", plain) if kind else None
    own = meaning(name) if found is None else None
    if own is not None and own.kind == kind and own.unit is not None:
        return Meaning(ours, kind, own.unit, own.factor, -2)
    if found is None or name == ours:
        return Meaning(ours, kind, None, 1.0, -2)
    return Meaning(ours, kind, found["unit"], UNITS[kind][found["unit"]], -2)


def _kind(ours: str) -> str:
    kinds = {name: kind for name, kind, _ in MEANINGS}
    return (
        "time" if ours == "train_seconds" else "part" if ours == "metric" else kinds.get(ours, "")
    )


def mode_of(name: str) -> str | None:
    """`min` or `max` by a metric's name; None where the name does not tell."""
    plain = words(name)
    if NOT_METRIC.fullmatch(plain):
        return None
    if SMALLER.fullmatch(plain):
        return "min"
    return "max" if LARGER.fullmatch(plain) else None


def is_metric(name: str) -> bool:
    """Whether a column may be what training is to make better."""
    return mode_of(name) is not None or OPEN.fullmatch(words(name)) is not None


def split_of(name: str) -> str:
    """`val`, `test`, `train` or nothing: which examples a metric was measured on."""
    plain = words(name)
    for split, pattern in (("val", VALIDATION), ("test", "test"), ("train", "train(?:ing)?")):
        if re.search(rf"(?:^|_|/){pattern}(?:_|/|$)", plain):
            return split
    return ""
