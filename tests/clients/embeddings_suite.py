"""The official `openai` package against the local endpoint, with a worker whose model makes embeddings.

Usage: embeddings_suite.py BASE_URL MODEL. Prints one JSON object; exits non-zero when something does not hold.
"""

import base64
import json
import struct
import sys
import threading

import openai
from openai import BadRequestError, NotFoundError, OpenAI

base_url, model = sys.argv[1], sys.argv[2]
client = OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=120)
embed = lambda input, **more: client.embeddings.create(**(dict(model=model, input=input) | more))
done = []


def check(name, holds, about=None):
    assert holds, f"{name}: {about}"
    done.append(name)


def refused(name, call, code, param="input", kind=BadRequestError):
    try:
        call()
    except kind as error:
        check(name, error.code == code and error.param == param and error.type == "invalid_request_error", error.body)
    else:
        raise AssertionError(f"{name} was accepted")


check("listed", model in [entry.id for entry in client.models.list()])
check("retrieve", client.models.retrieve(model).id == model)

# The client asks for base64 by itself, and makes floats of it.
texts = ["A list has an order.", "A tuple cannot be changed.", "Ein Wörterbuch, 辞書, 📖."]
answer = embed(texts)
check("order", [item.index for item in answer.data] == [0, 1, 2] and answer.model == model, answer)
vectors = [list(item.embedding) for item in answer.data]
length = len(vectors[0])
check("length one", all(abs(sum(x * x for x in vector) - 1) < 1e-5 for vector in vectors))
check("usage", answer.usage.prompt_tokens == answer.usage.total_tokens > 6, answer.usage)
plain = embed(texts, encoding_format="float")
check("floats", [item.embedding for item in plain.data] == vectors or all(
    struct.pack("<f", a) == struct.pack("<f", b) for one, two in zip(plain.data, vectors) for a, b in zip(one.embedding, two)))
raw = client.embeddings.with_raw_response.create(model=model, input="a", encoding_format="base64")
text = json.loads(raw.text)["data"][0]["embedding"]
check("base64", len(base64.b64decode(text)) == 4 * length, text)
check("one text", list(embed(texts[1]).data[0].embedding) == vectors[1], "alone or among others, it is the same")
check("tokens", len(embed([5, 6, 7]).data) == 1 and len(embed([[5, 6], [7]]).data) == 2)
check("their usage", embed([[5, 6], [7]]).usage.prompt_tokens == 3)
check("own dimensions", list(embed(texts[0], dimensions=length).data[0].embedding) == vectors[0])
check("user", embed("a", user="me").data)
many = embed(["a list and a tuple"] * 2048)
check("many", len(many.data) == 2048 and many.usage.prompt_tokens % 2048 == 0, many.usage)
check("many are one", all(item.embedding == many.data[0].embedding for item in many.data))

refused("nothing", lambda: embed([]), "invalid_value")
refused("an empty text", lambda: embed(""), "invalid_value")
refused("an empty text among others", lambda: embed(["a", ""]), "invalid_value")
refused("a number with a fraction", lambda: embed([1.5]), "invalid_value")
refused("an unknown token", lambda: embed([[5], [10**9]]), "invalid_value")
refused("too many", lambda: embed(["a"] * 2049), "invalid_value")
refused("a body that is too long", lambda: embed("a" * 2**20), "too_large", None, openai.APIStatusError)
refused("a text that is too long", lambda: embed(["a", "word " * 5000]), "context_length_exceeded")
refused("shorter vectors", lambda: embed("a", dimensions=length // 2), "invalid_value", "dimensions")
refused("a format", lambda: embed("a", encoding_format="hex"), "invalid_value", "encoding_format")
refused("unknown", lambda: embed("a", extra_body={"temperature": 1}), "unknown_parameter", "temperature")
refused("no such model", lambda: embed("a", model="no-such-model"), "model_not_found", "model", NotFoundError)
chat = lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
refused("chat", chat, "unsupported_endpoint", "model")
refused("completions", lambda: client.completions.create(model=model, prompt="a"), "unsupported_endpoint", "model")

# Many at once, and each gets its own.
results, errors = {}, []


def one(index):
    try:
        results[index] = list(embed(texts[index % 3]).data[0].embedding)
    except openai.APIStatusError as error:
        errors.append(error.code)


threads = [threading.Thread(target=one, args=(index,)) for index in range(9)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
check("many at once", len(results) + len(errors) == 9 and set(errors) <= {"busy"} and results, errors)
check("each its own", all(vector == vectors[index % 3] for index, vector in results.items()))

print(json.dumps({"checks": len(done)}))
