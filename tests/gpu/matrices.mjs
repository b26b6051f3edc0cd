// Data and random matrices on a device, for the tests of products.
import { decodeToF32, encodeFromF32 } from "../../dist/base/convert.js";
import { createRandom } from "../../dist/base/random.js";

/** Both on the device that `deviceOf` gives when they are called; a matrix is bf16, with its values. */
export function matricesOn(deviceOf) {
  function upload(data, bytes = data.byteLength) {
    const buffer = deviceOf().allocate(bytes, "data");
    deviceOf().write(buffer, data);
    return buffer;
  }

  function matrix(seed, rows, columns) {
    const bytes = encodeFromF32(createRandom(seed).normals(rows * columns, columns ** -0.5), "bf16");
    return {
      weight: { buffer: upload(bytes), dtype: "bf16", rows, columns },
      values: decodeToF32(bytes, "bf16"),
    };
  }

  return { upload, matrix };
}
