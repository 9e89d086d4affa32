#!/usr/bin/env python3
"""Small tokenizers of each kind, trained on hard text, and what `tokenizers` and `sentencepiece` make of harder text.

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install gguf==0.19.0 numpy==2.4.6 sentencepiece==0.2.3 tokenizers==0.23.3
    /tmp/ref/bin/python scripts/oracle/tokens.py

writes `runtime/engine/tests/fixtures/tokenizers/`: `KIND/tokenizer.json` or `KIND.gguf`, and `cases.json`.
"""

import io
import json
import pathlib
import random
import shutil

import gguf
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).resolve().parents[2] / "runtime/engine/tests/fixtures/tokenizers"
SIZE = 700
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
LEAD, SHORT = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = (
    rf"{LEAD}[{UPPER}]*[{LOWER}]+{SHORT}|{LEAD}[{UPPER}]+[{LOWER}]*{SHORT}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HARD = [
    "", " ", "  ", "\n", "\r\n\r\n", "\t\t \n x", "Hello, world!", " leading and trailing ", "a  b   c    d",
    "I'll, we'VE, it'S, don't, o'clock, 'tis 'Ss ''d", "naïve café — “quotes” … №5", "e\u0301\u0323 n\u0303 \u212b \ufb01",
    "日本語のテキスト、한국어 텍스트, Привет мир, مرحبا بالعالم, हिन्दी में, ไทย", "👩‍👩‍👧‍👦🏳️‍🌈👍🏽 🇫🇮 ☃️",
    "\u0000\u0001\u007f\u0080\u00ad\u200b\u200d\u2060\ufeff", "\u00a0\u2003\u3000 x\u2028y\u2029z\u0085w",
    "1234567890 3.14159 1,000,000 ²³ ٣٤ Ⅻ ½ 2024-11-26", "fn main() {\n    println!(\"{}\", x[i] += 1);\n}\r\n",
    "camelCaseWord HTTPServer iPhone XMLHttpRequest ABCdef ǅungla ΑΒΓδεζ", "日A本B語c ABC日 aʰB ˈstres",
    "<|end|> and <|begin|>x<|end|>", "<|end|>  spaces  <|begin|>  ", "<s>[INST] hi [/INST]</s>", "[CLS] x [SEP] [MASK]",
    "▁under▁score ▁ _ __", "path/to//file.txt /// https://example.com/?q=a%20b#c", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "!!!???...---***", "x\n\n\n\ny\n \n z", "tabs\tand\tmore\t\t\t", "\u1100\u1161\u11a8 각 \u0915\u093c", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠀀𠀁 \U0010ffff \ue000",
    "İstanbul ıssız Straße ΌΣΟΣ ſ'ſ K", "don’t “curly” ‘single’", "a\u0301\u0301\u0301 \u0301x .\u0301", "x" * 120 + " y",
    "中文和English混排，没有空格。", "$100 + €50 = £? ^ ` ~ | < >", "\ufffd\ufffd x", "A'ſ b'S C'LL",
]


def corpus():
    text = " ".join(HARD) * 2
    words = "the of and to in is that it was for on are with as his they at be this from have or by one had not but what all".split()
    chooser = random.Random(6)
    return [text] + [" ".join(chooser.choice(words) for _ in range(40)) + chooser.choice(["\n", ". ", "\r\n\r\n"]) for _ in range(200)]


def fuzz(count):
    chooser = random.Random(66)
    alphabet = list(" '\n\r\t09aAzZsStTéÉ日ʰ\u0301!/-.$▁👍") + ["  ", "'s", "'LL", "ing", "the", "12", "\u00a0", "<|end|>", "ſ", "ǅ"]
    return ["".join(chooser.choice(alphabet) for _ in range(chooser.randrange(1, 24))) for _ in range(count)]


def byte_level(pattern, normalizer=None, before=(), ignore_merges=False):
    new = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        new.normalizer = normalizer
    if pattern:
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        steps = [*before, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    new.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    new.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    new.train_from_iterator(corpus(), trainer)
    return new


def pieces(normalizer=None, pre_tokenizer=None):
    """BPE over characters with bytes for unknown ones, as Llama 2 (Prepend or Metaspace) and Gemma have it."""
    new = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        new.normalizer = normalizer
    if pre_tokenizer:
        new.pre_tokenizer = pre_tokenizer
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=special, limit_alphabet=120, show_progress=False)
    new.train_from_iterator([line for text in corpus() for line in text.split(" ")] + corpus(), trainer)
    data = json.loads(new.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < 3]
    return Tokenizer.from_str(json.dumps(data))


def word_piece():
    new = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    new.normalizer = normalizers.BertNormalizer(lowercase=True)
    new.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    new.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False))
    new.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", new.token_to_id("[CLS]")), ("[SEP]", new.token_to_id("[SEP]"))]
    )
    return new


def kinds():
    yield "gpt2", byte_level(None)
    yield "smollm", byte_level(None, before=[pre_tokenizers.Digits(individual_digits=True)])
    yield "llama3", byte_level(LLAMA3, ignore_merges=True)
    yield "qwen2", byte_level(QWEN2, normalizer=normalizers.NFC())
    yield "gpt4o", byte_level(GPT4O)
    replace = normalizers.Replace(" ", "▁")
    yield "llama2", pieces(normalizers.Sequence([normalizers.Prepend("▁"), replace]))
    yield "metaspace", pieces(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    yield "metasplit", pieces(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="always", split=True))
    yield "gemma", pieces(replace, pre_tokenizers.Split(" ", "merged_with_previous"))
    yield "bert", word_piece()


def sentencepiece_gguf():
    """A model trained by SentencePiece itself, in GGUF as llama.cpp's converter writes it."""
    model = io.BytesIO()
    lines = [line for text in corpus() for line in text.splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=SIZE, model_type="bpe", byte_fallback=True, character_coverage=0.995,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    writer = gguf.GGUFWriter(OUT / "sentencepiece.gguf", "llama")
    count = range(trained.get_piece_size())
    code = lambda i: 2 if trained.is_unknown(i) else 3 if trained.is_control(i) else 6 if trained.is_byte(i) else 1
    writer.add_tokenizer_model("llama")
    writer.add_token_list([trained.id_to_piece(i) for i in count])
    writer.add_token_scores([trained.get_score(i) for i in count])
    writer.add_token_types([code(i) for i in count])
    writer.add_bos_token_id(trained.bos_id())
    writer.add_eos_token_id(trained.eos_id())
    writer.add_unk_token_id(trained.unk_id())
    writer.add_add_space_prefix(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return trained


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    texts = HARD + fuzz(150)
    cases = {"texts": texts}
    for name, tokenizer in kinds():
        folder = OUT / name
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        cases[name] = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    trained = sentencepiece_gguf()
    # Control tokens have no meaning to SentencePiece itself, nor here where they are not asked for.
    cases["sentencepiece"] = [trained.encode(text) for text in texts]
    lines = [f'"{name}": {json.dumps(value, ensure_ascii=True)}' for name, value in cases.items()]
    (OUT / "cases.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
