"""What a build costs: slim, full and stock headers, precompiled, beside the stock headers as torch itself compiles them.

    python benchmarks/build.py [--kernels 5]

Each kernel is compiled and linked anew in each way, in turn. Times are wall seconds; one compiler runs at a time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from kernel_env.builder import Builder, BuildRequest
from kernel_env.builder.compiler import Spent
from kernel_env.builder.service import FULL, SLIM, STOCK

BODIES = (
    "auto y = torch::empty_like(x); for (int64_t i = 0; i < n; ++i) y.data_ptr<float>()[i] = std::tanh(a[i]) * 0.5f; return y;",
    "float s = 0; for (int64_t i = 0; i < n; ++i) s += a[i] * a[i]; return torch::full({1}, s, x.options());",
    "auto y = torch::zeros({n}, x.options()); std::copy(a, a + n, y.data_ptr<float>()); return y;",
    "auto y = torch::empty({n}, x.options().dtype(torch::kFloat64)); std::copy(a, a + n, y.data_ptr<double>()); return y;",
    "auto y = x.clone(); std::sort(y.data_ptr<float>(), y.data_ptr<float>() + n); return y;",
)


class Way(Builder):
    """A builder that knows one way only."""

    def __init__(self, cache_dir: Path, name: str, *, precompiled: bool = True) -> None:
        super().__init__(cache_dir)
        self.name, self.precompiled = name, precompiled

    def prelude(self, name: str = FULL) -> Path | None:
        return super().prelude(name) if self.precompiled else None

    def _attempted(self, request: BuildRequest, work: Path, module: str, spent: Spent) -> tuple[str, str]:  # type: ignore[override]
        return self._compile_and_link(request, work, module, self.name, spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=int, default=len(BODIES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        ways = {
            "slim": Way(Path(directory) / "1", SLIM),
            "full": Way(Path(directory) / "2", FULL),
            "stock, precompiled": Way(Path(directory) / "3", STOCK),
            "stock, as torch does": Way(Path(directory) / "4", STOCK, precompiled=False),
        }
        for name, way in ways.items():
            started = time.perf_counter()
            if way.prelude(way.name):
                print(f"{name}: headers precompiled in {time.perf_counter() - started:.1f} s")
        times: dict[str, list[float]] = {name: [] for name in ways}
        for index in range(arguments.kernels):
            body = BODIES[index % len(BODIES)]
            text = (
                f"torch::Tensor f(torch::Tensor x) {{ int64_t n = x.numel(); float* a = x.data_ptr<float>(); {body} }} // {index}"
            )
            for name, way in ways.items():
                started = time.perf_counter()
                made = way.build(BuildRequest((("kernel.cpp", text),), (("f", ""),)))
                times[name].append(time.perf_counter() - started)
                if not made.ok:
                    raise SystemExit(f"{name}: {made.log}")
        base = statistics.median(times["stock, as torch does"])
        print(f"{arguments.kernels} kernels; median seconds, and how much faster than the last:")
        for name, found in times.items():
            print(f"{name:>22}  {statistics.median(found):6.2f}  {base / statistics.median(found):5.1f}x")


if __name__ == "__main__":
    main()
