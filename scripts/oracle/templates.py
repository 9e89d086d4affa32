#!/usr/bin/env python3
"""Conversations as transformers renders them, by templates in the style of each family's.

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install jinja2==3.1.6 numpy==2.4.6 transformers==5.24.0
    /tmp/ref/bin/python scripts/oracle/templates.py

writes `runtime/engine/tests/fixtures/templates/cases.json` for the templates beside it.
"""

import copy
import json
import pathlib

from transformers.utils.chat_template_utils import _normalize_chat_messages, render_jinja_template

HERE = pathlib.Path(__file__).resolve().parents[2] / "runtime/engine/tests/fixtures/templates"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the <weather> & \"wind\" of a city's day — ok?",
        "strict": True,
        "nothing": None,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name\nin words"},
                "days": {"type": "integer", "minimum": 1, "maximum": 7.5, "default": None},
                "all": {"type": "boolean", "enum": [True, False]},
            },
            "required": ["city", "days"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}, "required": []}}}


def call(name, arguments):
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


say = lambda role, content, **more: {"role": role, "content": content, **more}
ASKS = [say("user", "What is the weather in Oulu? ")]
CALLS = [
    *ASKS,
    say("assistant", None, tool_calls=[call("weather", '{"days": 2, "city": "Oulu <&> \\"x\\" ☃", "f": [1.0, 1e-7]}')]),
    say("tool", '{"t": -3}', tool_call_id="call_1"),
]
CHATS = {
    "one": ASKS,
    "system": [say("system", " Be brief. "), *ASKS],
    "turns": [say("system", "S"), say("user", " a b\n"), say("assistant", "\n<think>\nhm\n</think>\n\nc d "), say("user", "e f")],
    "calls": [say("system", "S"), *CALLS],
    "answered": [*CALLS, say("assistant", "-3 degrees", reasoning="it says so"), say("user", "thanks a lot")],
    "two": [*ASKS, say("assistant", "Both:", tool_calls=[call("weather", "{}"), call("clock", "not JSON")]), say("tool", "x"), say("tool", "y")],
    "wrong": [say("assistant", "first"), say("user", "second")],
    "parts": [say("user", [{"type": "text", "text": " look "}, {"type": "image"}, {"type": "text", "text": "here"}])],
    "thinking": [say("user", "x"), say("assistant", "<think>\nwhy\n</think>\n\nso"), say("user", "y"), say("assistant", "z", reasoning_content="q")],
}


def prepared(messages):
    messages = _normalize_chat_messages(copy.deepcopy(messages))
    for message in messages:
        for one in message.get("tool_calls", []):
            try:
                one["function"]["arguments"] = json.loads(one["function"]["arguments"])
            except ValueError:
                pass
    return messages


def main():
    cases = []
    for path in sorted(HERE.glob("*.jinja")):
        for name, messages in CHATS.items():
            for tools in (None, [TOOL, CLOCK]):
                for options in ({"add_generation_prompt": True}, {"add_generation_prompt": False, "enable_thinking": False}):
                    case = {"template": path.name, "chat": name, "tools": tools is not None, "options": options}
                    try:
                        rendered, _ = render_jinja_template(
                            [prepared(messages)], tools=tools, chat_template=path.read_text(), bos_token="<s>", eos_token="</s>", **options
                        )
                        case["rendered"] = rendered[0]
                    except Exception as error:
                        case["raised" if type(error).__name__ == "TemplateError" else "error"] = str(error)
                    cases.append(case)
    text = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    chats, tools = json.dumps(CHATS, ensure_ascii=False), json.dumps([TOOL, CLOCK], ensure_ascii=False)
    (HERE / "cases.json").write_text(f'{{"chats": {chats},\n"tools": {tools},\n"cases": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
