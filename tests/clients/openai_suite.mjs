// The official `openai` package of npm against the local endpoint.
// Usage: node openai_suite.mjs FOLDER_WITH_NODE_MODULES BASE_URL MODEL. Prints one JSON object.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [folder, baseURL, model] = process.argv.slice(2);
const { default: OpenAI } = createRequire(`${folder}/`)("openai");
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "Write about the list and the tuple." }];
const chat = (more) => client.chat.completions.create({ model, messages, max_tokens: 16, seed: 7, ...more });
let checks = 0;
const check = (name, holds, about) => (assert.ok(holds, `${name}: ${JSON.stringify(about)}`), checks++);
const refused = async (name, call, code, param) => {
    const error = await call().then(() => assert.fail(`${name} was accepted`), (error) => error);
    check(name, error instanceof OpenAI.APIError && error.code === code && error.param === param, error);
};

const models = [];
for await (const entry of client.models.list()) models.push(entry.id);
check("models", models.includes(model), models);
check("retrieve", (await client.models.retrieve(model)).id === model);

const several = await chat({ n: 2, logprobs: true, top_logprobs: 2 });
check("n", several.choices.map((choice) => choice.index).join() === "0,1", several);
check("logprobs", several.choices.every((choice) => choice.logprobs.content[0].top_logprobs.length === 2), several);

let text = "";
let usage;
for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
}
check("stream", text === (await chat({})).choices[0].message.content && usage.completion_tokens > 0, text);

const parameters = {
    type: "object",
    properties: { colour: { enum: ["red", "green"] } },
    required: ["colour"],
    additionalProperties: false,
};
const json_schema = { name: "n", strict: true, schema: parameters };
const formed = await chat({ response_format: { type: "json_schema", json_schema }, max_tokens: 60 });
check("json_schema", JSON.parse(formed.choices[0].message.content).colour, formed);

const tools = [{ type: "function", function: { name: "paint", strict: true, parameters } }];
const runner = client.chat.completions.stream({
    model, messages, tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 100,
});
const final = await runner.finalChatCompletion();
const call = final.choices[0].message.tool_calls[0];
check("streamed call", call.function.name === "paint" && JSON.parse(call.function.arguments).colour, final);

const completion = await client.completions.create({ model, prompt: ["The list", "A tuple"], max_tokens: 4 });
check("completions", completion.choices.length === 2, completion);

const kinds = [];
const input = "Write about the list.";
for await (const event of await client.responses.create({ model, input, max_output_tokens: 16, stream: true })) {
    kinds.push(event.type);
}
check("responses", kinds[0] === "response.created" && /completed|incomplete/.test(kinds.at(-1)), kinds);
const response = await client.responses.create({ model, input, max_output_tokens: 16 });
check("response", response.output_text.length > 0 && response.usage.total_tokens > 0, response);

await refused("embeddings", () => client.embeddings.create({ model, input: "a" }), "unsupported_endpoint", "model");
await refused("temperature", () => chat({ temperature: 9 }), "invalid_value", "temperature");
await refused("unknown", () => chat({ max_tokenz: 1 }), "unknown_parameter", "max_tokenz");

const left = await chat({ stream: true, max_tokens: 200 });
for await (const _ of left) break; // this aborts the request
check("after an abort", (await chat({})).choices[0].message.content.length > 0);

console.log(JSON.stringify({ checks }));
