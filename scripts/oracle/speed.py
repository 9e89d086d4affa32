"""llama.cpp's tokens per second as its own server counts them, from the build that PyPI's xllamacpp carries.

    python speed.py MODEL.gguf THREADS PREFILL DECODE ROUNDS

Prints `prefill NUMBER decode NUMBER`, each the best of ROUNDS. A second witness beside speed.mjs: node's binding decodes
slower with two threads than with one, and this one does not.
"""

import os
import sys

import xllamacpp

model, *numbers = sys.argv[1:]
threads, prefill, decode, rounds = map(int, numbers)
params = xllamacpp.CommonParams()
params.model.path = model
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.n_ctx = 512
params.n_parallel = 1
server = xllamacpp.Server(params)
best = {"prompt_per_second": 0.0, "predicted_per_second": 0.0}
for nth in range(rounds):
    # Another first token each time, so that nothing of the last round is reused.
    prompt = [(i * 7919 + 13 + nth) % 49000 for i in range(prefill)]
    answer = server.handle_completions({
        "prompt": prompt, "n_predict": decode, "temperature": 0, "ignore_eos": True, "cache_prompt": False,
    })
    timings = answer["timings"]
    if timings["prompt_n"] != prefill or timings["predicted_n"] != decode:
        sys.exit(f"{timings['prompt_n']} tokens were read and {timings['predicted_n']} written")
    best = {what: max(speed, timings[what]) for what, speed in best.items()}
print("prefill {prompt_per_second:.2f} decode {predicted_per_second:.2f}".format(**best), flush=True)
os._exit(0)  # its threads would go on to log
