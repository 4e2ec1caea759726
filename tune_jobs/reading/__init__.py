"""What was run: a sweep's rows, or anyone's table, as runs that can be judged.

Read `sweep_runs.py` for a sweep. For a table read `table_of_runs.py`, which composes the steps:
`table_file.py` (bytes to cells), `reshaped.py` (wide to long), `columns.py` with `names.py` (which
column is what), `rows.py` with `cells.py` (what a cell says), `rows_as.py` and `curves.py` (what a
row is, and where a curve crosses), `per_cent.py`, `states.py` (how runs ended), `apart.py` (what is
no seed), `runs.py` (what can be derived), `grid.py` (learning rates), `said.py` (what cannot be
judged). `choosing.py` says which trial of a search was the best.
"""
