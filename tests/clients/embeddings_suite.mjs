// The official `openai` package of npm against the local endpoint, with a worker whose model makes embeddings.
// Usage: node embeddings_suite.mjs FOLDER_WITH_NODE_MODULES BASE_URL MODEL. Prints one JSON object.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [folder, baseURL, model] = process.argv.slice(2);
const { default: OpenAI } = createRequire(`${folder}/`)("openai");
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0, timeout: 120_000 });
const embed = (input, more) => client.embeddings.create({ model, input, ...more });
let checks = 0;
const check = (name, holds, about) => (assert.ok(holds, `${name}: ${JSON.stringify(about)}`), checks++);
const refused = async (name, call, code, param) => {
    const error = await call().then(() => assert.fail(`${name} was accepted`), (error) => error);
    check(name, error instanceof OpenAI.APIError && error.code === code && error.param === param, error);
};

const input = ["A list has an order.", "A tuple cannot be changed."];
const answer = await embed(input);
check("order", answer.data.map((item) => item.index).join() === "0,1" && answer.model === model, answer);
const vectors = answer.data.map((item) => Array.from(item.embedding));
check("length one", vectors.every((v) => Math.abs(v.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-5), vectors);
check("usage", answer.usage.prompt_tokens > 4 && answer.usage.total_tokens === answer.usage.prompt_tokens, answer.usage);
const plain = await embed(input, { encoding_format: "float" });
check("floats", plain.data.every((item, at) => item.embedding.every((x, i) => Math.fround(x) === vectors[at][i])), plain);
const coded = await embed(input[0], { encoding_format: "base64" });
check("base64", Buffer.from(coded.data[0].embedding, "base64").length === 4 * vectors[0].length, coded);
check("tokens", (await embed([[5, 6], [7]])).usage.prompt_tokens === 3);
check("many", (await embed(Array(2048).fill("a list"))).data.length === 2048);

await refused("nothing", () => embed([]), "invalid_value", "input");
await refused("too long", () => embed("word ".repeat(5000)), "context_length_exceeded", "input");
await refused("dimensions", () => embed("a", { dimensions: 7 }), "invalid_value", "dimensions");
await refused("no such model", () => embed("a", { model: "no-such-model" }), "model_not_found", "model");
const messages = [{ role: "user", content: "Hi" }];
await refused("chat", () => client.chat.completions.create({ model, messages }), "unsupported_endpoint", "model");
check("it goes on", (await embed("a")).data.length === 1);

console.log(JSON.stringify({ checks }));
