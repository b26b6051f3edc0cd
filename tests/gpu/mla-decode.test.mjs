// What only a GPU can show; run it with `npm run test:gpu` on a machine with an NVIDIA driver. `flashmla verify --device cuda` is
// the other half: every shape against float64.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { encodeFromF32 } from "../../dist/base/convert.js";
import { createRandom } from "../../dist/base/random.js";
import { openDevice } from "../../dist/device/index.js";
import { mlaDecode } from "../../dist/kernels/mla-decode/mla-decode.js";

const LATENT = 512;
const WIDTH = 576;
const PAGE = 64;

let device;
before(async () => {
  device = await openDevice({ kind: "cuda", poison: true });
});
after(() => device.close());

function upload(data) {
  const buffer = device.allocate(data.byteLength, "data");
  device.write(buffer, data);
  return buffer;
}

const known = new Map();

/** `length` bf16 values that belong to a seed; made once. */
function values(seed, length) {
  const key = `${seed} ${length}`;
  if (!known.has(key)) known.set(key, encodeFromF32(createRandom(seed).normals(length), "bf16"));
  return known.get(key);
}

/** A decode over sequences of `lengths`; sequence b has the values of seed b, whatever the others are. */
function prepare({ lengths, heads, cuda }) {
  const maxPages = Math.ceil(Math.max(...lengths) / PAGE);
  const batch = lengths.length;
  const cache = lengths.map((_, b) => values(b, maxPages * PAGE * WIDTH));
  const q = lengths.map((_, b) => values(1000 + b, heads * WIDTH));
  const out = device.allocate(batch * heads * LATENT * 2, "out");
  const lse = device.allocate(batch * heads * 4, "lse");
  const args = {
    ...{ batch, sQ: 1, heads, latentWidth: LATENT, ropeWidth: 64, maxLen: Math.max(...lengths) },
    ...{ mask: "causal", maxPages, cacheSeqlens: upload(Int32Array.from(lengths)) },
    blockTable: upload(Int32Array.from({ length: batch * maxPages }, (_, i) => i)),
    ...{ q: upload(Buffer.concat(q)), qDtype: "bf16", out, outDtype: "bf16", lse },
    cache: { buffer: upload(Buffer.concat(cache)), dtype: "bf16", pageSize: PAGE },
    ...{ softmaxScale: 192 ** -0.5, workspace: device.allocate(4, "workspace"), cuda },
  };
  return { program: device.record((launch) => mlaDecode(launch, args)), out, lse, heads };
}

async function resultOf({ program, out, lse }) {
  program.run();
  return [
    new Uint8Array(await device.read(out, 0, out.bytes)),
    new Uint8Array(await device.read(lse, 0, lse.bytes)),
  ];
}

describe("splits at fixed places", () => {
  for (const heads of [16, 64, 128]) {
    const cuda = { variant: "hopper", splitTokens: 256 };
    it(`heads=${heads}: a sequence gives the same bits alone and among five`, async () => {
      const alone = await resultOf(prepare({ lengths: [1500], heads, cuda }));
      const among = await resultOf(prepare({ lengths: [1500, 3, 700, 1024, 65], heads, cuda }));
      for (const [i, bytes] of alone.entries()) {
        assert.deepEqual(among[i].subarray(0, bytes.length), bytes);
      }
    });

    it(`heads=${heads}: 1,000 replays give the same bits`, async () => {
      const prepared = prepare({ lengths: [1500, 3, 700, 1024, 65], heads, cuda });
      const [out, lse] = await resultOf(prepared);
      for (let i = 0; i < 1000; i++) {
        const again = await resultOf(prepared);
        assert.deepEqual(again[0], out, `out of replay ${i}`);
        assert.deepEqual(again[1], lse, `lse of replay ${i}`);
      }
    });
  }
});

describe("the device", () => {
  it("gives memory back, and says what does not fit", async () => {
    const before = device.memory.usedBytes;
    const buffer = device.allocate(2 ** 20, "a megabyte");
    assert.equal(device.memory.usedBytes, before + 2 ** 20);
    buffer.free();
    assert.equal(device.memory.usedBytes, before);
    assert.throws(() => device.allocate(2 ** 42, "too much"), /no room for too much/);
  });

  it("a second device on the same GPU works while the first is open", async () => {
    const second = await openDevice({ kind: "cuda" });
    const buffer = second.allocate(12, "three");
    second.write(buffer, new Float32Array([1, 2, 3]));
    assert.deepEqual(new Float32Array(await second.read(buffer, 0, 12)), new Float32Array([1, 2, 3]));
    await second.close();
    device.allocate(16, "still open").free();
  });
});
