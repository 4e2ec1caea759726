"""What the runs mean: pure functions from recorded runs to verdicts.

Read `judging.py` first, the order of the whole; then `samples.py` (runs as numbers), `contest.py`
and `deciding.py` (which batch size), then what is told beside it, such as `critical_batch.py`.
"""
