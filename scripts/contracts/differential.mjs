// Carries out every transaction of a tape again in @ton/sandbox, the C++ TVM as wasm, and compares.
//   node differential.mjs TAPE.jsonl      (written by contracts/ledger/tests/sequences/differential.rs)
// A line of the tape is a block: its accounts before and after, and its transactions in order. Within a block the sandbox goes on
// from its own accounts; each block begins with the ledger's, so that a nanoton of difference does not add up.
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { beginCell, Cell, loadMessage, loadShardAccount, loadTransaction, storeMessage } from "@ton/core";
import { Executor } from "@ton/sandbox";

const SHOWN = 10;
const ALLOWED = 1n; // nanotons, where fees are rounded

const executor = await Executor.create();
const nothing = beginCell().storeRef(beginCell().storeBit(false).endCell()).storeUint(0, 256).storeUint(0, 64).endCell().toBoc().toString("base64");
const counts = { transactions: 0, exact: 0, rounded: 0, different: 0, kept: 0 };
const exits = new Map();
const fields = new Map();
const shown = [];

const hash = (cell) => (cell ? cell.hash().toString("hex") : "none");
const coins = (value) => value ?? 0n;

function state(text) {
    const { account } = loadShardAccount(Cell.fromBase64(text).beginParse());
    if (!account) return { status: "none", balance: 0n, due: 0n };
    const { storage, storageStats } = account;
    const init = storage.state.type === "active" ? storage.state.state : undefined;
    return {
        status: storage.state.type,
        code: hash(init?.code),
        data: hash(init?.data),
        frozen: storage.state.type === "frozen" ? storage.state.stateHash.toString(16) : "",
        cells: storageStats.used.cells,
        bits: storageStats.used.bits,
        lastPaid: storageStats.lastPaid,
        due: coins(storageStats.duePayment),
        balance: storage.balance.coins,
    };
}

function outMessage(message) {
    const { info } = message;
    const body = hash(message.body);
    if (info.type !== "internal") return { type: info.type, body };
    return {
        to: info.dest.toRawString(), bounce: info.bounce, bounced: info.bounced, body,
        init: message.init ? hash(beginCell().store(storeMessage({ ...message, body: Cell.EMPTY })).endCell()) : "none",
        lt: info.createdLt, at: info.createdAt, value: info.value.coins, forward: info.forwardFee,
    };
}

function phases(text) {
    const tx = loadTransaction(Cell.fromBase64(text).beginParse());
    const { description: it } = tx;
    const compute = it.computePhase;
    const action = it.actionPhase;
    const facts = {
        lt: tx.lt, now: tx.now, aborted: it.aborted, destroyed: it.destroyed, from: tx.oldStatus, to: tx.endStatus,
        compute: compute.type === "skipped" ? `skipped: ${compute.reason}` : compute.exitCode,
        gas: compute.gasUsed ?? 0n, gasLimit: compute.gasLimit ?? 0n, gasCredit: compute.gasCredit ?? 0, steps: compute.vmSteps ?? 0,
        action: action ? `${action.success} ${action.valid} ${action.noFunds} ${action.resultCode} ${action.statusChange}` : "none",
        actions: action ? `${action.totalActions} ${action.specActions} ${action.skippedActions} ${action.messagesCreated}` : "none",
        list: action ? action.actionListHash.toString(16) : "none",
        bounce: it.bouncePhase?.type ?? "none", outs: tx.outMessages.size,
    };
    const fees = {
        total: tx.totalFees.coins, gas: coins(compute.gasFees), storage: coins(it.storagePhase?.storageFeesCollected),
        storageDue: coins(it.storagePhase?.storageFeesDue), credit: coins(it.creditPhase?.credit.coins),
        forward: coins(action?.totalFwdFees), action: coins(action?.totalActionFees),
        bounce: coins(it.bouncePhase?.forwardFees) + coins(it.bouncePhase?.messageFees),
    };
    [...tx.outMessages.values()].map(outMessage).forEach(({ value, forward, ...rest }, at) => {
        for (const [name, fact] of Object.entries(rest)) facts[`out ${at} ${name}`] = fact;
        fees[`out ${at} value`] = coins(value);
        fees[`out ${at} forward`] = coins(forward);
    });
    return { facts, fees, destroyed: it.destroyed };
}

// What must be equal, and what may differ by a nanoton.
function compare(where, ours, theirs) {
    let verdict = "exact";
    const differ = (name, a, b) => {
        verdict = "different";
        fields.set(name, (fields.get(name) ?? 0) + 1);
        if (shown.length < SHOWN) shown.push(`${where}: ${name}: the ledger has ${a}, the C++ TVM ${b}`);
    };
    for (const [kind, tolerance] of [["facts", 0n], ["fees", ALLOWED]]) {
        for (const name of new Set([...Object.keys(ours[kind]), ...Object.keys(theirs[kind])])) {
            const [a, b] = [ours[kind][name], theirs[kind][name]];
            if (a === b) continue;
            const near = tolerance > 0n && typeof a === "bigint" && typeof b === "bigint" && (a > b ? a - b : b - a) <= tolerance;
            if (!near) differ(name, a, b);
            else if (verdict === "exact") verdict = "rounded";
        }
    }
    return verdict;
}

function split({ balance, due, ...facts }) {
    return { facts, fees: { balance, due } };
}

// The one deviation that is known: where the action phase fails after a message was priced, tycho-executor keeps the
// sender's part of its forward fee (a third of it) as an action fee, and the C++ TVM does not charge it. Which of the two
// reports what, is as told here and nothing else is let through; the balance then differs by that fee alone.
function keptActionFee({ ours, theirs }) {
    const failed = ours.facts.action === theirs.facts.action && ours.facts.action.startsWith("false");
    const kept = ours.fees.action - theirs.fees.action;
    const shape = failed && kept > 0n && theirs.fees.action === 0n && ours.fees.forward === 0n;
    if (!shape || ours.fees.total - theirs.fees.total !== kept) return 0n;
    Object.assign(ours.fees, { total: theirs.fees.total, action: 0n, forward: theirs.fees.forward });
    return kept;
}

const order = ["exact", "rounded", "different"];
const worse = (a, b) => (order.indexOf(a) > order.indexOf(b) ? a : b);

async function carryOut(config, account, { message, lt, now, transaction }) {
    const { result } = await executor.runTransaction({
        config, libs: null, verbosity: "short", shardAccount: account ?? nothing, message: Cell.fromBase64(message),
        now, lt: BigInt(lt), randomSeed: Buffer.alloc(32), ignoreChksig: false, debugEnabled: false,
    });
    if (!result.success) throw new Error(`the C++ TVM made no transaction: ${result.error} ${result.vmResults?.vmExitCode ?? ""}`);
    const [ours, theirs] = [phases(transaction), phases(result.transaction)];
    return { ours, theirs, account: result.shardAccount };
}

let configs;
for await (const line of createInterface({ input: createReadStream(process.argv[2]) })) {
    const block = JSON.parse(line);
    if (block.configs) {
        configs = block.configs;
        continue;
    }
    const accounts = { ...block.before };
    const verdicts = [];
    const keptOf = new Map();
    for (const tx of block.transactions) {
        const where = `sequence ${block.sequence} (${block.schedule}), lt ${tx.lt} of ${tx.account}`;
        counts.transactions += 1;
        const done = await carryOut(configs[block.schedule], accounts[tx.account], tx).catch((error) => ({ error }));
        if (done.error) {
            counts.different += 1;
            if (shown.length < SHOWN) shown.push(`${where}: ${done.error.message}`);
            verdicts.push(null);
            continue;
        }
        accounts[tx.account] = done.account;
        const kept = keptActionFee(done);
        if (kept > 0n) {
            counts.kept += 1;
            keptOf.set(tx.account, (keptOf.get(tx.account) ?? 0n) + kept);
        }
        exits.set(done.ours.facts.compute, (exits.get(done.ours.facts.compute) ?? 0) + 1);
        verdicts.push([tx.account, compare(where, done.ours, done.theirs)]);
    }
    // The accounts after the block count as part of the last transaction of each.
    const last = new Map(verdicts.filter(Boolean).map(([account], at) => [account, at]));
    verdicts.filter(Boolean).forEach(([account, verdict], at) => {
        const where = `sequence ${block.sequence} (${block.schedule}), account ${account} after the block`;
        const [after, theirs] = [split(state(block.after[account])), split(state(accounts[account]))];
        theirs.fees.balance -= keptOf.get(account) ?? 0n;
        const ended = last.get(account) === at ? compare(where, after, theirs) : "exact";
        counts[worse(verdict, ended)] += 1;
    });
}
console.log(`${counts.transactions} transactions carried out again by the C++ TVM (${JSON.stringify(executor.getVersion())}):`);
console.log(`  ${counts.exact} the same, ${counts.rounded} within a nanoton, ${counts.different} different; ${counts.kept} where a failed action phase kept a fee (named in this file)`);
console.log(`  exit codes: ${[...exits].sort((a, b) => b[1] - a[1]).map(([code, times]) => `${typeof code === "number" && code > 255 ? `0x${code.toString(16)}` : code} ×${times}`).join(", ")}`);
if (counts.different > 0) console.error(`different: ${[...fields].map(([name, times]) => `${name} ×${times}`).join(", ")}\n${shown.join("\n")}`);
process.exit(counts.different === 0 && counts.transactions > 0 ? 0 : 1);
