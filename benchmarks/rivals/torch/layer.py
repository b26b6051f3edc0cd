"""The two products around latent attention as PyTorch runs them (cuBLAS, batched over heads), in a CUDA graph, weights of 16 layers in
turn: what `flashmla bench layer` is held against. Prints microseconds for each shape, and one JSON line. Rotary embedding, norm
and append are not counted.

    python3 benchmarks/rivals/torch/layer.py
"""
import json

import torch

LAYERS, CALLS, ROUNDS = 16, 32, 21
LATENT, NOPE, VALUE = 512, 128, 128


def median_microseconds(step):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for layer in range(LAYERS):
            step(layer)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in range(CALLS):
            step(call % LAYERS)
    graph.replay()
    times = []
    for _ in range(ROUNDS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / CALLS)
    return sorted(times)[ROUNDS // 2]


def measure(heads, batch):
    make = lambda *shape: torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.05
    absorb = [make(heads, NOPE, LATENT) for _ in range(LAYERS)]
    project = [make(heads, LATENT, VALUE) for _ in range(LAYERS)]
    q, attended = make(heads, batch, NOPE), make(heads, batch, LATENT)
    absorbed, values = make(heads, batch, LATENT), make(heads, batch, VALUE)

    def step(layer):
        torch.bmm(q, absorb[layer], out=absorbed)
        torch.bmm(attended, project[layer], out=values)

    return {"heads": heads, "batch": batch, "microseconds": median_microseconds(step)}


results = [measure(*shape) for shape in ((128, 1), (16, 1), (128, 8), (128, 32), (16, 32))]
for result in results:
    print(f"h={result['heads']} b={result['batch']}: {result['microseconds']:.1f} µs for both products")
print(json.dumps({"name": "torch-layer", "device": torch.cuda.get_device_name(), "torch": torch.__version__, "results": results}))
