#!/usr/bin/env python3
"""Logits in single precision, without any rounding of activations: the arbiter where two engines differ.

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install gguf==0.19.0 numpy==2.2.6
    /tmp/ref/bin/python scripts/oracle/reference.py MODEL.gguf FIXTURE.json

Adds to each greedy case of a fixture of oracle.mjs, for each of its tokens, what single precision would choose in its
place, and by how much (in log-probability).
"""

import json
import re
import sys

import gguf
import numpy as np


def load(path):
    reader = gguf.GGUFReader(path)
    field = lambda key, default=None: reader.fields[key].contents() if key in reader.fields else default
    weights = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
    shape = {
        "layers": field("llama.block_count"),
        "heads": field("llama.attention.head_count"),
        "kv_heads": field("llama.attention.head_count_kv"),
        "base": field("llama.rope.freq_base", 10000.0),
        "epsilon": field("llama.attention.layer_norm_rms_epsilon"),
        "head": field("llama.attention.key_length"),
    }
    return weights, shape


def forward(weights, shape, tokens, rounded=lambda x: x, kept=lambda x: x):
    """The logarithms of chances after each token. `rounded` is done to what matrices are multiplied with, `kept` to keys and values."""
    norm = lambda x, w: x / np.sqrt(np.mean(x * x, -1, keepdims=True) + shape["epsilon"]) * w
    x = weights["token_embd.weight"][tokens]
    length, width = x.shape
    heads, kv_heads = shape["heads"], shape["kv_heads"]
    head = shape["head"] or width // heads
    angles = np.arange(length)[:, None] * float(shape["base"]) ** (-np.arange(0, head, 2) / head)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rotate(t):
        out = np.empty_like(t)
        out[..., 0::2] = t[..., 0::2] * cos - t[..., 1::2] * sin
        out[..., 1::2] = t[..., 0::2] * sin + t[..., 1::2] * cos
        return out

    mask = np.triu(np.full((length, length), -np.inf), 1)
    for layer in range(shape["layers"]):
        w = lambda name: weights[f"blk.{layer}.{name}.weight"]
        h = rounded(norm(x, w("attn_norm")))
        q = rotate((h @ w("attn_q").T).reshape(length, heads, head))
        k = kept(rotate((h @ w("attn_k").T).reshape(length, kv_heads, head))).repeat(heads // kv_heads, 1)
        v = kept((h @ w("attn_v").T).reshape(length, kv_heads, head)).repeat(heads // kv_heads, 1)
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(head) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + rounded(np.einsum("hts,shd->thd", scores, v).reshape(length, heads * head)) @ w("attn_output").T
        h = rounded(norm(x, w("ffn_norm")))
        gate = h @ w("ffn_gate").T
        x = x + rounded(gate / (1 + np.exp(-gate)) * (h @ w("ffn_up").T)) @ w("ffn_down").T
    logits = rounded(norm(x, weights["output_norm.weight"])) @ weights.get("output.weight", weights["token_embd.weight"]).T
    return logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)


def main():
    weights, shape = load(sys.argv[1])
    fixture = json.load(open(sys.argv[2]))
    for case in fixture["greedy"]:
        tokens = case["prompt_tokens"] + case["tokens"]
        chances = forward(weights, shape, tokens[:-1])[len(case["prompt_tokens"]) - 1 :]
        top = np.argsort(-chances, -1)[:, :2]
        rows = np.arange(len(chances))
        case["exact_tokens"] = top[:, 0].tolist()
        case["exact_margins"] = np.round(chances[rows, top[:, 0]] - chances[rows, top[:, 1]], 4).tolist()
    text = json.dumps(fixture, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+(-?[\d.,\s]+?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
    open(sys.argv[2], "w").write(text + "\n")


if __name__ == "__main__":
    main()
