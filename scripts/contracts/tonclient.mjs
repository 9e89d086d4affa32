// An independent client of the toncenter v2 shape: @ton/ton's TonClient deploys a wallet, pays, and reads.
//   node tonclient.mjs http://127.0.0.1:PORT     (a development ledger: `cocoon chain`)
import assert from "node:assert/strict";
import { keyPairFromSeed } from "@ton/crypto";
import { internal, SendMode, toNano, TonClient, WalletContractV4 } from "@ton/ton";
import { randomBytes } from "node:crypto";

const base = process.argv[2];
if (!base) {
    console.error("usage: node tonclient.mjs <URL of a development ledger>");
    process.exit(2);
}
const client = new TonClient({ endpoint: `${base}/api/v2/jsonRPC` });

async function until(what, condition) {
    for (const end = Date.now() + 20_000; Date.now() < end; ) {
        const value = await condition();
        if (value) return value;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`${what} did not happen within 20 s`);
}

const key = keyPairFromSeed(randomBytes(32));
const wallet = client.open(WalletContractV4.create({ workchain: 0, publicKey: key.publicKey }));
const friend = WalletContractV4.create({ workchain: 0, publicKey: keyPairFromSeed(randomBytes(32)).publicKey }).address;

const grant = await fetch(`${base}/faucet`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ address: wallet.address.toRawString(), amount: Number(toNano("5")) }),
});
assert.equal((await grant.json()).ok, true, "the faucet gives");
assert.equal(await client.getBalance(wallet.address), toNano("5"));
assert.equal(await client.isContractDeployed(wallet.address), false);

await wallet.sendTransfer({
    seqno: 0,
    secretKey: key.secretKey,
    sendMode: SendMode.PAY_GAS_SEPARATELY,
    messages: [internal({ to: friend, value: "1.5", bounce: false, body: "thank you" })],
});
await until("the transfer", async () => (await client.getBalance(friend)) === toNano("1.5"));

assert.equal(await client.isContractDeployed(wallet.address), true);
assert.equal(await wallet.getSeqno(), 1, "runGetMethod tells the seqno");
const { stack, gas_used } = await client.runMethod(wallet.address, "get_public_key");
assert.equal(stack.readBigNumber().toString(16).padStart(64, "0"), key.publicKey.toString("hex"));
assert.ok(gas_used > 0);

const [sent, funded] = await client.getTransactions(wallet.address, { limit: 10 });
assert.equal(sent.inMessage.info.type, "external-in");
assert.equal([...sent.outMessages.values()][0].info.value.coins, toNano("1.5"));
assert.equal(funded.inMessage.info.value.coins, toNano("5"));
const again = await client.getTransaction(wallet.address, sent.lt.toString(), sent.hash().toString("base64"));
assert.deepEqual(again.hash(), sent.hash(), "a transaction is found by its name");

const info = await client.getMasterchainInfo();
assert.ok(info.latestSeqno > info.initSeqno);
assert.equal((await client.getWorkchainShards(info.latestSeqno)).length, 1);

// Twenty transfers, read page by page: each page goes on where the one before ended.
for (let seqno = 1; seqno <= 20; seqno++) {
    const message = internal({ to: friend, value: "0.01", bounce: false, body: `number ${seqno}` });
    await wallet.sendTransfer({ seqno, secretKey: key.secretKey, sendMode: SendMode.PAY_GAS_SEPARATELY, messages: [message] });
    await until(`transfer ${seqno}`, async () => (await wallet.getSeqno()) === seqno + 1);
}
const pages = [];
for (let from = {}; ; ) {
    const page = await client.getTransactions(wallet.address, { limit: 8, ...from });
    pages.push(...page); // the client leaves the one that it goes on from out
    if (page.length < 8) break;
    const last = page[page.length - 1];
    from = { lt: last.lt.toString(), hash: last.hash().toString("base64") };
}
assert.equal(pages.length, 22, "the faucet's money, the deployment and twenty transfers");
for (let i = 1; i < pages.length; i++) {
    assert.equal(pages[i - 1].prevTransactionLt, pages[i].lt, "no transaction is left out or said twice");
    assert.equal(pages[i - 1].prevTransactionHash, BigInt(`0x${pages[i].hash().toString("hex")}`));
}

// What a transfer would cost, asked before it is sent and held against what one did cost.
const planned = wallet.createTransfer({
    seqno: 21, secretKey: key.secretKey, sendMode: SendMode.PAY_GAS_SEPARATELY,
    messages: [internal({ to: friend, value: "0.01", bounce: false, body: "number 21" })],
});
const { source_fees: fees } = await client.estimateExternalMessageFee(wallet.address, {
    body: planned, initCode: null, initData: null, ignoreSignature: true,
});
const estimated = BigInt(fees.in_fwd_fee + fees.gas_fee + fees.fwd_fee);
const [paid] = pages[0].outMessages.values();
const cost = pages[0].totalFees.coins + paid.info.forwardFee;
assert.ok(estimated * 10n > cost * 9n && estimated * 9n < cost * 10n, `estimated ${estimated}, a like one cost ${cost}`);

// The same in blocks: the shard's block that holds a transaction lists it.
const shards = await client.getWorkchainShards((await client.getMasterchainInfo()).latestSeqno);
assert.equal(shards[0].workchain, 0);
let found = false;
for (let seqno = shards[0].seqno; seqno > 0 && !found; seqno--) {
    const listed = await client.getShardTransactions(0, seqno, shards[0].shard);
    found = listed.some((tx) => tx.lt === pages[0].lt.toString() && tx.account.equals(wallet.address));
}
assert.ok(found, "the newest transfer is in a block");

// A replay is refused, with the words of the network.
const replay = wallet.createTransfer({ seqno: 0, secretKey: key.secretKey, messages: [internal({ to: friend, value: "1" })] });
await assert.rejects(wallet.send(replay), (error) => error.response?.data?.error?.includes("External message") || error.response?.status === 500);
console.log("TonClient deployed, paid, read and was refused as it should be");
