"""What a column's name means: one table of synonyms and patterns, units from the name's end.

A name is taken apart to words in lower case (`Batch Size`, `batchSize` and `config/batch_size` are
one) and looked up in MEANINGS; the first that fits counts, and of two columns that mean the same
the one that fits the earlier pattern.
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
FOUND_FROM = ("epochs_to_target", "epochs", "tokens_to_target", "tokens", "train_examples",
              "epoch_seconds", "update_seconds", "updates_per_second", "tokens_per_second",
              "per_device_batch_size", "devices", "gradient_accumulation", "wall_time", "reports",
              "metric", "run", "state", "fault")  # fmt: skip
MAPPABLE = (*COLUMNS, *FOUND_FROM)

PREFIX = re.compile(
    r"^(?:params?|metrics?|tags|config|hparams?|hyper_?parameters?|args|user_attrs|summary|charts"
    r"|trainer)[./_]+"
)
GROUP = re.compile(r"^(train(?:ing)?|val(?:id)?|validation|eval(?:uation)?|test|dev)/")  # trackers'
TIME = r"(?:wall_?(?:clock)?_?time|time|duration|runtime|run_time|elapsed|clock)"
UNIT = "|".join(sorted({u for u in SECONDS if len(u) > 1} - {"us", "ns"}, key=len, reverse=True))
COUNT = r"(?:num|n|no|nr|number|count|total)(?:_of)?_"
TARGET = r"(?:to|till|until)_.*?"
DEVICE = r"(?:gpu|device|accelerator|tpu|npu|replica|cuda_device)s?"
RATE = r"_?(?:per|/)_?(?:s|sec|second)"
TOKENS = r"(?:tokens?|toks?)"
EXAMPLES = r"(?:example|sample|image|img|sequence|seq|item|record|instance)s?"
UPDATES = r"(?:update|step|iteration|iter|it)s?"
ACCURACY = r"(?:accuracy|acc|top_?1(?:_acc(?:uracy)?)?)"
VALIDATION = r"(?:val|valid|validation|eval|evaluation|dev)"
LAST = r"(?:(?:best|final|last|max|mean|avg)_)?"

WHOLE = r"(?:(?:total|train(?:ing)?|whole|overall)_)*"
NAME = r"(?:(?:run|trial|exp|experiment)_?)?name"
SIZE = r"(?:batch(?:_?size)?|bs)"
TRAIN = r"(?:train(?:ing)?_)?"
# Ours, what kind of unit the name may end in, pattern. A pattern may name its unit `lead`.
MEANINGS: tuple[tuple[str, str, str], ...] = (
    ("batch_size", "", rf"(?:global|effective|total|overall)_?{TRAIN}{SIZE}"),
    ("batch_size", "", r"batch_?size|bs|batch|bsz|batchsz|b_?size|b"),
    ("batch_size", "", r"(?:mini|minibatch)_?(?:batch)?(?:_?size)?"),
    ("batch_size", "", rf"{TRAIN}{SIZE}"),
    ("per_device_batch_size", "", rf"(?:train_)?{SIZE}_?(?:per|/)_?{DEVICE}"),
    ("per_device_batch_size", "", rf"per_?{DEVICE}_{TRAIN}{SIZE}|(?:local|micro)_?{SIZE}"),
    ("gradient_accumulation", "", r"(?:grad(?:ient)?_)?accum(?:ulat(?:e|ion))?"
     r"(?:_(?:steps|grad_batches|iters?))?"),
    ("seed", "", r"(?:(?:random|rng|torch|np|global|init)_)?seed|random_state"),
    ("target", "", r"(?:target|goal|threshold)(?:_(?:value|metric|acc(?:uracy)?|loss|quality))?"),
    ("epochs_to_target", "", rf"(?:{COUNT})?epochs?_(?:{TARGET}|needed|required)"),
    ("epochs_to_target", "", r"(?:target|converge[nd]\w*)_epochs?"),
    ("time_to_target_seconds", "time", rf"{TRAIN}(?:{TIME}|(?P<lead>{UNIT}))_{TARGET}"),
    ("time_to_target_seconds", "time", rf"ttt|tta|ttc|(?:target|convergence|solution)_{TIME}"),
    ("updates_to_target", "", rf"(?:{COUNT})?{UPDATES}_(?:{TARGET}|needed|required)"),
    ("updates_to_target", "", rf"(?:target|convergence)_{UPDATES}"),
    ("examples_to_target", "", rf"(?:{COUNT})?{EXAMPLES}_(?:{TARGET}|needed|required)"),
    ("tokens_to_target", "", rf"(?:{COUNT})?{TOKENS}_(?:{TARGET}|needed|required)"),
    ("epoch_seconds", "time", rf"(?:{TIME}|(?P<lead>{UNIT}|s))_?(?:per|/)_?epoch|epoch_{TIME}"),
    ("update_seconds", "time", rf"(?:{TIME}|(?P<lead>{UNIT}|s))_?(?:per|/)_?{UPDATES}"),
    ("update_seconds", "time", rf"{UPDATES}_{TIME}"),
    ("examples_per_second", "", rf"{TRAIN}(?:{EXAMPLES}{RATE}|throughput(?:_{EXAMPLES}{RATE})?)"),
    ("updates_per_second", "", rf"{UPDATES}{RATE}"),
    ("tokens_per_second", "", rf"{TOKENS}{RATE}"),
    ("train_seconds", "time", rf"{WHOLE}{TIME}(?:_total)?|(?P<lead>{UNIT})"),
    ("train_seconds", "time", rf"(?:relative|process|fit|relative_wall)_{TIME}(?:_process)?"),
    ("wall_time", "", r"time_?stamp|datetime|date"),
    ("epochs", "", rf"epochs?|{COUNT}epochs?|epoch_(?:num|number|idx|index|no)"),
    ("epochs", "", r"(?:train(?:ing)?|total|max)_epochs?"),
    ("reports", "", r"training_iteration|round|checkpoint|point"),
    ("updates", "", rf"{TRAIN}(?:global_)?{UPDATES}|(?:{COUNT}|train_|training_|max_){UPDATES}"),
    ("examples_seen", "", rf"{EXAMPLES}_(?:seen|processed)|(?:{COUNT})?{EXAMPLES}_trained"),
    ("tokens", "", rf"(?:{COUNT}|{TRAIN})?{TOKENS}(?:_(?:seen|processed|consumed|trained))?"),
    ("train_examples", "", rf"(?:data_?set|train(?:ing)?|train_?set|data)_(?:size|{EXAMPLES})"),
    ("train_examples", "", rf"n_train|{COUNT}train(?:ing)?(?:_{EXAMPLES})?"),
    ("peak_memory_mib", "memory", r"(?:(?:peak|max|gpu|cuda|device|total)_)*"
     r"(?:memory|mem|vram|rss)(?:_(?:usage|used|allocated|reserved|peak))*"),
    ("energy_joules", "energy", r"(?:(?:total|gpu|train)_)*energy(?:_(?:us\w+|consum\w+))?"),
    ("learning_rate", "", rf"{TRAIN}(?:(?:init|initial|base|max|peak|start)_)?"
     r"(?:lr|learning_?rate|lrate)(?:_init)?"),
    ("devices", "", rf"(?:{COUNT})?{DEVICE}|{DEVICE}_count|world_size|{COUNT}nodes?|nodes"),
    ("state", "", r"(?:run_|trial_)?(?:state|status|outcome)|(?:did_)?converged?|success"),
    ("state", "", r"succeeded|diverged|oom|reached(?:_target)?|done|completed?|finished|failed"),
    ("state", "", r"crashed|early_stopped"),
    ("run", "", rf"{NAME}|run|trial|tag|repeat|rep|repetition|replicate|fold|mlflow_run_?name"),
    ("run", "", r"(?:run|trial|exp(?:eriment)?)_?(?:id|number|no|index)|exp(?:eriment)?"),
    ("run", "", r"config(?:uration)?|setup|id|number"),
    ("val_accuracy", "part", rf"{LAST}{VALIDATION}_{LAST}{ACCURACY}"),
    ("test_accuracy", "part", rf"{LAST}test_{LAST}{ACCURACY}"),
    ("train_accuracy", "part", rf"{LAST}train(?:ing)?_{LAST}{ACCURACY}"),
)  # fmt: skip
PER_CENT = {"%": 0.01, "pct": 0.01, "percent": 0.01}
UNITS = {"time": SECONDS, "memory": MIB, "energy": JOULES, "part": PER_CENT}
END = {
    kind: "|".join(re.escape(unit) for unit in sorted(of, key=len, reverse=True))
    for kind, of in UNITS.items()
}


def _compiled(kind: str, pattern: str) -> re.Pattern[str]:
    end = f"(?:_(?:in_)?(?P<unit>{END[kind]}))?" if kind else ""
    return re.compile(f"(?:{pattern}){end}")


PATTERNS = tuple((ours, kind, _compiled(kind, pattern)) for ours, kind, pattern in MEANINGS)
MACHINE = re.compile(
    r"(?:.*_)?(?:device(?:_(?:name|type))?|hardware|machine|system|platform|processor|cpu|instance(?:_type)?"
    r"|host(?:_?name)?|cluster|node(?:_name)?|gpu(?:_(?:name|type|model))?|accelerator(?:_(?:name|type|model))?)"
)  # fmt: skip

# Metrics: the direction follows the name, and what is smaller is better is looked for first.
SMALLER = re.compile(
    r"(?:.*_)?(?:loss|losses|errors?|err|mse|rmse|msle|rmsle|mae|s?mape|wape|mase|wer|cer|ter|perplexity|ppl|perp"
    r"|nll|neg(?:ative)?_(?:log_)?(?:likelihood|ll)|bpb|bpc|bpd|bits?(?:/\w+)?|fid|kid|lpips|eer|min_dcf|brier|crps"
    r"|log_?loss|x?ent|cross_?entropy|entropy|kl|divergence|distance|chamfer|hausdorff|mpjpe|epe|abs_rel|regret"
    r"|residual|misclassif\w*|accuracy_(?:drop|gap)|acc_(?:drop|gap))(?:_.*)?"
    r"|1_(?:\w+_)?(?:accuracy|acc|auc|auroc|f1|ssim)"  # one minus it
)  # fmt: skip
LARGER = re.compile(
    r"(?:.*_)?(?:accuracy|acc_?[15]?|top_?[15]|f_?1|f_?score|auc|auroc|auprc|roc|ap_?\d*|map|map_?\d+|m?iou"
    r"|dice|pq|pck|chr_?f|spearman\w*|pearson\w*|corr(?:elation)?|explained_variance|r_2|sd[ri]|snr|pesq|stoi|bleu|rouge\w*|meteor|r2|precision|recall|score|rewards?|returns?|psnr|ssim|em|exact_match|mrr|ndcg\w*|hits?|pass|win_?rate|elo|kappa"
    r"|mcc|specificity|sensitivity|likelihood|elbo|correct)(?:_.*)?"
)  # fmt: skip
OPEN = re.compile(r"values?|objective(?:_value)?|metric|result|quality|performance|y")
OF_SEVERAL = r"(?:_(?:%|pct|percent|mean|avg|average|median|final|last|best))*"
PARTS = re.compile(
    r"(?:.*_)?(?:accuracy|acc_?[15]?|top_?[15]|f_?1|auc|auroc|m?iou|dice|precision|recall)"
    + OF_SEVERAL
)
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
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.strip().replace("IoU", "Iou"))
    name = re.sub(r"([A-Z])([A-Z][a-z])", r"\1_\2", name).lower()
    name = PREFIX.sub("", name)
    return GROUP.sub(r"\1_", re.sub(r"[^a-z0-9%/]+", "_", name).strip("_/"))


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
