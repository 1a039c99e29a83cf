# SPDX-License-Identifier: Apache-2.0
"""PyTorch's products beside gptq-cuda-bench's: 4-bit tinygemm (torch._weight_int4pack_mm) and float16 by cuBLASLt, on a GPU.

Likewise a CUDA graph of products with different weights, 512 MB of them, replayed without waiting; median of 7.
"""
import argparse
import statistics
import time

import torch


def timed(graph, products):
    def once(replays):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(replays):
            graph.replay()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    once(1)
    replays = int(min(max(10e-3 / once(1), 1), 50))
    return statistics.median(once(replays) / replays for _ in range(7)) / products


def seconds(weights, product):
    product(weights[0])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for w in weights:
            product(w)
    return timed(graph, len(weights))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1,4,16,64")
    parser.add_argument("--shapes", default="4096x4096,28672x4096,4096x14336", help="OUTPUTSxINPUTS")
    parser.add_argument("--group-size", type=int, default=128)
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    print("| by | outputs x inputs | rows | us | GB/s | TFLOP/s |\n|---|---|---|---|---|---|")
    for shape in options.shapes.split(","):
        n, k = map(int, shape.split("x"))
        group = options.group_size
        quantized = []
        for _ in range(min(max((512 << 20) // (n * k // 2), 2), 64)):
            codes = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device="cuda")
            scales = torch.rand(k // group, n, 2, device="cuda").to(torch.bfloat16)
            quantized.append((torch.ops.aten._convert_weight_to_int4pack(codes, 8), scales))
        halves = [torch.randn(n, k, device="cuda", dtype=torch.float16) for _ in range(min(max((512 << 20) // (n * k * 2), 2), 64))]
        for rows in map(int, options.rows.split(",")):
            x = torch.randn(rows, k, device="cuda")
            b, h = x.to(torch.bfloat16), x.to(torch.float16)
            for name, weights, bytes_, product in (
                ("tinygemm", quantized, n * k / 2 + n * k / group * 4, lambda w: torch.ops.aten._weight_int4pack_mm(b, w[0], group, w[1])),
                ("float16", halves, n * k * 2, lambda w: torch.nn.functional.linear(h, w)),
            ):
                s = seconds(weights, product)
                print(f"| {name} | {shape} | {rows} | {s * 1e6:.1f} | {bytes_ / s / 1e9:.0f} | {2 * rows * n * k / s / 1e12:.1f} |", flush=True)


main()
