"""What was run: a sweep's rows, or anyone's table, as runs that can be judged.

Read `sweep_runs.py` for a sweep; for a table `table_file.py` (a file's cells), `cells.py` (what a
cell may hold), then `table_of_runs.py`. `choosing.py` says which trial of a search was the best.
"""
