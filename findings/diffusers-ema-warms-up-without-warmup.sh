#!/usr/bin/env bash
# EMAModel of diffusers warms its decay up also with use_ema_warmup=False
#
# Versions: diffusers 0.42.1, torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11
#
# One would guess: EMAModel(parameters, decay=0.999), whose use_ema_warmup is False by default, averages with the decay
# 0.999 from the start, as torch.optim.swa_utils does with get_ema_multi_avg_fn(0.999).
# What happens: use_ema_warmup only chooses between two warm-ups. Without it the decay at step n is
# min(decay, (1 + n) / (10 + n)), which reaches 0.999 after 8990 steps; the first step copies the weights. In a run of
# a thousand steps the average reaches back over some hundred steps, not over a thousand.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "diffusers==0.42.1" "torch==2.13.0" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
step 10: decay 0.550, the first weights count 0.00, with torch 0.99
step 100: decay 0.918, the first weights count 0.00, with torch 0.90
step 1000: decay 0.991, the first weights count 0.00, with torch 0.37
step 10000: decay 0.999, the first weights count 0.00, with torch 0.00
TEXT
}

actual() {
    python -W ignore - <<'PYTHON'
import torch
from diffusers.training_utils import EMAModel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

weight = torch.nn.Linear(1, 1, bias=False)
with torch.no_grad():
    weight.weight.fill_(0.0)
theirs = EMAModel(weight.parameters(), decay=0.999)
plain = AveragedModel(weight, multi_avg_fn=get_ema_multi_avg_fn(0.999))
plain.update_parameters(weight)
theirs.step(weight.parameters())
with torch.no_grad():
    weight.weight.fill_(1.0)
for step in range(1, 10001):
    theirs.step(weight.parameters())
    plain.update_parameters(weight)
    if step in (10, 100, 1000, 10000):
        print(
            f"step {step}: decay {theirs.cur_decay_value:.3f}, the first weights count "
            f"{1 - theirs.shadow_params[0].item():.2f}, with torch {1 - plain.module.weight.item():.2f}"
        )
PYTHON
}

diff <(expected) <(actual)
