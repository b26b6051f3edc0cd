// Moves the texts of dist/**/*.wgsl.js into dist/device/webgpu/wgsl-texts.js, deflated together: browser bundles carry them all.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";

/** Packs the modules under `dist`, once they are compiled; the number of files packed. */
export function packWgsl(dist) {
  const texts = {};
  for (const file of readdirSync(dist, { recursive: true }).sort()) {
    if (!file.endsWith(".wgsl.js")) continue;
    const path = join(dist, file);
    const code = readFileSync(path, "utf8");
    const name = JSON.parse(code.match(/^ *name: (".*"),$/m)[1]);
    const [field, text] = code.match(/^ *text: (".*"),$/m);
    texts[name] = JSON.parse(text);
    writeFileSync(
      path,
      code.replace(field, () => '    text: "",'),
    );
  }
  const target = join(dist, "device", "webgpu", "wgsl-texts.js");
  const code = readFileSync(target, "utf8");
  const packed = deflateRawSync(JSON.stringify(texts), { level: 9 }).toString("base64");
  if (!code.includes('const packed = "";')) throw new Error("wgsl-texts.js has no place for the texts");
  writeFileSync(
    target,
    code.replace('const packed = "";', () => `const packed = "${packed}";`),
  );
  return Object.keys(texts).length;
}
