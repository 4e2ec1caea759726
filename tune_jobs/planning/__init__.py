"""What to run next: pure functions from recorded rows and the configuration to runs, or none.

Read `confirm_plan.py`: which seeds are still to be run, and at which learning rates.
"""
