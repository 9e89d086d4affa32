#!/usr/bin/env python3
"""A small random Llama whose matrices are Q4_K, Q5_K, Q6_K and Q5_0, and what single precision computes with it. Needs the packages of `families.py`.

    /tmp/ref/bin/python scripts/oracle/quants.py

writes `tests/models/families/quants.gguf` and `runtime/engine/tests/fixtures/quants.json`: the logarithms of chances after
some tokens of a prompt, by `reference.py` on the weights as ggml's reference reads them, with
activations rounded to int8, and keys and values to halves.
"""

import json
import pathlib

import gguf
import numpy as np

import families
import reference

WIDTH, FEED, HEAD, HEADS, VOCABULARY, PROMPT = 256, 256, 64, 2, families.VOCABULARY, 100
MATRICES = {
    "token_embd": (VOCABULARY, WIDTH, "Q6_K"),
    "blk.0.attn_q": (HEADS * HEAD, WIDTH, "Q4_K"),
    "blk.0.attn_k": (HEAD, WIDTH, "Q5_K"),
    "blk.0.attn_v": (HEAD, WIDTH, "Q6_K"),
    "blk.0.attn_output": (WIDTH, HEADS * HEAD, "Q5_0"),
    "blk.0.ffn_gate": (FEED, WIDTH, "Q4_K"),
    "blk.0.ffn_up": (FEED, WIDTH, "Q5_K"),
    "blk.0.ffn_down": (WIDTH, FEED, "Q6_K"),
}


def blocks(random, rows, columns, name):
    """Random bits under scales that make weights of some 1.3 / sqrt(columns)."""
    kind = gguf.GGMLQuantizationType[name]
    length, size = gguf.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (rows * columns // length, size), dtype=np.uint8)
    halves = lambda value: (value * random.uniform(0.7, 1.3, len(data))).astype(np.float16).view(np.uint8).reshape(-1, 2)
    spread = 1.3 / columns**0.5
    if name == "Q5_0":
        data[:, :2] = halves(spread / 9.2)
    elif name == "Q6_K":
        data[:, 208:] = halves(spread / (18.5 * 74))
    else:
        # All scales of six bits are 33 and all minima 33 or 32: each value's mean is near zero.
        data[:, 4:16] = [33 | 0x80] * 4 + [33 | 0x80] * 4 + [0x11] * 4
        levels = 15 if name == "Q4_K" else 31
        data[:, :2] = halves(spread / (levels * 0.3 * 33))
        data[:, 2:4] = (data[:, :2].copy().view(np.float16) * (levels / 2)).astype(np.float16).view(np.uint8)
    return data.reshape(rows, -1), kind


def to_int8(x):
    """As the engine rounds activations: 255 steps for each 32 of them."""
    blocks = x.astype(np.float32).reshape(len(x), -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    return (np.rint(blocks / scale) * scale).reshape(x.shape)


def main():
    random = np.random.default_rng(6)
    path = families.MODELS / "quants.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    families.write_tokens(writer)
    for name, (rows, columns, kind) in MATRICES.items():
        data, kind = blocks(random, rows, columns, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", (1 + 0.2 * random.normal(size=WIDTH)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    weights, shape = reference.load(path)
    for name, weight in weights.items():
        print(name, weight.shape, weight.mean(), weight.std())
    tokens = random.integers(0, VOCABULARY, PROMPT)
    exact = reference.forward(weights, shape, tokens)
    chances = reference.forward(weights, shape, tokens, to_int8, lambda x: x.astype(np.float16).astype(np.float32))
    print("rounding moves chances by up to", np.abs(chances - exact)[families.SHOWN].max())
    print("chances", chances.std(-1).mean())
    shown = {str(at): np.round(chances[at], 4).tolist() for at in families.SHOWN}
    fixture = {"tokens": tokens.tolist(), "chances": shown}
    (families.ROOT / "runtime/engine/tests/fixtures/quants.json").write_text(json.dumps(fixture) + "\n")


if __name__ == "__main__":
    main()
