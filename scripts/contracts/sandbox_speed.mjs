// The loads of `xtask bench ledger` in @ton/sandbox: the C++ TVM as wasm, whole transactions, the same accounts,
// configuration and messages.
//   node sandbox_speed.mjs LOAD.json...    prints one line for each load
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Address, Cell, loadShardAccount } from "@ton/core";
import { Blockchain } from "@ton/sandbox";

const cell = (text) => Cell.fromBase64(text);

for (const file of process.argv.slice(2)) {
    const load = JSON.parse(readFileSync(file, "utf8"));
    const chain = await Blockchain.create({ config: cell(load.config) });
    chain.now = load.now;
    for (const { address, account } of load.accounts) {
        await chain.setShardAccount(Address.parse(address), loadShardAccount(cell(account).beginParse()));
    }
    const messages = load.messages.map(cell);
    let transactions = 0;
    const begun = process.hrtime.bigint();
    for (const message of messages) {
        const done = await chain.sendMessage(message);
        transactions += done.transactions.length;
    }
    const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
    assert.ok(transactions >= 1.9 * messages.length, `${load.name}: ${transactions} transactions`);
    console.log(`${load.name}: ${Math.round(transactions / seconds)} transactions a second`);
}
