"""Imported in each process of a Ray of this machine as it begins: what a trial needs."""

import tune_jobs.tuning.trial  # noqa: F401
from tune_jobs.tuning.starting import tell_ready

tell_ready()
