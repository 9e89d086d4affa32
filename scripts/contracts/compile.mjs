// Compiles contracts/*.tolk with the pinned compiler.
//   node compile.mjs --check   compares with the committed .boc files and contracts.lock; exit 1 on any difference
//   node compile.mjs --write   writes them
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import tolk from "@ton/tolk-js";

const CONTRACTS = ["bond", "channel", "payout", "registry"];
const folder = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "contracts");
const mode = process.argv[2];
if (mode !== "--check" && mode !== "--write") {
    console.error("usage: node compile.mjs --check | --write");
    process.exit(2);
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

async function compile(name) {
    const source = readFileSync(join(folder, `${name}.tolk`));
    const result = await tolk.runTolkCompiler({
        entrypointFileName: `${name}.tolk`,
        fsReadCallback: (path) => readFileSync(join(folder, path), "utf-8"),
    });
    if (result.status === "error") {
        console.error(`${name}.tolk does not compile:\n${result.message}`);
        process.exit(1);
    }
    const boc = Buffer.from(result.codeBoc64, "base64");
    const lock = { source_sha256: sha256(source), code_hash: result.codeHashHex.toLowerCase(), boc_sha256: sha256(boc) };
    return { name, boc, lock };
}

const compiler = `@ton/tolk-js ${JSON.parse(readFileSync(new URL("./package.json", import.meta.url))).dependencies["@ton/tolk-js"]}`;
const compiled = [];
for (const name of CONTRACTS) compiled.push(await compile(name));
const lock = { compiler, tolk: await tolk.getTolkCompilerVersion(), contracts: Object.fromEntries(compiled.map((c) => [c.name, c.lock])) };
const lockText = JSON.stringify(lock, null, 2) + "\n";

if (mode === "--write") {
    for (const { name, boc } of compiled) writeFileSync(join(folder, `${name}.boc`), boc);
    writeFileSync(join(folder, "contracts.lock"), lockText);
    console.log(`wrote ${CONTRACTS.map((n) => `${n}.boc`).join(", ")} and contracts.lock (${compiler})`);
} else {
    let same = true;
    const compare = (file, expected) => {
        if (!readFileSync(join(folder, file)).equals(Buffer.from(expected))) {
            console.error(`contracts/${file} is not what the pinned compiler makes of the sources: run \`npm run compile\` in scripts/contracts and review the difference`);
            same = false;
        }
    };
    for (const { name, boc } of compiled) compare(`${name}.boc`, boc);
    compare("contracts.lock", lockText);
    if (!same) process.exit(1);
    console.log(`contracts match their sources (${compiler}): ${compiled.map((c) => `${c.name} ${c.lock.code_hash.slice(0, 16)}…`).join(", ")}`);
}
