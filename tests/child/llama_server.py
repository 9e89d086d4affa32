"""llama.cpp's own server, as PyPI's package xllamacpp carries it: from the command line alone, which a guest measures.

Usage: llama_server.py MODEL PORT CONTEXT PARALLEL THREADS, where each of PARALLEL answers at a time has CONTEXT tokens. It serves OpenAI's
API on loopback until it is killed. What its own options switch off here: a page, the listing of what it works on, a cache of
prompts in memory, taking answers apart.
"""

import signal
import sys

import xllamacpp

model, (port, context, parallel, threads) = sys.argv[1], map(int, sys.argv[2:])

options = xllamacpp.CommonParams()
options.model.path = model
options.hostnames = ["127.0.0.1"]
options.port = port
options.n_ctx = context * parallel
options.n_parallel = parallel
options.cpuparams.n_threads = threads
options.cpuparams_batch.n_threads = threads
options.cpuparams.poll = 0  # waiting threads sleep: the machine is shared
options.cpuparams_batch.poll = 0
options.n_gpu_layers = 0
options.fit_params = False
options.offline = True
options.ui = False
options.endpoint_slots = False
options.cache_prompt = False
options.cache_ram_mib = 0
options.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE

server = xllamacpp.Server(options)
print("serving on", server.listening_address, flush=True)
while True:
    signal.pause()
