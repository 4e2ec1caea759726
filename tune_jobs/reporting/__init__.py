"""How it is told: verdicts as sentences, tables, figures and pages; nothing is decided here.

Read `answer.py` first (rows to verdicts to page), then `terminal.py`, `summary.py` (MLflow's note),
`costs.py` (the measure stage); `page/html.py` and `figures/verdict_figures.py` draw the report.
"""
