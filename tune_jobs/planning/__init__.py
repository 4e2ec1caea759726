"""What to run next: pure functions from recorded rows and the configuration to runs, or none.

Read `learning_rates.py`: which batch size to try next, at which rate; then `confirm_plan.py`: which
seeds are still worth running; `looks.py`: when that is asked.
"""
