"""The official `openai` package against the local endpoint: every feature of docs/api.md, and what must be refused.

Usage: openai_suite.py BASE_URL MODEL. Prints one JSON object; exits non-zero when something does not hold.
"""

import json
import sys
import threading
import urllib.error
import urllib.request

from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI

base_url, model = sys.argv[1], sys.argv[2]
client = OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=120)
user = [{"role": "user", "content": "Write about the list and the tuple."}]
chat = lambda **more: client.chat.completions.create(**(dict(model=model, messages=user, max_tokens=16, seed=7) | more))
done = []


def check(name, holds, about=None):
    assert holds, f"{name}: {about}"
    done.append(name)


def refused(name, call, code, param=None, kind=BadRequestError):
    try:
        call()
    except kind as error:
        check(name, error.code == code and (param is None or error.param == param), error.body)
    else:
        raise AssertionError(f"{name} was accepted")


# Models.
check("retrieve", client.models.retrieve(model).id == model)
refused("no such model", lambda: client.models.retrieve("no-such-model"), "model_not_found", kind=NotFoundError)

# Chat: choices, logprobs, penalties, bias, stops, seeds.
several = chat(n=3, temperature=1)
check("n", [choice.index for choice in several.choices] == [0, 1, 2], several)
check("n differ", len({choice.message.content for choice in several.choices}) > 1, several)
single = chat(temperature=1)
check("n is billed", several.usage.completion_tokens > single.usage.completion_tokens, several.usage)
check("one prompt", several.usage.prompt_tokens == single.usage.prompt_tokens, several.usage)
check("first of n", several.choices[0].message.content == single.choices[0].message.content)

likely = chat(logprobs=True, top_logprobs=3, temperature=0)
tokens = likely.choices[0].logprobs.content
check("logprobs", len(tokens) == likely.usage.completion_tokens and all(len(t.top_logprobs) == 3 for t in tokens))
check("logprobs are at most 0", all(t.logprob <= 0 for t in tokens))
text = b"".join(bytes(t.bytes) for t in tokens).decode("utf-8", "replace")
check("logprobs' bytes are the text", text.startswith(likely.choices[0].message.content.rstrip("\ufffd")), text)
pieces, streamed = [], []
for chunk in chat(logprobs=True, temperature=0, stream=True):
    for choice in chunk.choices:
        pieces.append(choice.delta.content or "")
        if choice.logprobs:
            streamed += [t.token for t in choice.logprobs.content]
check("streamed logprobs", streamed == [t.token for t in tokens], streamed)
check("streamed text", "".join(pieces) == likely.choices[0].message.content)

check("seed", chat(temperature=1).choices[0].message.content == single.choices[0].message.content)
check("penalties", chat(temperature=0, presence_penalty=2, frequency_penalty=2).choices[0].message.content)
first = text.split()[0]
stop = likely.choices[0].message.content[5:9]
check("stop", stop not in chat(temperature=0, stop=[stop]).choices[0].message.content)
again = chat(temperature=0, extra_body={"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0})
check("more samplers", again.choices[0].message.content)
usages = [chunk.usage for chunk in chat(n=2, stream=True, stream_options={"include_usage": True})]
check("usage of a stream", usages[-1].completion_tokens > 0 and not any(usages[:-1]), usages)
long = [{"role": "user", "content": "Write about the set, the dictionary and the list, and what they return. " * 2}]
chat(messages=long)
check("cached tokens", chat(messages=long).usage.prompt_tokens_details.cached_tokens >= 16)

# Formats.
whole = chat(response_format={"type": "json_object"}, max_tokens=120, n=2)
for choice in whole.choices:
    check("json_object", choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict))
schema = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
strict = lambda s: {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": s}}
answer = chat(response_format=strict(schema), max_tokens=60)
value = json.loads(answer.choices[0].message.content)
check("json_schema", value["colour"] in ("red", "green") and 0 <= value["count"] <= 99, value)
explosive = {"type": "array", "items": {"type": "null"}, "maxItems": 10**9}
boom = schema | {"properties": {"a": explosive}, "required": ["a"]}
refused("a schema that explodes", lambda: chat(response_format=strict(boom)), "invalid_json_schema")

# Tools.
# The tiny model's context is 512 tokens, and it spells calls letter by letter: all is short here.
small = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}}
small |= {"required": ["colour"], "additionalProperties": False}
tools = [{"type": "function", "function": {"name": "paint", "strict": True, "parameters": small}}]
paint = [{"role": "user", "content": "Paint."}]
named = {"type": "function", "function": {"name": "paint"}}
called = chat(tools=tools, messages=paint, tool_choice=named, max_tokens=120)
call = called.choices[0].message.tool_calls[0]
check("named tool", call.function.name == "paint" and json.loads(call.function.arguments)["colour"], called)
check("its reason", called.choices[0].finish_reason == "tool_calls")
required = chat(tools=tools, messages=paint, tool_choice="required", parallel_tool_calls=False, max_tokens=120)
check("required tool", len(required.choices[0].message.tool_calls) == 1, required)
arguments, names = "", []
for chunk in chat(tools=tools, messages=paint, tool_choice=named, max_tokens=120, stream=True):
    for choice in chunk.choices:
        for delta in choice.delta.tool_calls or []:
            names += [delta.function.name] if delta.function.name else []
            arguments += delta.function.arguments or ""
check("streamed arguments", names == ["paint"] and arguments == call.function.arguments, arguments)
turn = [called.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "painted"}]
check("a tool's answer", chat(messages=paint + turn).choices[0].finish_reason)
cut = chat(tools=tools, messages=paint, tool_choice=named, max_tokens=120, stop=["colour"])
check("a call that a stop string cut", cut.choices[0].finish_reason == "stop", cut)
mixed = chat(tools=tools, messages=paint, response_format={"type": "json_object"}, max_tokens=120)
message = mixed.choices[0].message
check("JSON or a call", message.tool_calls or message.content, mixed)
check("auto", chat(messages=paint, tools=tools).choices[0].finish_reason in ("stop", "length", "tool_calls"))

# Completions.
completion = client.completions.create(model=model, prompt=["The list", "A tuple"], n=2, max_tokens=5, logprobs=2)
check("prompts and n", [c.index for c in completion.choices] == [0, 1, 2, 3], completion)
check("their logprobs", all(0 < len(c.logprobs.tokens) <= 5 for c in completion.choices), completion)
echoed = client.completions.create(model=model, prompt="The list", echo=True, max_tokens=4, seed=1)
check("echo", echoed.choices[0].text.startswith("The list"), echoed)
tokenised = client.completions.create(model=model, prompt=[[300, 301], [302]], max_tokens=3)
check("tokens", len(tokenised.choices) == 2 and tokenised.usage.prompt_tokens >= 3, tokenised)
stream = client.completions.create(model=model, prompt="The list", echo=True, max_tokens=4, seed=1, stream=True)
check("streamed completion", "".join(c.choices[0].text for c in stream) == echoed.choices[0].text)
suffix = lambda: client.completions.create(model=model, prompt="a", suffix="b")
refused("suffix", suffix, "unsupported_parameter", "suffix")

# Responses.
ask = lambda **more: client.responses.create(**(dict(model=model, input="Write about the list.", max_output_tokens=24) | more))
response = ask(extra_body={"seed": 5})
check("response", response.output_text and response.status in ("completed", "incomplete"), response)
check("numbers as sent", ask(temperature=0.4, top_p=0.9).model_dump()["temperature"] == 0.4)
check("its usage", 0 < response.usage.output_tokens <= 24 and response.usage.input_tokens > 0, response.usage)
events = list(ask(stream=True, extra_body={"seed": 5}))
kinds = [event.type for event in events]
check("events", kinds[:2] == ["response.created", "response.in_progress"], kinds)
check("last event", kinds[-1] in ("response.completed", "response.incomplete"), kinds)
check("sequence", [event.sequence_number for event in events] == list(range(len(events))))
deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
check("deltas", deltas == response.output_text == events[-1].response.output_text, deltas)
flat = [{"type": "function", "name": "paint", "strict": True, "parameters": small}]
tooled = ask(input="Paint.", tools=flat, tool_choice="required", parallel_tool_calls=False, max_output_tokens=120)
item = tooled.output[-1]
check("response's call", item.type == "function_call" and json.loads(item.arguments)["colour"], tooled)
output = {"type": "function_call_output", "call_id": item.call_id, "output": "painted"}
turns = [{"role": "user", "content": "Paint."}, item.model_dump(exclude_none=True), output]
check("call's output", ask(input=turns, instructions="Be brief.").usage.input_tokens)
text_format = {"format": {"type": "json_schema", "name": "n", "strict": True, "schema": schema}}
check("text.format", json.loads(ask(text=text_format, max_output_tokens=60).output_text)["colour"])
refused("memory", lambda: ask(previous_response_id="resp_1"), "unsupported_parameter", "previous_response_id")

# Embeddings: this worker's model makes none, and says so.
embed = lambda **more: client.embeddings.create(model=model, input=["a", "b"], **more)
refused("embeddings", embed, "unsupported_endpoint", "model")
refused("their fields", lambda: embed(dimensions=0), "invalid_value", "dimensions")

# Shapes of what the endpoint itself refuses.
def status(path):
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return direct.open(f"{base_url}{path}").status, None
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["code"]


check("method", status("/chat/completions") == (405, "method_not_allowed"), status("/chat/completions"))
check("nowhere", status("/nowhere") == (404, "unknown_url"), status("/nowhere"))
huge = [{"role": "user", "content": "x" * 1_200_000}]
refused("too large", lambda: chat(messages=huge), "too_large", kind=APIStatusError)
refused("a name with slashes", lambda: client.models.retrieve("some/model"), "model_not_found", kind=NotFoundError)

# Wrong requests, while a stream goes on.
running = iter(chat(max_tokens=200, stream=True, extra_body={"repetition_penalty": 1.0}, temperature=1))
next(running)
for field, wrong, code in [
    ("temperature", 9, "invalid_value"),
    ("n", 99, "invalid_value"),
    ("logit_bias", {"1": 500}, "invalid_value"),
    ("stop", ["x"] * 10_000, "invalid_value"),
    ("max_tokens", "many", "invalid_type"),
]:
    refused(field, lambda: chat(**{field: wrong}), code, field)
refused("unknown", lambda: chat(extra_body={"max_tokenz": 1}), "unknown_parameter", "max_tokenz")
refused("context", lambda: chat(messages=[{"role": "user", "content": "word " * 5000}]), "context_length_exceeded")
refused("no such model", lambda: chat(model="no-such-model"), "model_not_found", "model", NotFoundError)

# Leaving in the middle of a stream disturbs nobody.
leaving = chat(max_tokens=200, stream=True, temperature=1)
next(iter(leaving))
leaving.close()
check("the stream went on", [c for c in running][-1].choices[0].finish_reason in ("stop", "length"))

# Many at once.
results, errors = [], []


def one(index):
    try:
        results.append(chat(max_tokens=8, seed=index).usage.completion_tokens)
    except APIStatusError as error:
        errors.append(error.code)


threads = [threading.Thread(target=one, args=(index,)) for index in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
check("many at once", len(results) + len(errors) == 6 and set(errors) <= {"busy"} and results, errors)

print(json.dumps({"checks": len(done)}))
