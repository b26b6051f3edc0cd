"""What `flashmla bench layer` is held against, in CUDA graphs: the two products around latent attention as PyTorch runs them (cuBLAS,
batched over heads), and with a shared object of FlashMLA (benchmarks/rivals/flash-mla) its attention between them. Weights and caches
of 16 layers in turn. Rotary embedding, norm and append are not counted. Prints microseconds for each shape, and one JSON line.

    python3 benchmarks/rivals/torch/layer.py [build/flash-mla.so]
"""
import ctypes
import json
import sys

import torch

LAYERS, CALLS, ROUNDS = 16, 32, 21
LATENT, NOPE, VALUE, ENTRY, PAGE = 512, 128, 128, 576, 64
SCALE = 192**-0.5
GRID = ((128, 1, (512, 4096, 8192, 32768)), (16, 1, (512, 4096, 8192, 32768)), (128, 8, (512, 4096, 8192)),
        (128, 32, (512, 4096)), (16, 32, (512, 4096)))


class RivalCall(ctypes.Structure):
    """benchmarks/cuda/rival.h"""
    _fields_ = [(name, ctypes.c_int) for name in ("batch", "s_q", "heads", "longest", "table_width")] + [
        ("pages", ctypes.c_size_t)] + [(name, ctypes.c_void_p) for name in ("q", "cache", "lengths", "out", "lse", "scratch")] + [
        ("scale", ctypes.c_float), ("stream", ctypes.c_void_p)]


class Shape:
    """Weights, caches and activations of a shape; activations lie as FlashMLA and the products want them, with no copies between."""

    def __init__(self, heads, batch, length, stream):
        make = lambda *shape: torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
        self.heads, self.batch, self.length, self.stream = heads, batch, length, stream
        self.absorb = [make(heads, NOPE, LATENT) * 0.08 for _ in range(LAYERS)]
        self.project = [make(heads, LATENT, VALUE) * 0.05 for _ in range(LAYERS)]
        self.q_nope, self.q = make(heads, batch, NOPE), make(batch, heads, ENTRY)
        self.attended, self.values = make(batch, heads, LATENT), make(batch, heads, VALUE)
        self.absorbed = self.q[:, :, :LATENT].transpose(0, 1)

    def products(self, layer):
        torch.bmm(self.q_nope, self.absorb[layer], out=self.absorbed)
        torch.bmm(self.attended.transpose(0, 1), self.project[layer], out=self.values.transpose(0, 1))

    def plan(self, library):
        width = -(-self.length // PAGE)
        pages = self.batch * width
        self.caches = [torch.randn(pages, PAGE, ENTRY, device="cuda", dtype=torch.bfloat16) for _ in range(LAYERS)]
        self.table = torch.randperm(pages, device="cuda").to(torch.int32).view(self.batch, width)
        self.lengths = torch.full((self.batch,), self.length, device="cuda", dtype=torch.int32)
        self.lse = torch.empty(self.batch, self.heads, device="cuda")
        self.scratch = torch.empty((self.batch + 132) * self.heads * (LATENT + 1), device="cuda")
        library.rivalPlan.restype = ctypes.c_void_p
        pointers = [tensor.data_ptr() for tensor in (self.lengths, self.attended, self.lse, self.scratch)]
        torch.cuda.synchronize()
        self.plans = [library.rivalPlan(ctypes.byref(RivalCall(self.batch, 1, self.heads, self.length, width, pages, self.q.data_ptr(),
                      cache.data_ptr(), *pointers, SCALE, self.stream.cuda_stream)), ctypes.byref(ctypes.c_int()))
                      for cache in self.caches]
        self.library = library
        torch.cuda.synchronize()

    def layer(self, layer):
        torch.bmm(self.q_nope, self.absorb[layer], out=self.absorbed)
        self.library.rivalLaunch(ctypes.c_void_p(self.plans[layer]), ctypes.c_void_p(self.table.data_ptr()))
        torch.bmm(self.attended.transpose(0, 1), self.project[layer], out=self.values.transpose(0, 1))

    def error(self):
        """Largest error of the last sequence's values in layer 0, of the largest value, against float64."""
        self.values.fill_(float("nan"))
        with torch.cuda.stream(self.stream):
            self.layer(0)
        torch.cuda.synchronize()
        q = torch.bmm(self.q_nope[:, -1:].double(), self.absorb[0].double())[:, 0]
        q = torch.cat((q, self.q[-1, :, LATENT:].double()), dim=1)
        entries = self.caches[0][self.table[-1].long()].view(-1, ENTRY)[: self.length].double()
        latent = ((q @ entries.T) * SCALE).softmax(dim=1) @ entries[:, :LATENT]
        truth = torch.bmm(latent[:, None], self.project[0].double())[:, 0]
        return ((self.values[-1].double() - truth).abs().max() / truth.abs().max()).item()


def median_microseconds(step, stream):
    with torch.cuda.stream(stream):
        for layer in range(LAYERS):
            step(layer)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in range(CALLS):
            step(call % LAYERS)
    for _ in range(20):
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


def measure(heads, batch, length, library, stream):
    shape = Shape(heads, batch, length, stream)
    result = {"heads": heads, "batch": batch, "length": length, "productsMicroseconds": median_microseconds(shape.products, stream)}
    if library is not None:
        shape.plan(library)
        result["worstError"] = shape.error()
        if not result["worstError"] < 3e-2:
            sys.exit(f"wrong: {result}")
        result["microseconds"] = median_microseconds(shape.layer, stream)
    return result


def main():
    library = ctypes.CDLL(sys.argv[1]) if len(sys.argv) > 1 else None
    stream = torch.cuda.Stream()
    results = []
    for heads, batch, lengths in GRID:
        for length in lengths if library is not None else (0,):
            result = measure(heads, batch, length, library, stream)
            results.append(result)
            whole = f", {result['microseconds']:.1f} µs with FlashMLA between" if library is not None else ""
            print(f"h={heads} b={batch} s={length}: {result['productsMicroseconds']:.1f} µs for both products{whole}", flush=True)
    print(json.dumps({"name": "torch-layer", "device": torch.cuda.get_device_name(), "torch": torch.__version__, "results": results}))


main()
