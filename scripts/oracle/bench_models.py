"""Writes the benchmark's models: other formats of the demo model, and a larger one of random weights.

    python scripts/oracle/bench_models.py DEMO-MODEL.gguf FOLDER

SmolLM2 in Q4_0 and Q8_0 is made of the demo model's Q4_1 weights: for speed alone, nobody should talk to it. The random
model is a Llama of 412 million parameters in Q8_0, the same bits every time. Needs gguf 0.19.0 and numpy 2.2.6.
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize

SIZES = {"layers": 18, "width": 1216, "feed": 3744, "heads": 19, "kv_heads": 19, "context": 2048}


def copied(reader: GGUFReader, path: Path) -> GGUFWriter:
    """A writer with the reader's metadata."""
    writer = GGUFWriter(str(path), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub)
    return writer


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def requantised(reader: GGUFReader, path: Path, kind: Kind) -> None:
    writer = copied(reader, path)
    for tensor in reader.tensors:
        if tensor.tensor_type == Kind.F32:
            writer.add_tensor(tensor.name, tensor.data)
            continue
        numbers = dequantize(tensor.data, tensor.tensor_type)
        # The embedding stays in Q8_0, as in the demo model.
        own = Kind.Q8_0 if tensor.name == "token_embd.weight" else kind
        writer.add_tensor(tensor.name, quantize(numbers, own), raw_dtype=own)
    finish(writer)


def random_model(reader: GGUFReader, path: Path) -> None:
    """The demo model's vocabulary, and weights of seed 412."""
    skipped = ("general.", "llama.", "GGUF.")
    writer = GGUFWriter(str(path), "llama")
    for field in reader.fields.values():
        if not field.name.startswith(skipped):
            kind = field.types[0]
            sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=sub)
    width, feed = SIZES["width"], SIZES["feed"]
    writer.add_name("random 412M")
    writer.add_block_count(SIZES["layers"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(feed)
    writer.add_head_count(SIZES["heads"])
    writer.add_head_count_kv(SIZES["kv_heads"])
    writer.add_rope_dimension_count(width // SIZES["heads"])
    writer.add_context_length(SIZES["context"])
    writer.add_layer_norm_rms_eps(1e-5)
    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    generator = np.random.default_rng(412)

    def matrix(name: str, rows: int, columns: int) -> None:
        numbers = generator.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)
        writer.add_tensor(name, quantize(numbers, Kind.Q8_0), raw_dtype=Kind.Q8_0)

    matrix("token_embd.weight", vocabulary, width)
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    for layer in range(SIZES["layers"]):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, dtype=np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}.weight", width, width)
        matrix(f"blk.{layer}.ffn_gate.weight", feed, width)
        matrix(f"blk.{layer}.ffn_up.weight", feed, width)
        matrix(f"blk.{layer}.ffn_down.weight", width, feed)
    finish(writer)


def main() -> None:
    demo, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(demo)
    makers = {
        "smollm2-q4_0.gguf": lambda path: requantised(reader, path, Kind.Q4_0),
        "smollm2-q8_0.gguf": lambda path: requantised(reader, path, Kind.Q8_0),
        "random-412m-q8_0.gguf": lambda path: random_model(reader, path),
    }
    for name, make in makers.items():
        path = folder / name
        if not path.exists():
            unfinished = path.with_suffix(".part")
            make(unfinished)
            unfinished.rename(path)
        print(path)


main()
