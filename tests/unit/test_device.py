"""Device, precision, compiled networks, progress lines and memory."""

import subprocess
import sys

import pytest
import torch

from sns_core.device import CompiledForBatchSizes, autocast, can_compile, compiled, select_device
from sns_core.errors import UserError
from sns_core.progress import progress
from sns_core.streams import generator


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto").type == "cpu"
    with pytest.raises(UserError, match=r"'cuda:1' .* 'cpu'"):
        select_device("cuda:1")


@pytest.mark.parametrize("name", ["mps", "meta", "gpu", "CPU", ""])
def test_a_device_that_is_neither_a_cpu_nor_an_nvidia_gpu_is_refused(name):
    with pytest.raises(UserError, match=f"device: '{name}' is none of auto, cpu, cuda and cuda:N"):
        select_device(name)


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="'float16'"):
        autocast(torch.device("cpu"), "float16")


def test_networks_run_in_the_set_precision():
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_without_a_compiler_networks_run_uncompiled_and_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    can_compile.cache_clear()
    network = torch.nn.Conv2d(1, 1, 3)
    try:
        assert compiled(network, torch.device("cpu")) is network
        assert not can_compile(torch.device("cpu"))
    finally:
        can_compile.cache_clear()
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "compile: needs a C++ compiler" in message


def test_rows_are_filled_up_to_powers_of_two_or_to_the_largest_batch_so_far():
    buckets = CompiledForBatchSizes(torch.device("cpu"))
    assert [buckets.bucket(rows) for rows in (5, 1, 2, 3, 4)] == [5, 1, 2, 4, 4]
    assert [buckets.bucket(rows) for rows in (20, 9, 17, 6)] == [20, 16, 20, 8]


def test_bucketed_functions_get_full_buckets_and_return_the_rows_of_the_batch(monkeypatch):
    batch_sizes = []

    def function(pair, constants):
        batch_sizes.append(len(pair[0]))
        return [pair[0] + pair[1], None], constants

    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    (call,) = CompiledForBatchSizes(torch.device("cpu"), function)
    for rows in (4, 3, 1):
        left, right = torch.randn(2, rows, 2, generator=generator("test", rows))
        (total, nothing), constants = call([left, right], None)
        assert torch.equal(total, left + right) and nothing is None and constants is None
    assert batch_sizes == [4, 4, 1]


def test_progress_counts_from_its_start_and_shows_the_rate(capsys):
    assert list(progress(5, "steps", start=2, every=0.0)) == [2, 3, 4]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "steps: 5/5" in printed.err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_is_kept_is_used_again(root):
    program = """
import resource, torch
from sns_core.device import use_threads
use_threads(1)
def work():
    for size in (3_000_000, 5_000_000, 2_000_000):
        a = torch.ones(size); b = a + 1; del a; c = b * 2
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): work()
before, touched = peak(), faults()
for _ in range(30): work()
print(peak() - before, faults() - touched)
"""
    grown, faults = map(int, subprocess.check_output([sys.executable, "-c", program], cwd=root, text=True).split())
    assert grown < 20_000  # kB
    assert faults < 20_000  # 350,000 where each temporary is given back
