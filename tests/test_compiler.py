"""torch's compiler is not imported for an optimizer, and is there for whoever asks for it."""

from __future__ import annotations

import subprocess
import sys

TRAINS = """
import sys
import torch
from tune_jobs.training import optimizers

def trained(name):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = optimizers.make(name, model, 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().mean().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    return [p.detach().tolist() for p in model.parameters()]

names = sorted(optimizers.REGISTRY)
before = [trained(name) for name in names]
assert "torch._dynamo.symbolic_convert" not in sys.modules, "the compiler was imported"
import torch._dynamo.config
assert "torch._dynamo.symbolic_convert" in sys.modules
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.__path__
model = torch.nn.Linear(3, 2)
assert torch.compile(model, backend="eager")(torch.ones(1, 3)).shape == (1, 2)
assert [trained(name) for name in names] == before
"""


def test_an_optimizer_leaves_the_compiler_and_what_compiles_has_it() -> None:
    done = subprocess.run([sys.executable, "-c", TRAINS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
