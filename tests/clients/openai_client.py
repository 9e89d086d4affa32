"""The official `openai` package against the local endpoint: chat completions, whole and streamed.

Usage: openai_client.py BASE_URL MODEL. Prints one JSON object; exits non-zero when something does not hold.
"""

import json
import sys

from openai import BadRequestError, NotFoundError, OpenAI

base_url, model = sys.argv[1], sys.argv[2]
client = OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=60)

models = [entry.id for entry in client.models.list()]
assert model in models, f"{model} is not listed: {models}"

messages = [{"role": "user", "content": "Tell me about the sea."}]
settings = dict(model=model, messages=messages, max_tokens=24, temperature=0.5, seed=7)

whole = client.chat.completions.create(**settings)
assert whole.object == "chat.completion", whole
assert whole.choices[0].message.role == "assistant", whole
assert whole.choices[0].finish_reason in ("stop", "length"), whole
text = whole.choices[0].message.content
assert text, "the answer is empty"
assert whole.usage.prompt_tokens > 0, whole.usage
assert 0 < whole.usage.completion_tokens <= 24, whole.usage
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage

pieces, roles, finish, usage = [], [], None, None
for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **settings):
    assert chunk.object == "chat.completion.chunk", chunk
    if chunk.usage is not None:
        usage = chunk.usage
    for choice in chunk.choices:
        if choice.delta.role:
            roles.append(choice.delta.role)
        if choice.delta.content:
            pieces.append(choice.delta.content)
        finish = choice.finish_reason or finish
assert roles == ["assistant"], roles
assert finish == whole.choices[0].finish_reason, finish
assert usage is not None and usage.completion_tokens == whole.usage.completion_tokens, usage
assert "".join(pieces) == text, "the streamed text differs from the whole one at the same seed"

try:
    client.chat.completions.create(model="no-such-model", messages=messages)
    raise AssertionError("an unknown model was answered")
except NotFoundError as error:
    assert error.code == "model_not_found", error.body

try:
    client.chat.completions.create(model=model, messages=messages, temperature=9)
    raise AssertionError("a temperature of 9 was accepted")
except BadRequestError as error:
    assert error.param == "temperature", error.body

print(json.dumps({"text": text, "chunks": len(pieces), "usage": whole.usage.model_dump()}))
