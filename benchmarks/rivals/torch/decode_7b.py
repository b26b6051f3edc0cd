"""Decode steps of a 7B with every head's keys and values cached, by PyTorch and Transformers, eager, bf16, random weights.

python3 decode_7b.py [batch x cached tokens ...]; prints one JSON object. Only the model's forward is timed, with the next token taken
from its logits on the device: what `flashmla bench model --shape mha-7b` and `mla-7b` are put beside.
"""

import json
import sys
import time

import torch
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
    cells = [tuple(map(int, cell.split("x"))) for cell in sys.argv[1:] or ["1x4096", "8x4096"]]
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    decode = []
    for batch, tokens in cells:
        torch.cuda.reset_peak_memory_stats()
        milliseconds = decode_ms(model, batch, tokens)
        peak = torch.cuda.max_memory_allocated()
        decode.append({"batch": batch, "cachedTokens": tokens, "milliseconds": milliseconds, "peakBytes": peak})
    result = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__, "transformers": transformers.__version__,
        "attention": model.config._attn_implementation, "decode": decode,
        "prefill": {"tokens": 4096, "milliseconds": prefill_ms(model, 4096)},
    }
    print(json.dumps(result))


main()
