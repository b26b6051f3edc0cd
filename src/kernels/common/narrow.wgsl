// float32 to the stored forms of a cache, rounded to nearest even whatever the hardware's conversion does.

fn narrowBf16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits >> 16u) | 0x40u; }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

fn narrowF16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let magnitude = bits & 0x7fffffffu;
  let sign = (bits >> 16u) & 0x8000u;
  if (magnitude > 0x7f800000u) { return sign | 0x7e00u; }
  if (magnitude >= 0x47800000u) { return sign | 0x7c00u; }
  // Below 2^-14 the last place is 2^-24, that of 0.5 as float32.
  if (magnitude < 0x38800000u) { return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u); }
  return sign | ((magnitude + 0xfffu + ((magnitude >> 13u) & 1u) - 0x38000000u) >> 13u);
}

/// A value of magnitude 448 or less.
fn narrowE4m3(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let magnitude = bits & 0x7fffffffu;
  let sign = (bits >> 24u) & 0x80u;
  // Below 2^-6 the last place is 2^-9, that of 2^14 as float32.
  if (magnitude < 0x3c800000u) { return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 16384.0) - 0x46800000u); }
  return sign | min((magnitude + 0x7ffffu + ((magnitude >> 20u) & 1u) - 0x3c000000u) >> 20u, 0x7fu);
}
