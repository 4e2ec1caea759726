"""`--dry-run`: the configuration, what the search would try, what each trial would ask for."""

from __future__ import annotations

from rich.console import Console

from tune_jobs.config import SweepConfig, to_toml
from tune_jobs.planning.search_plan import learning_rate_range, rungs_of, shares
from tune_jobs.planning.ways import way_of


def print_plan(config: SweepConfig, console: Console) -> None:
    """The plan; nothing is started, and neither Ray nor torch is imported."""
    for text in (to_toml(config), *plan_lines(config)):
        console.print(text, highlight=False, soft_wrap=True, markup=False)


def plan_lines(config: SweepConfig) -> list[str]:
    """Where learning rates are searched and races decide, then one line for each batch size."""
    within = learning_rate_range(config)
    rungs = ", ".join(map(str, rungs_of(config)))
    way = way_of(config)
    trials = {
        size: way.shares.format(share=count)
        for size, count in shares(config.trials, config.batch_sizes).items()
    }
    return [
        f"search {config.search}: {way.about}; {config.trials} trials at the most",
        f"base learning rate {within.low:.2g} to {within.high:.2g} (at batch 256); races decide at "
        f"{rungs} of {config.budget_examples} examples",
        *(
            f"batch size {size:>6}: {told}, each asking Ray for {config.cpus_per_trial} CPU and "
            f"{config.gpus_per_trial} GPU"
            for size, told in trials.items()
        ),
    ]
