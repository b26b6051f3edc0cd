"""Writes the golden files beside it with Hugging Face's tokenizers and transformers: `python make-golden.py CORPUS.txt`.

tokenizer.json and tokenizer-golden.json are older and not written by this script.
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

here = Path(__file__).parent
corpus = Path(sys.argv[1]).read_text()[:200_000].splitlines()
random.seed(1)

texts = [
    "",
    " ",
    "To be, or not to be: that is the question.",
    "  leading spaces\n\nand\tTabs  ",
    "naïve café — 東京 🚀 👩‍👩‍👧",
    "don't 'tis we've I'm 1234567 x=3.14;",
    "<bos>hello<eos>",
    "e\u0301 \u00e9 \ufeffbom \u00a0nbsp",
]


def byte_fallback():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<bos>", "<eos>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    tokenizer.pre_tokenizer = None
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = saved["added_tokens"][:3]
    return Tokenizer.from_str(json.dumps(saved))


def metaspace():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<bos>", "<eos>"], show_progress=False)
    tokenizer.train_from_iterator((word for line in corpus for word in line.split(" ")), trainer)
    return tokenizer


def byte_level_split():
    tokenizer = Tokenizer(models.BPE())
    punctuation = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
            pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
            pre_tokenizers.Split(Regex(punctuation), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return tokenizer


def cases(tokenizer):
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        yield {
            "text": text,
            "ids": ids,
            "idsWithSpecial": tokenizer.encode(text).ids,
            "shown": tokenizer.decode(ids, skip_special_tokens=False),
            "skipped": tokenizer.decode(ids),
        }


def random_ids(tokenizer, invalid):
    size = tokenizer.get_vocab_size()
    made = []
    while len(made) < 8:
        ids = [random.randrange(3, size) for _ in range(24)]
        shown = tokenizer.decode(ids, skip_special_tokens=False)
        if invalid or "\ufffd" not in shown:
            made.append({"ids": ids, "shown": shown})
    return made


def write(name, tokenizer, invalid=True, **config):
    named = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", **config}
    golden = {
        "tokenizer": json.loads(tokenizer.to_str()),
        "config": named,
        "cases": list(cases(tokenizer)),
        "random": random_ids(tokenizer, invalid),
    }
    (here / f"{name}.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")


chat_template = """{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif -%}
{%- set ns = namespace(system='', calls=0) -%}
{%- for message in messages if message['role'] == 'system' -%}
    {%- set ns.system = ns.system + message.content | trim -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system }}
{%- if tools %}

Tools of {{ strftime_now('%d %B %Y') }}:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
{%- endif %}
{%- macro turn(name, text) -%}
<|{{ name | capitalize }}|>{{ text }}
{%- endmacro %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
{{ turn('user', message.content) }}
    {%- elif message.role == 'assistant' %}
        {%- if message.tool_calls is defined and message.tool_calls is not none %}
            {%- for call in message.tool_calls %}
                {%- set ns.calls = ns.calls + 1 %}
<|Call {{ loop.index }}/{{ loop.length }}|>{{ call.function.name }}{{ call.function.arguments | tojson(indent=2) }}
            {%- endfor %}
        {%- else %}
{{ turn('assistant', message.content.split('</think>')[-1]) }}{{ eos_token }}
        {%- endif %}
    {%- elif message.role not in ['system', 'tool'] %}
{{ raise_exception('Unknown role: ' + message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|Assistant|>{% if enable_thinking is defined and not enable_thinking %}</think>{% endif %}{% endif %}
"""

conversations = {
    "one-turn": {"messages": [{"role": "user", "content": "Hello <b>東京</b> 🚀"}]},
    "system-and-history": {
        "messages": [
            {"role": "system", "content": " Be brief. "},
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "<think>hm</think>2"},
            {"role": "user", "content": "Sure?"},
        ],
        "enable_thinking": False,
    },
    "tools": {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2], "full": True, "unit": None}}}
                ],
            },
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}],
        "add_generation_prompt": False,
    },
}


def write_chats(tokenizer):
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")
    rendered = {}
    for name, conversation in conversations.items():
        given = {"add_generation_prompt": True, **conversation}
        template = chat_template.replace("strftime_now('%d %B %Y')", "'03 February 2026'")
        text = wrapped.apply_chat_template(given.pop("messages"), chat_template=template, tokenize=False, **given)
        rendered[name] = {**conversation, "text": text}
    golden = {"template": chat_template, "now": [2026, 1, 3], "conversations": rendered}
    (here / "chat-template-golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


write("byte-fallback-golden", byte_fallback(), invalid=False)
write("metaspace-golden", metaspace())
write("byte-level-split-golden", byte_level_split())
write_chats(byte_level_split())
