"""Decode steps of a 7B with every head's keys and values cached, by PyTorch, bf16, random weights: Transformers' forward, eager, and the
same layers in plain PyTorch operations as one CUDA graph.

python3 decode_7b.py [--graph] [batch x cached tokens ...]; prints one JSON object; --graph leaves out what is eager. Only the model's forward is timed, with the next token taken
from its logits on the device: what `flashmla bench model --shape mha-7b` and `mla-7b` are put beside.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
import transformers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

STEPS = 20

config = LlamaConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, max_position_embeddings=65536,
)


def random_cache(batch: int, tokens: int) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(config.num_hidden_layers):
        shape = (batch, 32, tokens, 128)
        keys = torch.randn(shape, dtype=torch.bfloat16, device="cuda")
        cache.update(keys, torch.randn_like(keys), layer)
    return cache


@torch.inference_mode()
def decode_ms(model: LlamaForCausalLM, batch: int, tokens: int) -> float:
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

    def __init__(self, model: LlamaForCausalLM, batch: int, tokens: int):
        self.model, self.tokens = model, tokens
        shape = (batch, 32, tokens + 1, 128)
        device = model.lm_head.weight.device
        self.caches = [[torch.randn(shape, dtype=torch.bfloat16, device=device) for _ in "kv"] for _ in model.model.layers]
        self.ids = torch.randint(0, config.vocab_size, (batch, 1), device=device)
        angles = tokens / 10000 ** (torch.arange(64, device=device, dtype=torch.float32) / 64)
        self.cos, self.sin = (f(angles).repeat(2).to(torch.bfloat16) for f in (torch.cos, torch.sin))

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.cos + torch.cat((-x[..., 64:], x[..., :64]), dim=-1) * self.sin

    def norm(self, x: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], module.weight, config.rms_norm_eps)

    @torch.inference_mode()
    def logits(self) -> torch.Tensor:
        h = self.model.model.embed_tokens(self.ids)
        for layer, (keys, values) in zip(self.model.model.layers, self.caches):
            attention, x = layer.self_attn, self.norm(h, layer.input_layernorm)
            q, k, v = (proj(x).view(-1, 1, 32, 128).transpose(1, 2) for proj in (attention.q_proj, attention.k_proj, attention.v_proj))
            keys[:, :, self.tokens :] = self.rotate(k)
            values[:, :, self.tokens :] = v
            attended = F.scaled_dot_product_attention(self.rotate(q), keys, values)
            h = h + attention.o_proj(attended.transpose(1, 2).reshape(h.shape))
            x = self.norm(h, layer.post_attention_layernorm)
            h = h + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(x)) * layer.mlp.up_proj(x))
        return self.model.lm_head(self.norm(h, self.model.model.norm))

    def __call__(self) -> None:
        self.ids.copy_(self.logits()[:, -1:].argmax(-1))


@torch.inference_mode()
def graph_ms(model: LlamaForCausalLM, batch: int, tokens: int) -> float:
    step, stream, graph = PlainStep(model, batch, tokens), torch.cuda.Stream(), torch.cuda.CUDAGraph()
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


@torch.inference_mode()
def prefill_ms(model: LlamaForCausalLM, tokens: int) -> float:
    ids = torch.randint(0, 32000, (1, tokens), device="cuda")
    times = []
    for run in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        model(input_ids=ids, use_cache=True, logits_to_keep=1)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[2:])[1]


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--graph"]
    eager = "--graph" not in sys.argv
    cells = [tuple(map(int, cell.split("x"))) for cell in words or ["1x4096", "8x4096"]]
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    decode = []
    for batch, tokens in cells:
        torch.cuda.reset_peak_memory_stats()
        milliseconds = decode_ms(model, batch, tokens) if eager else None
        peak = torch.cuda.max_memory_allocated()
        graph = graph_ms(model, batch, tokens)
        decode.append({"batch": batch, "cachedTokens": tokens, "milliseconds": milliseconds, "graphMilliseconds": graph, "peakBytes": peak})
    result = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__, "transformers": transformers.__version__,
        "attention": model.config._attn_implementation, "decode": decode,
        "prefill": {"tokens": 4096, "milliseconds": prefill_ms(model, 4096)} if eager else None,
    }
    print(json.dumps(result))


main()
