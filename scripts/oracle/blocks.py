#!/usr/bin/env python3
"""Random blocks of each GGUF format and what ggml's reference reads out of them.

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install gguf==0.19.0 numpy==2.4.6
    /tmp/ref/bin/python scripts/oracle/blocks.py > runtime/engine/tests/fixtures/blocks.json

For each format: the bytes of one row of 512 columns, and the bits of its floats, both in hexadecimal.
"""

import json

import gguf
import numpy as np

COLUMNS = 512
# Where the half-precision scales of a block lie.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def main():
    random = np.random.default_rng(6)
    cases = []
    for name in ["F32", "F16", "BF16", *SCALES]:
        kind = gguf.GGMLQuantizationType[name]
        length, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (COLUMNS // length, size), dtype=np.uint8)
        if name in SCALES:
            for at in SCALES[name]:
                halves = (random.normal(size=len(blocks)) * 0.02).astype(np.float16)
                halves[0] = np.float16(3e-6)  # below the smallest normal half
                blocks[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)
        else:
            numbers = random.normal(size=COLUMNS).astype(np.float32)
            if name == "F32":
                blocks = numbers.view(np.uint8)
            elif name == "F16":
                blocks = numbers.astype(np.float16).view(np.uint8)
            else:
                blocks = (numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        data = blocks.reshape(1, -1)
        if name == "F16":
            floats = data.view(np.float16).astype(np.float32)
        elif name == "F32":
            floats = data.view(np.float32)
        else:
            floats = gguf.quants.dequantize(data, kind)
        assert floats.shape == (1, COLUMNS)
        bits = floats.astype("<f4").tobytes().hex()
        cases.append({"format": name, "data": data.tobytes().hex(), "floats": bits})
    print(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
