"""Tests promises of the C++ backend alone: one result on any machine, fork safety, checked bindings."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracle
from support.sampling import examples
from torch import Tensor

from fedtlu_fast.ops import reference
from fedtlu_fast.ops.moments import Moments

native: Any = pytest.importorskip("fedtlu_fast.ops.native", exc_type=ImportError)
_native: Any = pytest.importorskip("fedtlu_fast._native", exc_type=ImportError)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
NAMES = {dtype: str(dtype).removeprefix("torch.") for dtype in DTYPES}
FIELDS = ("count", "mean", "m2", "abs_max", "nonfinite")
TILE = 16384
SIZES = (0, 1, 2, 15, 16, 17, 31, 33, 97, TILE - 1, TILE, TILE + 1, 50001)
THREADS = (1, 2, 3, 8)


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    threads, level = torch.get_num_threads(), _native.simd_level()
    yield
    torch.set_num_threads(threads)
    _native.set_simd_level(level)


@pytest.fixture
def rng(generator: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(generator.initial_seed())


def offsets_of(sizes: list[int] | tuple[int, ...], start: int = 0) -> Tensor:
    return torch.tensor([start, *(start + np.cumsum(sizes, dtype=np.int64)).tolist()])


def bits(moments: Moments) -> Tensor:
    return torch.stack([getattr(moments, field) for field in FIELDS]).view(torch.int64)


def samples(
    rng: np.random.Generator, size: int, dtype: torch.dtype, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    return torch.from_numpy(rng.normal(mean, std, size)).to(dtype)


def one_layer(values: Tensor) -> tuple[float, ...]:
    moments = native.layer_stats(values, offsets_of([values.numel()]))
    return tuple(getattr(moments, field).item() for field in FIELDS)


def assert_exact(values: Tensor) -> None:
    oracle.assert_moments(one_layer(values), values.double().numpy())


class TestSameBits:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_on_any_number_of_threads_and_level(self, dtype: torch.dtype, rng: np.random.Generator) -> None:
        # Enough bytes for every thread to join in, tiny layers and tiles cut across the work items.
        sizes = [int(size) for size in rng.permutation([*SIZES, *rng.integers(0, 300, 500), 1_500_000])]
        delta = samples(rng, sum(sizes) + 3, dtype, mean=0.3)
        offsets = offsets_of(sizes, start=1)
        expected = None
        for level in _native.simd_levels():
            _native.set_simd_level(level)
            for threads in THREADS:
                torch.set_num_threads(threads)
                got = bits(native.layer_stats(delta, offsets))
                expected = got if expected is None else expected
                assert torch.equal(got, expected), (level, threads)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_wherever_the_layer_lies(self, dtype: torch.dtype, rng: np.random.Generator) -> None:
        layer = samples(rng, 50001, dtype)
        expected = one_layer(layer)
        for shift in (1, 2, 3, 7, 15):
            moved = torch.cat([samples(rng, shift, dtype), layer, samples(rng, 5, dtype)])
            assert one_layer(moved[shift : shift + 50001]) == expected

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_short_layers_beside_each_other(self, dtype: torch.dtype, rng: np.random.Generator) -> None:
        """They are read many at a time; none may learn of its neighbours, however hostile."""
        layers = [samples(rng, int(size), dtype, mean=0.2) for size in rng.integers(0, 1100, 150)]
        layers[20] = torch.full((100,), 0.1, dtype=dtype)
        layers[40] = torch.tensor([1.0, float("nan"), 2.0], dtype=dtype)
        layers[60] = samples(rng, 1024, dtype, mean=300.0)
        layers[80] = layers[81] = torch.zeros(17, dtype=dtype)
        together = bits(native.layer_stats(torch.cat(layers), offsets_of([len(layer) for layer in layers])))
        for index, layer in enumerate(layers):
            assert torch.equal(together[:, index], bits(native.layer_stats_list([layer]))[:, 0]), index
            if index % 10 == 1 and len(layer):
                assert_exact(layer)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_as_a_list_of_tensors(self, dtype: torch.dtype, rng: np.random.Generator) -> None:
        layers = [samples(rng, size, dtype) for size in (*SIZES, 8191, 8192, 8193)]
        flat = native.layer_stats(torch.cat(layers), offsets_of([layer.numel() for layer in layers]))
        assert torch.equal(bits(native.layer_stats_list(layers)), bits(flat))

    def test_as_a_list_of_mixed_dtypes(self, rng: np.random.Generator) -> None:
        layers = [samples(rng, size, dtype) for size in SIZES for dtype in DTYPES]
        expected = torch.cat([bits(native.layer_stats_list([layer])) for layer in layers], dim=1)
        assert torch.equal(bits(native.layer_stats_list(layers)), expected)

    def test_with_subnormals_flushed_elsewhere(self, rng: np.random.Generator) -> None:
        """torch sets the processor's flag per thread, but the kernels keep subnormal numbers."""
        values = samples(rng, 50001, torch.float32, std=1e-41)
        expected = one_layer(values)
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor cannot flush subnormals")
        try:
            assert one_layer(values) == expected
        finally:
            torch.set_flush_denormal(False)
        assert expected[2] > 0

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_of_aggregates(self, dtype: torch.dtype, rng: np.random.Generator) -> None:
        """Compares the sum, its moments and the clients' moments, with enough elements for all threads."""
        sizes = [int(size) for size in rng.permutation([*SIZES, *rng.integers(0, 300, 200), 400_000])]
        offsets = offsets_of(sizes, start=20_000)
        clients = [samples(rng, int(offsets[-1]) + 20_000, dtype, mean=0.3) for _ in range(7)]
        weights = torch.from_numpy(rng.random(7))
        base = samples(rng, clients[0].numel(), dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        for start in (base, None):
            expected = torch.empty_like(base, dtype=wide)
            reference.aggregate(expected, clients, weights, start, offsets, False)
            moments = bits(native.layer_stats(expected, offsets))
            changes = [
                client if start is None else (client.double() - start.double()).to(wide) for client in clients
            ]
            each = torch.stack([bits(native.layer_stats(change, offsets)) for change in changes], dim=1)
            for level in _native.simd_levels():
                _native.set_simd_level(level)
                for threads in THREADS:
                    torch.set_num_threads(threads)
                    got = torch.empty_like(expected)
                    found, of_clients = native.aggregate(got, clients, weights, start, offsets, True)
                    assert torch.equal(got, expected), (level, threads)
                    assert torch.equal(bits(found), moments), (level, threads)
                    assert torch.equal(bits(of_clients), each), (level, threads)
                    got.fill_(7)
                    found, of_clients = native.aggregate(got, clients, weights, start, offsets, False)
                    assert torch.equal(got, expected), (level, threads)
                    assert torch.equal(bits(found), moments)
                    assert of_clients is None
                    got.fill_(7)
                    found = native.accumulate_(got, clients[0], start, 0.3, offsets)
                    again = torch.full_like(got, 7)
                    assert native.accumulate_(again, clients[0], start, 0.3) is None
                    assert torch.equal(got, again)
                    assert torch.equal(bits(found), bits(native.layer_stats(again, offsets)))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("size", [*SIZES, 300_001])
    def test_of_updates(self, dtype: torch.dtype, size: int, rng: np.random.Generator) -> None:
        client, base = (samples(rng, size + 1, dtype)[1:] for _ in range(2))
        aggregate = samples(rng, size + 1, torch.float64 if dtype == torch.float64 else torch.float32)[1:]
        weight = float(rng.normal())
        cuts = sorted(int(cut) for cut in rng.integers(0, size + 1, 40))
        offsets = torch.tensor(cuts)
        mask = torch.from_numpy(rng.random(39) < 0.5)
        for start in (base, None):
            expected = aggregate.clone()
            reference.accumulate_(expected, client, start, weight)
            applied = aggregate.clone()
            reference.masked_apply_(applied, client, offsets, mask, weight)
            for level in _native.simd_levels():
                _native.set_simd_level(level)
                for threads in THREADS:
                    torch.set_num_threads(threads)
                    got = aggregate.clone()
                    native.accumulate_(got, client, start, weight)
                    assert torch.equal(got, expected), (level, threads)
                    got = aggregate.clone()
                    native.masked_apply_(got, client, offsets, mask, weight)
                    assert torch.equal(got, applied), (level, threads)


class TestExactness:
    @pytest.mark.parametrize("level", _native.simd_levels())
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("size", SIZES[1:])
    def test_against_exact_sums(
        self, level: str, dtype: torch.dtype, size: int, rng: np.random.Generator
    ) -> None:
        _native.set_simd_level(level)
        assert_exact(samples(rng, size, dtype, mean=0.01))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("ratio", [1e2, 1e4, 1e6])
    def test_under_cancellation(self, dtype: torch.dtype, ratio: float, rng: np.random.Generator) -> None:
        assert_exact(samples(rng, 50001, dtype, mean=ratio))

    @pytest.mark.parametrize("at", [0, 1, TILE - 1, TILE, 40000, 50000])
    @pytest.mark.parametrize("outlier", [1e3, 1e9, -1e12])
    def test_beside_an_outlier(self, at: int, outlier: float, rng: np.random.Generator) -> None:
        """The first element of a tile is its pivot; an outlier there must not spoil the sums."""
        values = samples(rng, 50001, torch.float64, mean=5.0)
        values[at] = outlier
        assert_exact(values)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("size", [1, 2, 17, TILE, TILE + 1, 5 * TILE + 3])
    def test_a_constant_has_no_deviation(
        self, dtype: torch.dtype, size: int, rng: np.random.Generator
    ) -> None:
        constant = samples(rng, 1, dtype)
        got = one_layer(constant.expand(size).contiguous())
        assert got == (size, constant.item(), 0.0, abs(constant.item()), 0)

    @pytest.mark.parametrize(
        ("dtype", "scale"),
        [(torch.float32, 1e-44), (torch.float32, 1e38), (torch.float16, 2e-7), (torch.float16, 6e4),
         (torch.bfloat16, 1e-39), (torch.bfloat16, 3e38), (torch.float64, 1e150), (torch.float64, 1e-150)],
    )  # fmt: skip
    def test_at_the_ends_of_the_range(
        self, dtype: torch.dtype, scale: float, rng: np.random.Generator
    ) -> None:
        assert_exact(torch.from_numpy(rng.uniform(-1, 1, 1000) * scale).to(dtype))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_every_16_bit_number(self, dtype: torch.dtype) -> None:
        numbers = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
        finite = numbers[torch.isfinite(numbers.float())].contiguous()
        assert_exact(finite)
        for level in _native.simd_levels():
            _native.set_simd_level(level)
            moments = native.layer_stats(finite, torch.arange(finite.numel() + 1))
            assert torch.equal(moments.mean, finite.double()), level
            assert torch.equal(moments.abs_max, finite.double().abs()), level

    def test_float64_beyond_its_range(self) -> None:
        values = torch.tensor([1e200, -1e200, 3.0], dtype=torch.float64)
        _, mean, m2, abs_max, nonfinite = one_layer(values)
        assert (m2, abs_max, nonfinite) == (math.inf, 1e200, 0)
        assert math.isfinite(mean)
        largest = torch.finfo(torch.float64).max
        assert one_layer(torch.tensor([largest, -largest], dtype=torch.float64))[2:] == (math.inf, largest, 0)

    @examples(200)
    @given(
        values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=70),
        level=st.sampled_from(_native.simd_levels()),
    )
    def test_any_float32(self, values: list[float], level: str) -> None:
        _native.set_simd_level(level)
        layer = torch.tensor(values, dtype=torch.float32)
        count, mean, m2, abs_max, nonfinite = one_layer(layer)
        true_count, true_mean, true_m2, true_abs_max, _ = oracle.moments(values)
        assert (count, abs_max, nonfinite) == (true_count, true_abs_max, 0)
        assert mean == pytest.approx(true_mean, rel=1e-12, abs=1e-14 * true_abs_max)
        assert m2 == pytest.approx(true_m2, rel=1e-12, abs=0)


class TestNonfinite:
    @pytest.mark.parametrize("level", _native.simd_levels())
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_at_every_kind_of_position(self, level: str, dtype: torch.dtype, bad: float) -> None:
        _native.set_simd_level(level)
        for size in (1, 5, 16, 17, 100, TILE + 17):
            for at in {0, 1, 7, 15, 16, size // 2, TILE - 1, TILE, size - 1} & set(range(size)):
                values = torch.ones(size, dtype=dtype)
                values[at] = bad
                count, *rest, nonfinite = one_layer(values)
                assert (count, nonfinite) == (size, 1), (size, at)
                assert all(map(math.isnan, rest)), (size, at)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_counted_exactly(self, dtype: torch.dtype, rng: np.random.Generator) -> None:
        values = samples(rng, 100_003, dtype)
        for share in (0.001, 0.5, 1.0):
            chosen = torch.from_numpy(rng.random(values.numel()) < share)
            values[chosen] = float(rng.choice([math.nan, math.inf, -math.inf]))
            assert one_layer(values)[4] == int((~torch.isfinite(values)).sum())

    def test_stay_in_their_layer(self, rng: np.random.Generator) -> None:
        values = samples(rng, 3 * TILE, torch.float32)
        values[TILE] = math.nan
        moments = native.layer_stats(values, offsets_of([TILE, TILE, TILE]))
        assert torch.isnan(moments.mean).tolist() == [False, True, False]


class TestProcess:
    def test_a_forked_child_computes(self) -> None:
        script = textwrap.dedent(
            """
            import os, threading
            import numpy as np
            from fedtlu_fast import _native

            delta = np.ones(4_000_000, dtype=np.float32)
            offsets = np.array([0, delta.size])
            compute = lambda: _native.layer_stats(delta, "float32", offsets, 4)
            expected = compute()
            busy = True
            def keep_the_pool_busy():
                while busy:
                    compute()
            thread = threading.Thread(target=keep_the_pool_busy)
            thread.start()
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    os._exit(0 if np.array_equal(compute(), expected) else 1)
                assert os.waitpid(child, 0)[1] == 0
            busy = False
            thread.join()
            """
        )
        subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)

    def test_concurrent_calls(self, rng: np.random.Generator) -> None:
        layers = [samples(rng, 1_000_000, torch.float32) for _ in range(4)]
        expected = [one_layer(layer) for layer in layers]
        torch.set_num_threads(3)
        with ThreadPoolExecutor(4) as executor:
            for _ in range(10):
                assert list(executor.map(one_layer, layers)) == expected

    def test_exit_while_a_thread_computes(self) -> None:
        script = textwrap.dedent(
            """
            import threading
            import numpy as np
            from fedtlu_fast import _native

            delta = np.ones(2_000_000, dtype=np.float32)
            def forever():
                while True:
                    _native.layer_stats(delta, "float32", np.array([0, delta.size]), 4)
            threading.Thread(target=forever, daemon=True).start()
            _native.layer_stats(delta, "float32", np.array([0, delta.size]), 4)
            """
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


class TestSimdLevel:
    def run(self, level: str) -> subprocess.CompletedProcess[str]:
        script = "from fedtlu_fast import _native; print(_native.simd_level())"
        environment = os.environ | {"FEDTLU_SIMD": level}
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )

    @pytest.mark.parametrize("level", _native.simd_levels())
    def test_forced_by_the_environment(self, level: str) -> None:
        assert self.run(level).stdout.strip() == level

    def test_widest_by_default(self) -> None:
        assert self.run("").stdout.strip() == _native.simd_levels()[-1]

    def test_unknown_in_the_environment(self) -> None:
        result = self.run("sse9")
        assert result.returncode != 0
        assert "FEDTLU_SIMD: got 'sse9'; expected a SIMD level of this machine: baseline" in result.stderr

    def test_unknown_in_the_environment_is_bad_input_to_the_package(self) -> None:
        script = "import torch, fedtlu_fast; fedtlu_fast.layer_stats([torch.ones(3)])"
        result = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"FEDTLU_SIMD": "foo"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "InputError: FEDTLU_SIMD: got 'foo'; expected a SIMD level of this machine" in result.stderr

    def test_unknown_by_name(self) -> None:
        with pytest.raises(ValueError, match="level: got 'sse9'"):
            _native.set_simd_level("sse9")


class TestBindings:
    """Checks that a bad argument raises an error with its name, and that no argument ends the process."""

    x = np.zeros(8, dtype=np.float32)
    swapped = x.astype(x.dtype.newbyteorder())

    @pytest.mark.parametrize(
        ("change", "error", "name"),
        [
            ({"delta": None}, TypeError, "delta"),
            ({"delta": [1.0]}, TypeError, "delta"),
            ({"delta": memoryview(b"12345678")}, TypeError, "delta"),
            ({"delta": x.astype(np.float64)}, TypeError, "delta"),
            ({"delta": x.astype(np.int32)}, TypeError, "delta"),
            ({"delta": x.astype(np.complex64)}, TypeError, "delta"),
            ({"delta": np.array([None])}, TypeError, "delta"),
            ({"delta": swapped}, TypeError, "delta"),
            ({"delta": x.reshape(2, 4)}, ValueError, "delta"),
            ({"delta": np.float32(1)}, TypeError, "delta"),
            ({"delta": np.array(1, dtype=np.float32)}, ValueError, "delta"),
            ({"delta": x[::2]}, ValueError, "delta"),
            ({"delta": x[::-1]}, ValueError, "delta"),
            ({"delta": x, "dtype": "bfloat16"}, TypeError, "delta"),
            ({"delta": x.astype(np.float16), "dtype": "float16"}, TypeError, "delta"),
            ({"dtype": "int8"}, ValueError, "dtype"),
            ({"dtype": "float32\0"}, ValueError, "dtype"),
            ({"dtype": "\ud800"}, ValueError, ""),
            ({"dtype": None}, TypeError, "dtype"),
            ({"offsets": [0, 8]}, TypeError, "offsets"),
            ({"offsets": np.array([0, 8], dtype=np.int32)}, TypeError, "offsets"),
            ({"offsets": np.array([0, 8], dtype=np.uint64)}, TypeError, "offsets"),
            ({"offsets": np.array([0.0, 8.0])}, TypeError, "offsets"),
            ({"offsets": np.zeros((2, 1), dtype=np.int64)}, ValueError, "offsets"),
            ({"offsets": np.zeros(0, dtype=np.int64)}, ValueError, "offsets"),
            ({"offsets": np.array([0, 9])}, ValueError, "offsets"),
            ({"offsets": np.array([-1, 8])}, ValueError, "offsets"),
            ({"offsets": np.array([0, 5, 4, 8])}, ValueError, "offsets"),
            ({"offsets": np.array([0, 2**62, 8])}, ValueError, "offsets"),
            ({"offsets": np.array([0, 2**63 - 1])}, ValueError, "offsets"),
            ({"offsets": np.array([-(2**63), 8])}, ValueError, "offsets"),
            ({"offsets": np.array([0, 4, 4, 8])[::-1]}, ValueError, "offsets"),
            ({"threads": 0}, ValueError, "threads"),
            ({"threads": -3}, ValueError, "threads"),
            ({"threads": 2**70}, TypeError, ""),
            ({"threads": "2"}, TypeError, ""),
        ],
    )
    def test_layer_stats(self, change: dict[str, object], error: type[Exception], name: str) -> None:
        arguments = {"delta": self.x, "dtype": "float32", "offsets": np.array([0, 8]), "threads": 2} | change
        with pytest.raises(error, match=rf"^{name}"):
            _native.layer_stats(**arguments)

    @pytest.mark.parametrize(
        ("change", "error", "name"),
        [
            ({"tensors": 3}, TypeError, "tensors"),
            ({"tensors": [x, None]}, TypeError, r"tensors\[1\]"),
            ({"tensors": [x, x[::2]]}, ValueError, r"tensors\[1\]"),
            ({"tensors": "ab"}, TypeError, r"tensors\[0\]"),
            ({"dtypes": "float3"}, ValueError, "dtypes"),
            ({"dtypes": ["float32"]}, ValueError, "dtypes"),
            ({"dtypes": ["float32", 1]}, TypeError, r"dtypes\[1\]"),
            ({"dtypes": ["float32", "float64"]}, TypeError, r"tensors\[1\]"),
            ({"dtypes": None}, TypeError, "dtypes"),
            ({"threads": 0}, ValueError, "threads"),
        ],
    )
    def test_layer_stats_list(self, change: dict[str, object], error: type[Exception], name: str) -> None:
        arguments = {"tensors": [self.x, self.x], "dtypes": "float32", "threads": 2} | change
        with pytest.raises(error, match=rf"^{name}"):
            _native.layer_stats_list(**arguments)

    def test_a_sequence_that_raises(self) -> None:
        class Broken(list[object]):
            def __iter__(self) -> Iterator[object]:
                raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            _native.layer_stats_list(Broken([1]), "float32", 1)

    def frozen(self) -> np.ndarray[Any, Any]:
        array = self.x.copy()
        array.flags.writeable = False
        return array

    @pytest.mark.parametrize("op", ["accumulate_", "masked_apply_"])
    def test_updates(self, op: str) -> None:
        def call(target: Any, change: Any) -> None:
            if op == "accumulate_":
                _native.accumulate_(target, change, None, "float32", 1.0, None, 2)
            else:
                _native.masked_apply_(target, change, np.array([0, 8]), np.array([True]), "float32", 1.0, 2)

        target, change = {"accumulate_": ("aggregate", "client"), "masked_apply_": ("params", "delta")}[op]
        memory = np.zeros(12, dtype=np.float32)
        for bad in (self.frozen(), self.x[::2], self.x.reshape(2, 4)):
            with pytest.raises(ValueError, match=f"^{target}"):
                call(bad, self.x)
        for bad in (memory[:7], memory):
            with pytest.raises(ValueError, match=f"^{change}: expected 8 elements"):
                call(self.x.copy(), bad)
        for shift in (1, 3, 4):
            with pytest.raises(ValueError, match=f"^{change}: .* overlap {target}"):
                call(memory[:8], memory[shift : shift + 8])
            with pytest.raises(ValueError, match=f"^{change}: .* overlap {target}"):
                call(memory[shift : shift + 8], memory[:8])
        for other in (None, self.x.astype(np.float64), self.x.view(np.int32)):
            with pytest.raises(TypeError, match=f"^{change}"):
                call(self.x.copy(), other)
        whole = np.arange(8, dtype=np.float32)
        call(whole, whole)
        assert whole.tolist() == [2.0 * i for i in range(8)]

    def test_accumulate(self) -> None:
        memory = np.zeros(12, dtype=np.float32)
        with pytest.raises(ValueError, match=r"^base: .* overlap aggregate"):
            _native.accumulate_(memory[:8], self.x, memory[2:10], "float32", 1.0, None, 1)
        with pytest.raises(ValueError, match=r"^base: expected 8 elements"):
            _native.accumulate_(memory[:8], self.x, self.x[:5], "float32", 1.0, None, 1)
        for dtype in ("bfloat16", "float16"):
            halves = np.zeros(8, dtype=np.int16)
            with pytest.raises(TypeError, match=r"^aggregate: expected an array of float32"):
                _native.accumulate_(halves, halves.copy(), None, dtype, 1.0, None, 1)
            with pytest.raises(ValueError, match=r"^client: .* overlap aggregate"):
                _native.accumulate_(memory[:8], memory.view(np.int16)[:8], None, dtype, 1.0, None, 1)
        for offsets in (np.array([0, 9]), np.array([4, 3]), np.array([-1, 3])):
            with pytest.raises(ValueError, match=r"^offsets"):
                _native.accumulate_(memory[:8], self.x + 1, None, "float32", 1.0, offsets, 1)
        assert not memory.any()
        with pytest.raises(TypeError):
            _native.accumulate_(memory[:8], self.x, None, "float32", "heavy", None, 1)

    @pytest.mark.parametrize(
        ("change", "error", "name"),
        [
            ({"out": None}, TypeError, "out"),
            ({"out": x.astype(np.float64)}, TypeError, "out"),
            ({"out": x[::2]}, ValueError, "out"),
            ({"clients": x[0]}, TypeError, "clients"),
            ({"clients": [x, None]}, TypeError, r"clients\[1\]"),
            ({"clients": [x, x[:5]]}, ValueError, r"clients\[1\]: expected 8 elements, as out, got 5"),
            ({"clients": [x, x.astype(np.float64)]}, TypeError, r"clients\[1\]"),
            ({"clients": [x]}, ValueError, "weights: expected 1 numbers, one per client, got 2"),
            ({"weights": np.ones(2, dtype=np.float32)}, TypeError, "weights"),
            ({"weights": [1.0, 1.0]}, TypeError, "weights"),
            ({"weights": np.ones((1, 2))}, ValueError, "weights"),
            ({"base": x[:5]}, ValueError, "base"),
            ({"base": x.astype(np.float64)}, TypeError, "base"),
            ({"dtype": "bfloat16"}, TypeError, "clients"),
            ({"dtype": "float64"}, TypeError, "out"),
            ({"offsets": np.array([0, 9])}, ValueError, "offsets"),
            ({"client_stats": "yes"}, TypeError, ""),
            ({"threads": 0}, ValueError, "threads"),
        ],
    )
    def test_aggregate(self, change: dict[str, object], error: type[Exception], name: str) -> None:
        arguments: dict[str, object] = {
            "out": np.full(8, 7, dtype=np.float32),
            "clients": [self.x, self.x + 1],
            "weights": np.ones(2),
            "base": None,
            "dtype": "float32",
            "offsets": np.array([0, 8]),
            "client_stats": True,
            "threads": 2,
        } | change
        with pytest.raises(error, match=rf"^{name}"):
            _native.aggregate(**arguments)
        if "out" not in change:
            assert (np.asarray(arguments["out"]) == 7).all()

    def test_aggregate_into_what_it_reads(self) -> None:
        memory = np.arange(12, dtype=np.float32)
        offsets = np.array([0, 8])
        for bad in ([memory[1:9]], [self.x, memory[4:]]):
            with pytest.raises(ValueError, match=r"^clients\[\d\]: .* overlap out"):
                _native.aggregate(memory[:8], bad, np.ones(len(bad)), None, "float32", offsets, False, 1)
        with pytest.raises(ValueError, match=r"^base: .* overlap out"):
            _native.aggregate(memory[:8], [self.x], np.ones(1), memory[2:10], "float32", offsets, False, 1)
        frozen = self.frozen()
        with pytest.raises(ValueError, match=r"^out: expected writable"):
            _native.aggregate(frozen, [self.x], np.ones(1), None, "float32", offsets, False, 1)
        whole = memory[:8]
        _native.aggregate(whole, [whole, whole], np.array([1.0, 2.0]), None, "float32", offsets, True, 1)
        assert whole.tolist() == [3.0 * i for i in range(8)]

    def test_mask(self) -> None:
        def apply(offsets: object, mask: object) -> None:
            _native.masked_apply_(np.zeros(8, np.float32), self.x, offsets, mask, "float32", 1.0, 1)

        for mask in (np.array([True]), np.zeros(3, dtype=bool)):
            with pytest.raises(ValueError, match=r"^mask: expected 2 entries"):
                apply(np.array([0, 4, 8]), mask)
        for other in (None, np.array([1, 0]), np.array([1, 0], dtype=np.uint8)):
            with pytest.raises(TypeError, match=r"^mask"):
                apply(np.array([0, 4, 8]), other)
        with pytest.raises(ValueError, match=r"^offsets"):
            apply(np.array([0, 9]), np.array([True]))

    def test_unaligned_memory(self, rng: np.random.Generator) -> None:
        values = rng.normal(size=1000).astype(np.float32)
        raw = np.empty(4003, dtype=np.uint8)
        shifted = raw[3:].view(np.float32)
        shifted[:] = values
        offsets = np.array([0, 100, 1000])
        assert np.array_equal(
            _native.layer_stats(shifted, "float32", offsets, 1),
            _native.layer_stats(values, "float32", offsets, 1),
        )
        _native.accumulate_(shifted, values, None, "float32", 1.0, None, 1)
        assert np.array_equal(shifted, 2 * values)

    def test_nothing_to_do(self) -> None:
        nothing = np.zeros(0, dtype=np.float32)
        assert _native.layer_stats(nothing, "float32", np.array([0]), 4).shape == (5, 0)
        assert not _native.layer_stats(nothing, "float32", np.array([0, 0, 0]), 4).any()
        assert _native.layer_stats_list([], [], 4).shape == (5, 0)
        _native.accumulate_(nothing, nothing.copy(), None, "float32", 1.0, None, 4)
        _native.masked_apply_(nothing, nothing.copy(), np.array([0, 0]), np.array([True]), "float32", 1.0, 4)

    def test_absurdly_many_threads(self) -> None:
        delta = np.ones(10_000_000, dtype=np.float32)
        moments = _native.layer_stats(delta, "float32", np.array([0, delta.size]), 2**31 - 1)
        assert moments[:, 0].tolist() == [delta.size, 1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("size", [0, 1, 2, 15, 16, 33, 200_001])
def test_the_read_loop_reads_everything(size: int, rng: np.random.Generator) -> None:
    values = rng.normal(size=size).astype(np.float32)
    words = values[: size // 2 * 2].view(np.uint64)
    for threads in THREADS:
        assert _native.read_loop(values, threads) == np.bitwise_xor.reduce(words, initial=0)


def test_other_layers_are_not_touched() -> None:
    """They are not even rewritten with their own values, because their memory may be read-only."""
    params = torch.full((3 * TILE,), math.nan, dtype=torch.float32)
    signalling = np.frombuffer(np.array([0x7F800001], dtype=np.uint32).tobytes(), dtype=np.float32)[0]
    raw = params.numpy().view(np.uint32)
    raw[:] = 0x7F800001
    assert math.isnan(signalling)
    delta = torch.ones(3 * TILE)
    params[TILE : 2 * TILE] = 1.0
    native.masked_apply_(params, delta, offsets_of([TILE] * 3), torch.tensor([False, True, False]), 0.5)
    assert (raw[:TILE] == 0x7F800001).all()
    assert (raw[2 * TILE :] == 0x7F800001).all()
    assert (params[TILE : 2 * TILE] == 1.5).all()
