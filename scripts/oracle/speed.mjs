// llama.cpp's tokens per second, by its own native build for this processor.
//
//   node scripts/oracle/speed.mjs MODEL.gguf THREADS PREFILL DECODE ROUNDS
//
// Prints `prefill NUMBER decode NUMBER`, each the best of ROUNDS. The tokens are those of the engine's own benchmark.
import {getLlama} from "node-llama-cpp";

const [modelPath, ...numbers] = process.argv.slice(2);
const [threads, prefill, decode, rounds] = numbers.map(Number);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: threads});
const model = await llama.loadModel({modelPath});
const vocabulary = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
const prompt = Array.from({length: prefill}, (_, i) => (i * 7919 + 13) % vocabulary);
const best = {prefill: 0, decode: 0};
const perSecond = (tokens, begun) => tokens / (Number(process.hrtime.bigint() - begun) / 1e9);

for (let round = 0; round < rounds; round++) {
    const context = await model.createContext({contextSize: 512, batchSize: prefill, sequences: 1, threads: {ideal: threads, min: threads}});
    const sequence = context.getSequence();
    // The last token is read by the decode below, so that both sides make as many logits.
    let begun = process.hrtime.bigint();
    await sequence.evaluateWithoutGeneratingNewTokens(prompt);
    best.prefill = Math.max(best.prefill, perSecond(prefill, begun));
    begun = process.hrtime.bigint();
    let tokens = 0;
    for await (const _ of sequence.evaluate([prompt[0]], {temperature: 0, yieldEogToken: true})) {
        if (++tokens >= decode) break;
    }
    best.decode = Math.max(best.decode, perSecond(tokens, begun));
    if (tokens < decode) throw new Error(`only ${tokens} tokens came`);
    await context.dispose();
}
console.log(`prefill ${best.prefill.toFixed(2)} decode ${best.decode.toFixed(2)}`);
process.exit(0);
