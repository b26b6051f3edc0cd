// What a decoding step asks of the driver: one graph, the copies of its inputs and of the drawn ids, no memory, no waiting call.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BatchDriver } from "../../dist/bench/batch-driver.js";
import { CudaDevice } from "../../dist/device/cuda/cuda-device.js";
import { loadDriverLibrary } from "../../dist/device/cuda/library.js";
import { openLanguageModel } from "../../dist/engine/language-model.js";

const folder = new URL("../../models/shakespeare-mla", import.meta.url).pathname;

/** The driver's library, each call noted with its parameters. */
async function watchedLibrary() {
  const library = await loadDriverLibrary();
  const calls = [];
  const bind = (name, parameters) => {
    const call = library.bind(name, parameters);
    return (...values) => {
      calls.push({ name, values });
      return call(...values);
    };
  };
  return { calls, library: { ...library, bind } };
}

describe("a decoding step", () => {
  for (const batch of [1, 4]) {
    it(`batch ${batch}: one graph, one small read, nothing allocated, nothing waited for`, async () => {
      const { calls, library } = await watchedLibrary();
      const device = await CudaDevice.open({ library });
      const options = { maxContext: 256, cacheTokens: batch * 320, maxDecodeRows: batch, maxChunkTokens: 16 };
      const model = await openLanguageModel(folder, { device, ...options });
      const driver = new BatchDriver(model, batch, 64, 40);
      for (let step = 0; step < 6; step++) await driver.decode();
      calls.length = 0;
      const used = device.memory.usedBytes;
      calls.length = 0;
      const steps = 20;
      for (let step = 0; step < steps; step++) await driver.decode();
      const made = calls.splice(0);
      assert.equal(device.memory.usedBytes, used);
      const count = (name) => made.filter((call) => call.name === name).length;
      assert.equal(count("cuGraphLaunch"), steps);
      assert.equal(count("cuMemcpyDtoHAsync_v2"), steps);
      for (const { name, values } of made) {
        assert.doesNotMatch(
          name,
          /Alloc|Free|StreamSynchronize|CtxSynchronize|LaunchKernel|Capture|Instantiate/,
        );
        if (name === "cuMemcpyDtoHAsync_v2")
          assert.ok(Number(values[2]) <= 4 * batch, `${values[2]} bytes read`);
      }
      // Inputs go through a ring of four places: the event of the copy out of a place four copies ago has long happened.
      assert.ok(count("cuMemcpyHtoDAsync_v2") <= 2 * steps, `${count("cuMemcpyHtoDAsync_v2")} uploads`);
      model.close();
      await device.close();
    });
  }
});
