#!/usr/bin/env python3
"""A small random model of each family, as a Hugging Face folder and as GGUF, and what transformers computes with it.

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install gguf==0.19.0 numpy==2.4.6 tokenizers==0.23.3 \
        torch==2.15.0 transformers==5.24.0
    /tmp/ref/bin/python scripts/oracle/families.py

writes `tests/models/families/NAME/`, `tests/models/families/NAME.gguf` and
`runtime/engine/tests/fixtures/families.json`: the tokens of one prompt, the likeliest token after each of them and by
how much, and all logits after some. transformers runs in single precision on the weights as they are stored.
"""

import json
import pathlib
import shutil

import gguf
import numpy as np
import tokenizers
import torch
import transformers as hf

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests/models/families"
VOCABULARY, PROMPT, SHOWN = 288, 100, [0, 40, 99]
COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=256,
    eos_token_id=257,
    pad_token_id=257,
    rms_norm_eps=1e-6,
)


def families():
    llama3 = dict(rope_type="llama3", rope_theta=5e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
    llama3["original_max_position_embeddings"] = 32
    yield "llama", torch.float16, hf.LlamaForCausalLM, hf.LlamaConfig(**COMMON, rope_parameters=llama3)
    yield "qwen2", torch.bfloat16, hf.Qwen2ForCausalLM, hf.Qwen2Config(**COMMON, tie_word_embeddings=True)
    yield "qwen3", torch.float16, hf.Qwen3ForCausalLM, hf.Qwen3Config(**COMMON, head_dim=32)
    linear = dict(rope_type="linear", rope_theta=1e6, factor=8.0)
    rope = dict(full_attention=linear, sliding_attention=dict(rope_type="default", rope_theta=1e4))
    config = COMMON | dict(num_hidden_layers=6, hidden_size=32, num_attention_heads=2, num_key_value_heads=1)
    config = hf.Gemma3TextConfig(
        **config, head_dim=32, sliding_window=24, query_pre_attn_scalar=24, rope_parameters=rope
    )
    yield "gemma3", torch.bfloat16, hf.Gemma3ForCausalLM, config
    long = dict(rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.5)
    config = hf.Phi3Config(**COMMON, sliding_window=48, original_max_position_embeddings=64)
    config.rope_parameters = long | dict(
        original_max_position_embeddings=64,
        long_factor=[1.0 + 0.4 * i for i in range(4)],
        short_factor=[1.0 + 0.1 * i for i in range(4)],
    )
    yield "phi3", torch.float16, hf.Phi3ForCausalLM, config


def tokenizer():
    """Byte-level, without merges."""
    letters = gguf_bytes()
    vocab = {letters[byte]: byte for byte in range(256)}
    new = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    new.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    new.decoder = tokenizers.decoders.ByteLevel()
    new.add_special_tokens(["<|begin|>", "<|end|>"])
    return new


def gguf_bytes():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def randomise(model, seed):
    """Weights that matter: initial ones are so small that attention and norms hardly show in the logits."""
    random = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=random)
        if name.endswith("norm.weight") or "layernorm" in name:
            weight.data = (0.0 if "Gemma" in type(model).__name__ else 1.0) + 0.2 * noise
        elif weight.ndim == 1:
            weight.data = 0.5 * noise
        elif "embed_tokens" in name:
            weight.data = noise * (0.2 if "Gemma" in type(model).__name__ else 1.0)
        else:
            weight.data = noise * 1.3 / weight.shape[1] ** 0.5


def write_tokens(writer):
    letters = gguf_bytes()
    tokens = [letters[byte] for byte in range(256)] + ["<|begin|>", "<|end|>"]
    tokens += [f"[PAD{n}]" for n in range(len(tokens), VOCABULARY)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3] + [5] * (VOCABULARY - 258))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)


def llama3_factors(rope, head):
    waves = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, head, 2) / head)
    original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((original / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def write_gguf(path, name, model, dtype):
    config, writer = model.config, gguf.GGUFWriter(path, name)
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope, rotated = config.rope_parameters, head
    if name in ("qwen3", "gemma3"):
        writer.add_key_length(head)
        writer.add_value_length(head)
    if name == "gemma3":
        rope = rope["full_attention"]
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_float32("gemma3.attention.scale", config.query_pre_attn_scalar**-0.5)
    if name == "phi3":
        rotated = head // 2
        original = rope["original_max_position_embeddings"]
        scale = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors((1 + np.log(scale) / np.log(original)) ** 0.5)
        for length in ("long", "short"):
            factors = np.array(rope[f"{length}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", factors)
    if name in ("gemma3", "phi3"):
        writer.add_sliding_window(config.sliding_window)
    writer.add_rope_dimension_count(rotated)
    writer.add_rope_freq_base(rope["rope_theta"])
    if name == "llama":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head))

    write_tokens(writer)
    architecture = next(number for number, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = weight.float().numpy()
        if name == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            data = data.reshape(heads, 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        if name == "gemma3" and key.endswith("norm.weight"):
            data = data + 1
        new = names.get_name(key, (".weight", ".bias"))
        if data.ndim == 1:
            writer.add_tensor(new, data.astype(np.float32))
        elif dtype == torch.float16:
            writer.add_tensor(new, data.astype(np.float16))
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(new, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    MODELS.mkdir(parents=True, exist_ok=True)
    fixture = {}
    for seed, (name, dtype, kind, config) in enumerate(families()):
        torch.manual_seed(seed)
        model = kind(config).eval()
        randomise(model, seed)
        model = model.to(dtype)
        model.tie_weights()
        folder = MODELS / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tokenizer().save(str(folder / "tokenizer.json"), pretty=False)
        special = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(special) + "\n")
        write_gguf(MODELS / f"{name}.gguf", name, model, dtype)
        model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        tokens = np.random.default_rng(seed).integers(0, VOCABULARY, PROMPT).tolist()
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0]
        top = logits.topk(2).values
        fixture[name] = {
            "tokens": tokens,
            "likeliest": logits.argmax(-1).tolist(),
            "margins": [round(float(m), 4) for m in top[:, 0] - top[:, 1]],
            "logits": {str(at): [round(float(v), 4) for v in logits[at]] for at in SHOWN},
        }
        print(name, logits.std().item(), sorted(f.name for f in folder.iterdir()))
    lines = [f'"{name}": {json.dumps(value)}' for name, value in fixture.items()]
    out = ROOT / "runtime/engine/tests/fixtures/families.json"
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
