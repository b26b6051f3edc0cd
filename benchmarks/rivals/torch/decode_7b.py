"""Decode steps of a 7B with every head's keys and values cached, by PyTorch, bf16, random weights: Transformers' forward, eager, and the
same layers in plain PyTorch operations as one CUDA graph, with every backend of its attention; the fastest one counts.

python3 decode_7b.py [--graph] [batch x cached tokens ...]; prints one JSON object; --graph leaves out what is eager. Only the model's forward is timed, with the next token taken
from its logits on the device: what `flashmla bench model --shape mha-7b` and `mla-7b` are put beside.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

STEPS = 20
WIDTH, MLP, LAYERS, VOCABULARY, EPSILON = 4096, 11008, 32, 32000, 1e-6


def random_cache(batch: int, tokens: int):
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(LAYERS):
        shape = (batch, 32, tokens, 128)
        keys = torch.randn(shape, dtype=torch.bfloat16, device="cuda")
        cache.update(keys, torch.randn_like(keys), layer)
    return cache


@torch.inference_mode()
def decode_ms(model, batch: int, tokens: int) -> float:
    cache = random_cache(batch, tokens)
    ids = torch.randint(0, 32000, (batch, 1), device="cuda")
    times = []
    for step in range(STEPS + 5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        ids = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[5:])[STEPS // 2]


class PlainStep:
    """One decode step over caches of fixed size in the fewest PyTorch operations: fused norms, scaled_dot_product_attention."""

    def __init__(self, batch: int, tokens: int, device: str = "cuda", layers: int = LAYERS):
        make = lambda *shape: torch.randn(*shape, dtype=torch.bfloat16, device=device) * 0.02
        self.tokens = tokens
        self.layers = [
            {
                **{name: make(WIDTH, WIDTH) for name in "qkvo"},
                **{"gate": make(MLP, WIDTH), "up": make(MLP, WIDTH), "down": make(WIDTH, MLP)},
                **{"keys": make(batch, 32, tokens + 1, 128), "values": make(batch, 32, tokens + 1, 128)},
            }
            for _ in range(layers)
        ]
        self.embedding, self.head = make(VOCABULARY, WIDTH), make(VOCABULARY, WIDTH)
        self.ones = torch.ones(WIDTH, dtype=torch.bfloat16, device=device)
        self.ids = torch.randint(0, VOCABULARY, (batch, 1), device=device)
        angles = tokens / 10000 ** (torch.arange(64, device=device, dtype=torch.float32) / 64)
        self.cos, self.sin = (f(angles).repeat(2).to(torch.bfloat16) for f in (torch.cos, torch.sin))

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.cos + torch.cat((-x[..., 64:], x[..., :64]), dim=-1) * self.sin

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.ones, EPSILON)

    @torch.inference_mode()
    def logits(self) -> torch.Tensor:
        h = F.embedding(self.ids, self.embedding)
        for layer in self.layers:
            x = self.norm(h)
            q, k, v = (F.linear(x, layer[name]).view(-1, 1, 32, 128).transpose(1, 2) for name in "qkv")
            layer["keys"][:, :, self.tokens :] = self.rotate(k)
            layer["values"][:, :, self.tokens :] = v
            attended = F.scaled_dot_product_attention(self.rotate(q), layer["keys"], layer["values"])
            h = h + F.linear(attended.transpose(1, 2).reshape(h.shape), layer["o"])
            x = self.norm(h)
            h = h + F.linear(F.silu(F.linear(x, layer["gate"])) * F.linear(x, layer["up"]), layer["down"])
        return F.linear(self.norm(h), self.head)

    def __call__(self) -> None:
        self.ids.copy_(self.logits()[:, -1:].argmax(-1))


@torch.inference_mode()
def replay_ms(step: PlainStep) -> float:
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        step()
    times = []
    for _ in range(STEPS + 5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[5:])[STEPS // 2]


def graph_ms(batch: int, tokens: int) -> dict:
    """Milliseconds of a replay, by the backend of scaled_dot_product_attention; "default" is the one that PyTorch takes by itself."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    step = PlainStep(batch, tokens)
    times = {"default": replay_ms(step)}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH):
        name = backend.name.split("_")[0].lower()
        try:
            with sdpa_kernel(backend):
                times[name] = replay_ms(step)
        except Exception as error:  # A backend that does not take these shapes, or cannot be captured, says so in its own way.
            print(f"{name}: {(str(error).splitlines() or [type(error).__name__])[0]}", file=sys.stderr, flush=True)
    return {"milliseconds": min(times.values()), "byBackend": times}


@torch.inference_mode()
def prefill_ms(model, tokens: int) -> float:
    ids = torch.randint(0, 32000, (1, tokens), device="cuda")
    times = []
    for run in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        model(input_ids=ids, use_cache=True, logits_to_keep=1)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[2:])[1]


def eager(cells: list[tuple[int, int]]) -> dict:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=32,
        num_key_value_heads=32, max_position_embeddings=65536,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config).eval()
    decode = []
    for batch, tokens in cells:
        torch.cuda.reset_peak_memory_stats()
        milliseconds = decode_ms(model, batch, tokens)
        peak = torch.cuda.max_memory_allocated()
        decode.append({"batch": batch, "cachedTokens": tokens, "milliseconds": milliseconds, "peakBytes": peak})
    return {
        "transformers": transformers.__version__, "attention": model.config._attn_implementation, "decode": decode,
        "prefill": {"tokens": 4096, "milliseconds": prefill_ms(model, 4096)},
    }


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--graph"]
    cells = [tuple(map(int, cell.split("x"))) for cell in words or ["1x4096", "8x4096"]]
    result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    if "--graph" not in sys.argv:
        result |= eager(cells)
    result["graph"] = []
    for batch, tokens in cells:
        result["graph"].append({"batch": batch, "cachedTokens": tokens, **graph_ms(batch, tokens)})
        print(result["graph"][-1], file=sys.stderr, flush=True)
    print(json.dumps(result))


main()
