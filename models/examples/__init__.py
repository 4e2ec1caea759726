"""Workloads to begin from: ./scripts/sweep --workload models/examples/tabular.py:workload"""
