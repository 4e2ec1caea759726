"""What to run next: pure functions from recorded rows and the configuration to runs, or none.

Read `search_plan.py`: what the search will try; then `confirm_plan.py`: which seeds are still to be
run, and at which learning rates.
"""
