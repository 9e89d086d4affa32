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

// A replay is refused, with the words of the network.
const replay = wallet.createTransfer({ seqno: 0, secretKey: key.secretKey, messages: [internal({ to: friend, value: "1" })] });
await assert.rejects(wallet.send(replay), (error) => error.response?.data?.error?.includes("External message") || error.response?.status === 500);
console.log("TonClient deployed, paid, read and was refused as it should be");
