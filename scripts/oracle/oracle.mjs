// llama.cpp's greedy tokens and tokenizations, as JSON, for the engine's fixtures.
//
//   npm ci --prefix scripts/oracle
//   node scripts/oracle/oracle.mjs MODEL.gguf CASES.json > FIXTURE.json
//
// CASES.json: {"tokens": 48, "greedy": ["prompt with <|special|> tokens", ...], "tokenize": ["text", ...]}.
// For each greedy token the margin between the best and the second-best log-probability is printed too, so that
// near-ties, which another rounding may flip, can be told from errors.
import {createHash} from "node:crypto";
import {readFileSync} from "node:fs";
import {getLlama} from "node-llama-cpp";

const [modelPath, casesPath] = process.argv.slice(2);
const cases = JSON.parse(readFileSync(casesPath, "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath});

async function greedy(prompt) {
    const ids = model.tokenize(prompt, true);
    const context = await model.createContext({contextSize: 512, sequences: 1, threads: 1});
    const sequence = context.getSequence();
    const tokens = [], margins = [];
    const steps = sequence.evaluateWithMetadata(ids, {probabilities: true}, {temperature: 0});
    for await (const {token, probabilities} of steps) {
        const [first, second] = [...probabilities.values()];
        tokens.push(token);
        margins.push(Number((Math.log(first) - Math.log(second)).toFixed(4)));
        if (model.isEogToken(token) || tokens.length >= cases.tokens) break;
    }
    await context.dispose();
    return {prompt, prompt_tokens: ids, tokens, margins, text: model.detokenize(tokens, true)};
}

const result = {
    model_sha256: createHash("sha256").update(readFileSync(modelPath)).digest("hex"),
    oracle: "node-llama-cpp " + JSON.parse(readFileSync(new URL("package.json", import.meta.url))).dependencies["node-llama-cpp"],
    greedy: [],
    tokenize: (cases.tokenize ?? []).map((text) => ({text, tokens: model.tokenize(text, false)})),
};
for (const prompt of cases.greedy) result.greedy.push(await greedy(prompt));
console.log(JSON.stringify(result, null, 1).replace(/\[\s+(-?[\d.,\s]+?)\s+\]/g, (_, list) => "[" + list.replace(/\s+/g, " ") + "]"));
process.exit(0);
