"""The copy in MLflow, and reading one back; the only room that imports MLflow.

Read `mlflow_copy.py` first, the face that a sweep sees, with the promises it keeps; then the queue
(`outbox.py`), `writer.py` and `filler.py`, and what these write into: `parent.py`, `nested.py`,
under the names of `fields.py`. `mlflow_experiment.py` reads anyone's finished experiment.
"""
