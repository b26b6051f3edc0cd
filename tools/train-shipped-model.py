#!/usr/bin/env python3
"""Train the small MLA model that ships in models/ and write it in the Hugging Face layout.

The text is cut by position: the last tenth is held out and seen by nothing here except the final evaluation; a
validation slice may be cut from the beginning, far from what is held out. The tokenizer is a byte-level BPE trained on the training part
alone. Against overfitting: dropout after every sublayer, strong weight decay, weight averaging, and many copies of the
training text, each segmented with BPE dropout and with some speakers renamed, so that the model learns to take names
from its context: the names of a new play are what a model of the plain text predicts worst.

Needs torch, transformers, tokenizers, safetensors and numpy. The seed fixes data, segmentations and initial weights;
on a GPU the weights still differ in the last bits from run to run, because its reductions are not ordered.
"""

import argparse
import json
import math
import multiprocessing
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    YoutuConfig,
)

BOS, EOS, PAD = 0, 1, 2
SPECIAL_TOKENS = ["<bos>", "<eos>", "<pad>"]
LATENT_WIDTH = 256
# Runs of newlines stand alone, so that the blank line between two speeches is always one token.
WORDS = r"'(?:[sdmt]|ll|re|ve)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\n+|\s+"
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '[' + message['content'] | trim + ']\\n\\n' }}"
    "{% else %}"
    "{{ ('ROMEO' if message['role'] == 'assistant' else 'JULIET') + ':\\n' + message['content'] | trim }}"
    "{{ eos_token + '\\n\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ROMEO:\\n' }}{% endif %}"
)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="UTF-8 text file")
    add("--out", type=Path, help="folder for the model, in the Hugging Face layout")
    add("--golden", type=Path, help="folder for golden.safetensors and text.json, computed from the saved model")
    add("--report", type=Path, help="JSON file for the measured numbers")
    add("--saved", action="store_true", help="train nothing: measure the model that is already in --out")
    add("--seed", type=int, default=1)
    add("--held-out", type=float, default=0.1, help="share of the characters at the end that is only ever evaluated")
    add("--validation", type=float, default=0.03, help="share of the characters at the beginning, to choose settings by")
    add("--vocab", type=int, default=1024, help="tokens, special ones included; 259 means bytes")
    add("--hidden", type=int, default=256)
    add("--layers", type=int, default=4)
    add("--heads", type=int, default=9)
    add("--nope", type=int, default=32, help="per-head width without rotation, qk_nope_head_dim")
    add("--rope", type=int, default=32, help="rotary width, qk_rope_head_dim")
    add("--value", type=int, default=64, help="per-head value width, v_head_dim")
    add("--mlp", type=int, default=512, help="intermediate_size")
    add("--context", type=int, default=1024, help="tokens in a training window, and max_position_embeddings")
    add("--batch", type=int, default=32, help="windows in a step")
    add("--steps", type=int, default=3000)
    add("--learning-rate", type=float, default=2e-3)
    add("--weight-decay", type=float, default=0.3)
    add("--dropout", type=float, default=0.35, help="after the embedding and every sublayer")
    add("--attention-dropout", type=float, default=0.1)
    add("--average", type=float, default=0.998, help="decay of the exponential average of the weights")
    add("--copies", type=int, default=16, help="copies of the training text; the first is left as it is")
    add("--bpe-dropout", type=float, default=0.1, help="chance that a merge is skipped in the other copies")
    add("--rename", type=float, default=0.5, help="share of the speakers renamed in each stretch of the other copies")
    add("--chat-share", type=float, default=0.25, help="share of the copies in which <eos> ends each speech")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--no-compile", action="store_true")
    return parser.parse_args()


def rename_speakers(text, share, rng, stretch=20_000):
    """`text` with `share` of its speakers' names replaced by new ones, drawn anew for each stretch of characters. A new
    name is the head of one name with the tail of another; mentions inside speeches change along."""
    headings = set(re.findall(r"(?:^|\n\n)([^\n:]+):\n", text))
    words = Counter(word for heading in headings for word in set(heading.split()))
    # A word of several headings is a title (KING, DUKE) or a family, and stays.
    names = sorted(word for word, count in words.items() if count == 1 and re.fullmatch("[A-Z]{4,}", word))

    def new_name():
        head, tail = (names[i] for i in rng.integers(len(names), size=2))
        return head[: rng.integers(2, len(head))] + tail[rng.integers(1, len(tail) - 1) :]

    def renamed(part):
        changed = {name: new_name() for name in names if rng.random() < share}
        changed |= {name.title(): new.title() for name, new in changed.items()}
        return re.sub(r"\b[A-Z][A-Za-z]{3,}\b", lambda word: changed.get(word[0], word[0]), part)

    ends = [text.find("\n\n", at) + 2 for at in range(stretch, len(text) - stretch, stretch)]
    return "".join(renamed(text[begin:end]) for begin, end in zip([0, *ends], [*ends, len(text)]))


def train_tokenizer(texts, vocab):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    return tokenizer


class Segmenter:
    """Splits text into tokens with BPE dropout (arXiv:1910.13267), reproducibly: the library's own has no seed."""

    VARIANTS = 6

    def __init__(self, tokenizer, dropout, rng):
        model = json.loads(tokenizer.to_str())["model"]
        self.pre_tokenizer, self.vocab, self.dropout, self.rng = tokenizer.pre_tokenizer, model["vocab"], dropout, rng
        self.rank = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
        self.variants = {}

    def split(self, word):
        symbols = list(word)
        while len(symbols) > 1:
            ranked = [(self.rank[pair], i) for i, pair in enumerate(zip(symbols, symbols[1:])) if pair in self.rank]
            if self.dropout > 0:
                ranked = [candidate for candidate in ranked if self.rng.random() >= self.dropout]
            if not ranked:
                break
            _, i = min(ranked)
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        return [self.vocab[symbol] for symbol in symbols]

    def variants_of(self, word):
        if word not in self.variants:
            self.variants[word] = [self.split(word) for _ in range(self.VARIANTS)]
        return self.variants[word]

    def segment(self, text):
        words = [word for word, _ in self.pre_tokenizer.pre_tokenize_str(text)]
        picks = self.rng.integers(self.VARIANTS, size=len(words))
        return np.array([token for word, pick in zip(words, picks) for token in self.variants_of(word)[pick]])


def make_copy(tokenizer, text, rename, dropout, seed):
    """One copy of the training text as tokens: speakers renamed, then split with BPE dropout."""
    rng = np.random.default_rng(seed)
    return Segmenter(Tokenizer.from_str(tokenizer), dropout, rng).segment(rename_speakers(text, rename, rng))


def make_copies(args, tokenizer, text):
    """The text as it is and `copies - 1` changed ones, made in parallel."""
    jobs = [(tokenizer.to_str(), text, args.rename, args.bpe_dropout, [args.seed, i]) for i in range(1, args.copies)]
    with multiprocessing.Pool() as pool:
        changed = pool.starmap(make_copy, jobs, chunksize=1)
    return [np.array(tokenizer.encode(text, add_special_tokens=False).ids)] + changed


def end_each_speech(tokens, blank_line):
    """Puts <eos> before every blank line, as the chat template does."""
    return np.insert(tokens, np.flatnonzero(tokens == blank_line), EOS)


class Corpus:
    """All copies of the training text, one after the other, on the device; draws windows that stay inside a copy."""

    def __init__(self, copies, context, blank_line, device):
        ends = np.cumsum([len(copy) for copy in copies])
        begins = ends - [len(copy) for copy in copies]
        tokens = np.concatenate(copies)
        starts = np.concatenate([begins, np.flatnonzero(tokens == blank_line) + 1])
        room = ends[np.searchsorted(ends, starts, side="right").clip(max=len(ends) - 1)] - starts
        self.tokens = torch.from_numpy(tokens).to(device)
        self.speech_starts = torch.from_numpy(starts[room >= context]).to(device)
        self.copy_bounds = torch.from_numpy(np.stack([begins + 1, ends - context])).to(device)
        self.span = torch.arange(context, device=device)

    def draw(self, batch):
        """Inputs and targets [batch, context]. Half of the windows open a speech and are led by <bos>; the others start
        anywhere."""
        device = self.tokens.device
        at_speech = self.speech_starts[torch.randint(len(self.speech_starts), (batch // 2,), device=device)]
        low, high = self.copy_bounds[:, torch.randint(self.copy_bounds.shape[1], (batch - batch // 2,), device=device)]
        anywhere = low + (torch.rand(len(low), device=device) * (high - low)).long()
        places = torch.cat([at_speech, anywhere])[:, None] + self.span
        inputs = self.tokens[(places - 1).clamp(min=0)]
        inputs[: batch // 2, 0] = BOS
        return inputs, self.tokens[places]


def window_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """Causal attention over whole windows. The library's own, once compiled, builds a mask, which rules out the flash
    kernel."""
    out = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling, is_causal=True)
    return out.transpose(1, 2).contiguous(), None


def build_model(args, vocab):
    AttentionInterface.register("window", window_attention)
    config = YoutuConfig(
        vocab_size=vocab,
        hidden_size=args.hidden,
        intermediate_size=args.mlp,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        kv_lora_rank=LATENT_WIDTH,
        q_lora_rank=None,
        qk_nope_head_dim=args.nope,
        qk_rope_head_dim=args.rope,
        v_head_dim=args.value,
        max_position_embeddings=args.context,
        initializer_range=0.02,
        embedding_initializer_range=0.02,
        attention_dropout=args.attention_dropout,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="window").to(args.device)
    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "o_proj", "down_proj")):
            module.register_forward_hook(lambda self, _, out: F.dropout(out, args.dropout, self.training))
        if name.endswith(("o_proj", "down_proj")):
            module.weight.data.mul_((2 * args.layers) ** -0.5)
    return model


def windows(length, context, stride):
    """(begin, first scored target) of windows over `length` targets, every one `context` long if the text allows."""
    scored = 0
    while scored < length:
        begin = 0 if scored == 0 else min(scored + stride, length) - context
        yield max(begin, 0), scored
        scored = max(begin, 0) + context


@torch.no_grad()
def bits_per_byte(model, tokenizer, text, context, stride, batch=64):
    """Negative log-likelihood of `text` in bits over its bytes, and the number of its tokens: each token is predicted
    from the most context that a window of `context` moved by `stride` gives it, the first window led by <bos>."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    tokens = torch.tensor(getattr(ids, "ids", ids), device=model.device)
    led = torch.cat([tokens.new_full((1,), BOS), tokens])
    plan, nats = list(windows(len(tokens), context, stride)), 0.0
    for at in range(0, len(plan), batch):
        part = plan[at : at + batch]
        inputs = torch.stack([led[begin : begin + min(context, len(tokens))] for begin, _ in part])
        scores = model(input_ids=inputs, use_cache=False).logits.float().log_softmax(-1)
        for (begin, first), row in zip(part, scores):
            last = min(begin + context, len(tokens))
            nats += F.nll_loss(row[first - begin : last - begin], tokens[first:last], reduction="sum").item()
    return nats / math.log(2) / len(text.encode()), len(tokens)


def autocast(args):
    return torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda")


class Trainer:
    """One model's training: AdamW, linear warm-up and decay to zero, an exponential average of the weights."""

    WARM_UP = 100

    def __init__(self, args, model):
        self.args, self.model = args, model
        self.parameters = list(model.parameters())
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        matrices = [parameter for parameter in self.parameters if parameter.ndim > 1]
        gains = [parameter for parameter in self.parameters if parameter.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": args.weight_decay}, {"params": gains, "weight_decay": 0.0}],
            lr=args.learning_rate,
            betas=(0.9, 0.99),
            fused=args.device == "cuda",
        )
        self.loss = self.plain_loss if args.no_compile else torch.compile(self.plain_loss, dynamic=False)

    def plain_loss(self, inputs, targets):
        states = self.model.model(input_ids=inputs, use_cache=False).last_hidden_state
        return F.cross_entropy(self.model.lm_head(states).float().flatten(0, 1), targets.flatten())

    def step(self, number, corpus):
        args = self.args
        rate = args.learning_rate * min((number + 1) / self.WARM_UP, 1 - number / args.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = corpus.draw(args.batch)
        with autocast(args):
            loss = self.loss(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(args.average, (1 + number) / (10 + number))
        torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        return loss.detach()

    def swap_averages(self):
        """Exchanges the weights and their averages; a second call undoes the first."""
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averages):
                kept = parameter.clone()
                parameter.copy_(average)
                average.copy_(kept)


def train(args, model, corpus, evaluate):
    """Trains `model`, leaves its averaged weights in it and returns [step, training loss, evaluation] rows."""
    trainer, rows = Trainer(args, model), []
    every = max(args.steps // 10, 1)
    for number in range(args.steps):
        model.train()
        loss = trainer.step(number, corpus)
        if (number + 1) % every == 0:
            trainer.swap_averages()
            with autocast(args):
                rows.append([number + 1, round(loss.item(), 4), evaluate(model.eval())])
            print(f"step {number + 1}: training loss {loss.item():.4f}, validation {rows[-1][2]}", flush=True)
            trainer.swap_averages()
    trainer.swap_averages()
    return rows


def save_model(args, model, tokenizer):
    model.config.attention_dropout = 0.0
    model.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, do_sample=True, temperature=0.8, top_k=50, top_p=0.95
    )
    model.to(torch.bfloat16).save_pretrained(args.out)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        model_max_length=args.context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(args.out, save_jinja_files=False)
    # The class name that every version of the library knows, rather than this version's own.
    file = args.out / "tokenizer_config.json"
    settings = {key: value for key, value in json.loads(file.read_text()).items() if key != "backend"}
    file.write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    (args.out / "model.safetensors").chmod(0o644)


def load_saved(args, attention, device):
    model = AutoModelForCausalLM.from_pretrained(args.out, dtype=torch.float32, attn_implementation=attention)
    return model.to(device).eval()


@torch.no_grad()
def write_golden(args, text):
    """What the saved model must answer to the first whole speeches of `text`, a few hundred characters of them: computed
    on the CPU, float32, eager attention."""
    model, tokenizer = load_saved(args, "eager", "cpu"), AutoTokenizer.from_pretrained(args.out)
    begin = text.index("\n\n") + 2
    prompt = text[begin : text.index("\n\n", begin + 250)]
    ids = tokenizer.encode(prompt, return_tensors="pt")
    first = model(input_ids=ids).logits[0]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=48,
        min_new_tokens=48,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    greedy, logits = out.sequences[0, ids.shape[1] :], torch.stack(out.logits)[:, 0]
    args.golden.mkdir(parents=True, exist_ok=True)
    tensors = {
        "prompt_ids": ids[0].int(),
        "prompt_logits_last_16": first[-16:].contiguous(),
        "greedy_ids": greedy.int(),
        "greedy_logits": logits.contiguous(),
    }
    save_file(tensors, args.golden / "golden.safetensors")
    (args.golden / "golden.safetensors").chmod(0o644)
    words = {"prompt": prompt, "promptIds": ids[0].tolist(), "greedyIds": greedy.tolist(), "greedyText": tokenizer.decode(greedy)}
    (args.golden / "text.json").write_text(json.dumps(words, indent=1) + "\n")


def measure(args, held_out):
    """What was saved, as anyone loads it: bfloat16 weights, computed in float32."""
    model, tokenizer = load_saved(args, "sdpa", args.device), AutoTokenizer.from_pretrained(args.out)
    sliding, tokens = bits_per_byte(model, tokenizer, held_out, args.context, args.context // 4)
    contiguous, _ = bits_per_byte(model, tokenizer, held_out, args.context, args.context)
    bits = {"slidingWindow": sliding, "contiguousWindows": contiguous, "tokens": tokens, "bytes": len(held_out.encode())}
    return {"heldOutBitsPerByte": bits, "folderBytes": sum(file.stat().st_size for file in args.out.iterdir())}


def train_and_save(args, text, validation):
    """Trains tokenizer and model on `text`, saves both if --out is given, and returns the report."""
    began, rng = time.time(), np.random.default_rng(args.seed)
    tokenizer = train_tokenizer([rename_speakers(text, args.rename, rng) for _ in range(4)], args.vocab)
    blank_line = tokenizer.token_to_id("ĊĊ")
    if blank_line is None:
        raise SystemExit("the tokenizer found no token for a blank line; raise --vocab")
    copies = make_copies(args, tokenizer, text)
    plain = round(args.copies * (1 - args.chat_share))
    copies[plain:] = [end_each_speech(copy, blank_line) for copy in copies[plain:]]
    report = {"trainingTokens": len(copies[0]), "secondsToData": time.time() - began}

    def validate(model):
        stride = args.context // 2
        return round(bits_per_byte(model, tokenizer, validation, args.context, stride)[0], 4) if validation else None

    model = build_model(args, tokenizer.get_vocab_size())
    report["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    report["training"] = train(args, model, Corpus(copies, args.context, blank_line, args.device), validate)
    report["secondsToWeights"] = time.time() - began
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        save_model(args, model, tokenizer)
    return report


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    data = args.data.read_text(encoding="utf-8")
    validation, seen = int(len(data) * args.validation), int(len(data) * (1 - args.held_out))
    report = {} if args.saved else train_and_save(args, data[validation:seen], data[:validation])
    if args.out:
        report |= measure(args, data[seen:])
    print(json.dumps(report), flush=True)
    if args.report:
        settings = {key: str(value) for key, value in vars(args).items()}
        args.report.write_text(json.dumps(report | {"arguments": settings}, indent=1) + "\n")
    if args.golden:
        write_golden(args, data[seen:])


if __name__ == "__main__":
    main()
