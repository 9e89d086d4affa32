#!/usr/bin/env python3
"""Trains tests/models/tiny.gguf: a Llama of 0.9 M parameters on the prose of Python's own language reference.

    python3 -m venv /tmp/tiny && /tmp/tiny/bin/pip install -r tests/models/requirements.txt
    /tmp/tiny/bin/python tests/models/train.py tests/models/tiny.gguf

Takes under five minutes on two cores. It exists so that tests have a real model with a real tokenizer, a chat
template, words, and ends of answers; what it says is nonsense with a Pythonic accent.
"""

import functools
import random
import re
import sys
import time
from pydoc_data.topics import topics

import gguf
import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB, DIM, LAYERS, HEADS, KV_HEADS, FF, CONTEXT = 1024, 128, 4, 4, 2, 352, 512
HEAD = DIM // HEADS
ROPE_BASE, EPSILON = 10000.0, 1e-5
BATCH, LENGTH, SECONDS, MAX_STEPS = 12, 256, 270, 1400
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QUESTIONS = ["What is {}?", "Explain {}.", "Tell me about {}.", "How does {} work?", "Why {}?", "{}"]
STORY = "Write about {}."  # asks for a long answer, so that tests can have one


def sentences():
    """Plain sentences of the language reference, without code, tables and grammar."""
    found = []
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            if re.search(r"::=|>>>|\|\s|\+--|\*\*\*\*|====", paragraph):
                continue
            text = " ".join(paragraph.split())
            text = re.sub(r'[*`_"]+', "", text)
            text = re.sub(r"\s*\[[0-9]+\]", "", text)
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
                if 25 <= len(sentence) <= 180 and re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:'()-]*[.]", sentence):
                    found.append(sentence)
    return list(dict.fromkeys(found))


def conversations(lines, generator):
    """ChatML conversations: a question with words of the answer, and some sentences as the answer."""
    result = []
    for index, line in enumerate(lines):
        length = generator.choices([1, 2, 8], [5, 3, 1])[0]
        answer = " ".join(lines[index : index + length])
        words = [word for word in re.findall(r"[a-z]+", line.lower()) if len(word) > 3] or ["this"]
        start = generator.randrange(len(words))
        about = " ".join(words[start : start + generator.randint(1, 3)])
        question = (STORY if length > 2 else generator.choice(QUESTIONS)).format(about)
        question = question[0].upper() + question[1:]
        system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" if generator.random() < 0.2 else ""
        result.append(
            f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        )
    return result


def train_tokenizer(lines):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def init(key):
    shapes = {"embedding": (VOCAB, DIM), "norm": (DIM,)}
    for layer in range(LAYERS):
        shapes |= {
            f"{layer}.attn_norm": (DIM,),
            f"{layer}.q": (DIM, DIM),
            f"{layer}.k": (KV_HEADS * HEAD, DIM),
            f"{layer}.v": (KV_HEADS * HEAD, DIM),
            f"{layer}.o": (DIM, DIM),
            f"{layer}.ffn_norm": (DIM,),
            f"{layer}.gate": (FF, DIM),
            f"{layer}.up": (FF, DIM),
            f"{layer}.down": (DIM, FF),
        }
    keys = jax.random.split(key, len(shapes))
    weights = {}
    for (name, shape), k in zip(shapes.items(), keys):
        if len(shape) == 1:
            weights[name] = jnp.ones(shape)
        else:
            scale = 0.05 if name == "embedding" else shape[1] ** -0.5
            if name.endswith((".o", ".down")):
                scale /= (2 * LAYERS) ** 0.5
            weights[name] = jax.random.normal(k, shape) * scale
    return weights


def rms_norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPSILON) * weight


def rotate(x):
    """RoPE over neighbouring pairs, as GGUF's llama architecture has it."""
    positions = jnp.arange(x.shape[1])[:, None]
    angles = positions * ROPE_BASE ** (-jnp.arange(0, HEAD, 2) / HEAD)
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


def forward(weights, tokens):
    batch, length = tokens.shape
    x = weights["embedding"][tokens]
    mask = jnp.tril(jnp.ones((length, length), bool))
    for layer in range(LAYERS):
        w = lambda name: weights[f"{layer}.{name}"]
        h = rms_norm(x, w("attn_norm"))
        q = rotate((h @ w("q").T).reshape(batch, length, HEADS, HEAD))
        k = rotate((h @ w("k").T).reshape(batch, length, KV_HEADS, HEAD))
        v = (h @ w("v").T).reshape(batch, length, KV_HEADS, HEAD)
        k, v = (jnp.repeat(t, HEADS // KV_HEADS, 2) for t in (k, v))
        scores = jnp.einsum("bthd,bshd->bhts", q, k) * HEAD**-0.5
        scores = jax.nn.softmax(jnp.where(mask, scores, -1e30))
        x = x + jnp.einsum("bhts,bshd->bthd", scores, v).reshape(batch, length, DIM) @ w("o").T
        h = rms_norm(x, w("ffn_norm"))
        x = x + (jax.nn.silu(h @ w("gate").T) * (h @ w("up").T)) @ w("down").T
    return rms_norm(x, weights["norm"]) @ weights["embedding"].T


def loss_of(weights, tokens):
    logits = forward(weights, tokens[:, :-1])
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], -1)
    return -jnp.mean(chosen)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def step(weights, moments, tokens, index, rate):
    loss, gradient = jax.value_and_grad(loss_of)(weights, tokens)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradient)))
    gradient = jax.tree.map(lambda g: g / jnp.maximum(norm, 1.0), gradient)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
    second = jax.tree.map(lambda m, g: 0.98 * m + 0.02 * g * g, moments[1], gradient)
    a, b = 1 - 0.9 ** (index + 1), 1 - 0.98 ** (index + 1)

    def move(w, m, s):
        decay = 0.05 if w.ndim > 1 else 0.0
        return w - rate * (m / a / (jnp.sqrt(s / b) + 1e-8) + decay * w)

    return jax.tree.map(move, weights, first, second), (first, second), loss


def train(ids):
    generator = np.random.default_rng(2)
    weights = init(jax.random.key(3))
    zeros = lambda: jax.tree.map(jnp.zeros_like, weights)
    moments = (zeros(), zeros())
    start, progress, index = time.time(), 0.0, 0
    while progress < 1.0:
        rate = 4e-3 * min(1.0, (index + 1) / 50) * (1.0 - 0.97 * progress)
        at = generator.integers(0, len(ids) - LENGTH - 1, BATCH)
        tokens = jnp.asarray(np.stack([ids[a : a + LENGTH + 1] for a in at]))
        weights, moments, loss = step(weights, moments, tokens, index, rate)
        index += 1
        progress = max((time.time() - start) / SECONDS, index / MAX_STEPS)
        if index % 50 == 0:
            print(f"step {index}, {time.time() - start:.0f} s, loss {float(loss):.3f}", flush=True)
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def write(path, weights, tokenizer):
    import json

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Cocoon tiny")
    writer.add_license("Apache-2.0")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    model = json.loads(tokenizer.to_str())["model"]
    writer.add_token_list(sorted(model["vocab"], key=model["vocab"].get))
    writer.add_token_types([3] * len(SPECIAL) + [1] * (VOCAB - len(SPECIAL)))
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
    names |= {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, value in weights.items():
        if name == "embedding":
            target = "token_embd.weight"
        elif name == "norm":
            target = "output_norm.weight"
        else:
            layer, part = name.split(".")
            target = f"blk.{layer}.{names.get(part, part)}.weight"
        if value.ndim == 1:
            writer.add_tensor(target, value)
        else:
            writer.add_tensor(target, gguf.quants.quantize(value, q8), raw_dtype=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    path = sys.argv[1]
    generator = random.Random(1)
    lines = sentences()
    tokenizer = train_tokenizer(lines)
    ids = []
    for _ in range(4):  # each time with other questions and in another order
        texts = conversations(lines, generator)
        generator.shuffle(texts)
        ids += tokenizer.encode("".join(texts)).ids
    ids = np.array(ids, np.int32)
    print(f"{len(lines)} sentences, {len(ids)} tokens", flush=True)
    write(path, train(ids), tokenizer)


if __name__ == "__main__":
    main()
