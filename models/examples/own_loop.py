"""A loop of one's own, without torch: scikit-learn's network on handwritten digits.

./scripts/sweep --train models/examples/own_loop.py:train
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from tune_jobs.own_loop import Settings, Told, own_loop

TRAIN, EVERY = 1_200, 256  # examples of the training split, and between two reports


@own_loop(metric="accuracy", target=0.92, budget_examples=7_680)
def train(settings: Settings, report: Told) -> None:
    began = time.perf_counter()
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order] / 16, labels[order]
    model = MLPClassifier(
        hidden_layer_sizes=(64,), learning_rate_init=settings.learning_rate,
        batch_size=settings.batch_size, random_state=settings.seed,
    )  # fmt: skip
    chance, seen, said = np.random.default_rng(settings.seed), 0, 0
    untrained = time.perf_counter() - began  # seconds of set-up, and of evaluations
    while seen < settings.budget_examples:
        chosen = chance.integers(0, TRAIN, settings.batch_size)
        model.partial_fit(images[chosen], labels[chosen], classes=np.arange(10))  # one update
        seen += settings.batch_size
        if seen // EVERY > said:
            said = seen // EVERY
            began = time.perf_counter()
            right = model.score(images[TRAIN:], labels[TRAIN:])
            untrained += time.perf_counter() - began
            if not report(examples_seen=seen, val_metric=right, evaluation_seconds=untrained):
                return
            untrained = 0.0
