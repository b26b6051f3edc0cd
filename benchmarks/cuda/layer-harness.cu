// Checks and times builds of the attention layer's Hopper kernels without Node: prologue, decode and epilogue, each alone and chained by
// programmatic dependent launch, weights and caches of 16 layers in turn. Every line of standard input is one experiment,
//
//   b h s [tokens=4|8|16|32] [each=TOKENS] [pad=BYTES] [rows=0|16|32] [cluster=N] [prologue=PATH] [epilogue=PATH] [few=PATH] [many=PATH] [fused=PATH] [three=0] [ragged=1] [masks=1] [notime=1] [stamps=1]
//
// with d_c 512, d_r 64, d_n = d_v = 128, bf16. Queries, entries and values are checked against float64; the chained layers must give the bits
// that the same launches give one after another.
//
//   nvcc -std=c++17 -O2 -gencode=arch=compute_90a,code=sm_90a -o layer-harness benchmarks/cuda/layer-harness.cu -lcuda
//   ./layer-harness cubin [bytes of all caches] [heads at most] < experiments
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>
#include "harness.cuh"

using bf16 = __nv_bfloat16;
constexpr int LATENT = 512, ROPE = 64, NOPE = 128, VALUE = 128, ENTRY = LATENT + ROPE, QUERY = NOPE + ROPE, KV = NOPE + VALUE;
constexpr int PAGE = 64, LAYERS = 16, CALLS = 32, POSITIONS = 64;
constexpr float SCALE = 0.07216878364870322f, EPSILON = 1e-6f;

/** Largest difference, and the largest expected value, as bits of positive floats. */
struct Worst {
  unsigned difference, value;
};

__device__ void keep(Worst* worst, double actual, double expected) {
  const double difference = fabs(actual - expected);
  atomicMax(&worst->difference, __float_as_uint(difference == difference ? static_cast<float>(difference) : 1e30f));
  atomicMax(&worst->value, __float_as_uint(static_cast<float>(fabs(expected))));
}

__global__ void checkQueries(const float* q, const bf16* kvB, const float* rotary, const int* positions, const bf16* out, int heads, Worst* worst) {
  const int token = blockIdx.x / heads, head = blockIdx.x % heads;
  const float* own = q + static_cast<size_t>(blockIdx.x) * QUERY;
  for (int c = threadIdx.x; c < ENTRY; c += blockDim.x) {
    double sum = 0;
    if (c < LATENT) {
      for (int j = 0; j < NOPE; j++) sum += static_cast<double>(own[j]) * __bfloat162float(kvB[(static_cast<size_t>(head) * KV + j) * LATENT + c]);
    } else {
      const int pair = (c - LATENT) / 2;
      const float* table = rotary + positions[token] * ROPE;
      const double x = own[NOPE + 2 * pair], y = own[NOPE + 2 * pair + 1], cosine = table[pair], sine = table[pair + ROPE / 2];
      sum = (c & 1) == 0 ? x * cosine - y * sine : y * cosine + x * sine;
    }
    keep(worst, __bfloat162float(out[static_cast<size_t>(blockIdx.x) * ENTRY + c]), sum);
  }
}

__global__ void checkEntries(const float* latents, const float* norm, const float* rotary, const int* positions, const int* slots, const bf16* cache, Worst* worst) {
  const float* own = latents + static_cast<size_t>(blockIdx.x) * ENTRY;
  if (slots[blockIdx.x] < 0) return;
  double squares = 0;
  for (int i = 0; i < LATENT; i++) squares += static_cast<double>(own[i]) * own[i];
  const double factor = 1 / sqrt(squares / LATENT + EPSILON);
  for (int c = threadIdx.x; c < ENTRY; c += blockDim.x) {
    double value;
    if (c < LATENT) value = own[c] * factor * norm[c];
    else {
      const int pair = (c - LATENT) / 2;
      const float* table = rotary + positions[blockIdx.x] * ROPE;
      const double x = own[LATENT + 2 * pair], y = own[LATENT + 2 * pair + 1], cosine = table[pair], sine = table[pair + ROPE / 2];
      value = (c & 1) == 0 ? x * cosine - y * sine : y * cosine + x * sine;
    }
    keep(worst, __bfloat162float(cache[static_cast<size_t>(slots[blockIdx.x]) * ENTRY + c]), value);
  }
}

/** One row of attention a block, in float64 over the absorbed queries as they are. */
__global__ void checkAttended(const bf16* q, const bf16* cache, const int* table, int tableWidth, const int* lengths, int heads, const bf16* out, double* scores, Worst* worst) {
  const int row = blockIdx.x == 0 ? 0 : blockIdx.x * 37 % (gridDim.y * heads), sequence = row / heads;
  const int length = lengths[sequence];
  const bf16* query = q + static_cast<size_t>(row) * ENTRY;
  double* own = scores + static_cast<size_t>(blockIdx.x) * tableWidth * PAGE;
  auto entry = [&](int t) { return cache + (static_cast<size_t>(table[sequence * tableWidth + t / PAGE]) * PAGE + t % PAGE) * ENTRY; };
  __shared__ double part[256];
  if (blockIdx.y > 0) return;
  double top = -INFINITY;
  for (int t = threadIdx.x; t < length; t += 256) {
    double sum = 0;
    for (int i = 0; i < ENTRY; i++) sum += static_cast<double>(__bfloat162float(query[i])) * __bfloat162float(entry(t)[i]);
    own[t] = sum * SCALE;
    top = fmax(top, own[t]);
  }
  part[threadIdx.x] = top;
  __syncthreads();
  for (int i = 0; i < 256; i++) top = fmax(top, part[i]);
  __syncthreads();
  double sum = 0;
  for (int t = threadIdx.x; t < length; t += 256) sum += own[t] = exp(own[t] - top);
  part[threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  for (int i = 0; i < 256; i++) sum += part[i];
  for (int c = threadIdx.x; c < LATENT; c += 256) {
    double x = 0;
    for (int t = 0; t < length; t++) x += own[t] * __bfloat162float(entry(t)[c]);
    keep(worst, __bfloat162float(out[static_cast<size_t>(row) * LATENT + c]), length > 0 ? x / sum : 0.);
  }
}

__global__ void checkValues(const bf16* attended, const bf16* kvB, const float* out, int heads, Worst* worst) {
  const int head = blockIdx.x % heads;
  for (int v = threadIdx.x; v < VALUE; v += blockDim.x) {
    double sum = 0;
    for (int c = 0; c < LATENT; c++) {
      sum += static_cast<double>(__bfloat162float(attended[static_cast<size_t>(blockIdx.x) * LATENT + c])) * __bfloat162float(kvB[(static_cast<size_t>(head) * KV + NOPE + v) * LATENT + c]);
    }
    keep(worst, out[static_cast<size_t>(blockIdx.x) * VALUE + v], sum);
  }
}

template <typename T> T* allocate(size_t count) {
  T* pointer;
  CHECK(cudaMalloc(&pointer, count * sizeof(T)));
  return pointer;
}

struct Experiment {
  int batch, heads, length;
  std::map<std::string, std::string> options;
  int number(const char* name, int otherwise) const {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : atoi(found->second.c_str());
  }
  std::string text(const char* name, const std::string& otherwise) const {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : found->second;
  }
};

/** A kernel with all that a launch of it needs. */
struct Stage {
  CUfunction kernel;
  int grid, threads, shared, cluster;
};

struct Harness {
  std::string folder;
  bf16 *weights, *caches, *absorbed, *attended;
  float *q, *latents, *norm, *rotary, *lse, *scratch, *values, *outs;
  int *positions, *slots, *table, *lengths, *count;
  unsigned* counters;
  double* scores;
  Worst* worst;
  cudaStream_t stream;
  std::map<std::string, CUmodule> modules;
  size_t cacheBytes = 4ull << 30, weightValues = 128ull * KV * LATENT;
  static constexpr size_t SCRATCH = 256ull << 20, COUNTERS = 4 << 20;

  CUfunction find(const std::string& path, const std::string& name) {
    CUmodule& module = modules[path];
    if (module == nullptr) CHECK(cuModuleLoad(&module, path.c_str()));
    CUfunction kernel;
    if (cuModuleGetFunction(&kernel, module, name.c_str()) != CUDA_SUCCESS) {
      printf("no %s in %s\n", name.c_str(), path.c_str());
      exit(1);
    }
    return kernel;
  }

  static CUtensorMap mapOf(const void* base, size_t rows, int columns, int boxRows) {
    CUtensorMap map;
    const cuuint64_t dims[2] = {static_cast<cuuint64_t>(columns), rows}, strides[1] = {static_cast<cuuint64_t>(columns) * 2};
    const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(boxRows)}, steps[2] = {1, 1};
    CHECK(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(base), dims, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    return map;
  }

  /** The map of three dimensions that fetches several neighbouring boxes at once. */
  static CUtensorMap mapOfBoxes(const void* base, size_t rows, int boxRows, int boxes) {
    CUtensorMap map;
    const cuuint64_t dims[3] = {64, rows, ENTRY / 64}, strides[2] = {ENTRY * 2, 128};
    const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(boxRows), static_cast<cuuint32_t>(boxes)}, steps[3] = {1, 1, 1};
    CHECK(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 3, const_cast<void*>(base), dims, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    return map;
  }

  void start(const Stage& stage, bool overlaps, std::vector<void*>& arguments) {
    CUlaunchAttribute attributes[2];
    CUlaunchConfig config = {};
    config.gridDimX = stage.grid;
    config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.blockDimX = stage.threads;
    config.sharedMemBytes = stage.shared;
    config.hStream = stream;
    config.attrs = attributes;
    if (stage.cluster > 1) {
      attributes[config.numAttrs].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
      attributes[config.numAttrs].value.clusterDim.x = stage.cluster;
      attributes[config.numAttrs].value.clusterDim.y = attributes[config.numAttrs].value.clusterDim.z = 1;
      config.numAttrs++;
    }
    if (overlaps) {
      attributes[config.numAttrs].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
      attributes[config.numAttrs++].value.programmaticStreamSerializationAllowed = 1;
    }
    CHECK(cuLaunchKernelEx(&config, stage.kernel, arguments.data(), nullptr));
  }

  bf16* weightsOf(int layer) { return weights + layer * weightValues; }
  size_t cacheRows(const Experiment& e) { return static_cast<size_t>(e.batch) * ((e.length + PAGE - 1) / PAGE) * PAGE; }
  bf16* cacheOf(const Experiment& e, int layer) { return caches + layer * cacheRows(e) * ENTRY; }

  /** Tokens that the builds multiply at a time. */
  static int tokensOf(const Experiment& e) {
    const int each = e.number("each", e.batch);
    return e.number("tokens", each <= 4 ? 4 : each <= 8 ? 8 : each <= 16 ? 16 : 32);
  }

  void prologue(const Experiment& e, int layer, bool overlaps) {
    const int tokens = tokensOf(e);
    int each = e.number("each", e.batch);
    Stage stage = {find(e.text("prologue", folder + "/mla-prologue.sm90.cubin"), "mlaPrologueAbsorb_bf16_2_" + std::to_string(tokens)), 0, tokens > 8 ? 320 : 160, 0, 1};
    stage.grid = e.batch + e.heads * 2 * ((e.batch + each - 1) / each);
    stage.shared = 8 * 8192 + tokens * (NOPE * 4 + 16) + std::max(tokens, 8) * 528 + 64 + e.number("pad", 0);
    CHECK(cuFuncSetAttribute(stage.kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, stage.shared));
    CUtensorMap map = mapOf(weightsOf(layer), static_cast<size_t>(e.heads) * KV, LATENT, 64);
    const void *pq = q, *pl = latents, *pn = norm, *pp = positions, *ps = slots, *pr = rotary, *pk = weightsOf(layer);
    void *pc = cacheOf(e, layer), *po = absorbed, *pt = count;
    int maxRows = e.batch, heads = e.heads, nope = NOPE, rope = ROPE, value = VALUE, latent = LATENT, interleaved = 1, scaled = 0, dtype = 2;
    int rows = static_cast<int>(cacheRows(e));
    float epsilon = EPSILON;
    std::vector<void*> arguments = {&map, &pq, &pl, &pn, &pp, &ps, &pr, &pp, &pk, &pc, &po, &pt, &maxRows, &heads, &nope, &rope, &value,
                                    &latent, &interleaved, &scaled, &dtype, &rows, &each, &epsilon};
    start(stage, overlaps, arguments);
  }

  int resident(Stage stage, int size) {
    if (size == 1) return 132;
    CUlaunchAttribute attribute[1];
    CUlaunchConfig config = {};
    config.gridDimX = size;
    config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.blockDimX = stage.threads;
    config.sharedMemBytes = stage.shared;
    attribute[0].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute[0].value.clusterDim.x = size;
    attribute[0].value.clusterDim.y = attribute[0].value.clusterDim.z = 1;
    config.attrs = attribute;
    config.numAttrs = 1;
    int number = 0;
    CHECK(cuOccupancyMaxActiveClusters(&number, stage.kernel, &config));
    return number;
  }

  static bool takesManyRows(const Experiment& e) { return e.heads > 32 && e.number("rows", e.batch == 1 ? 32 : 0) == 0; }

  void decode(const Experiment& e, int layer, bool overlaps) {
    const int tiles = std::max(1, (e.length + 63) / 64);
    const bool many = takesManyRows(e);
    const int rowsABlock = many ? 64 : e.heads > 32 ? e.number("rows", 32) : e.heads <= 8 ? 8 : e.heads <= 16 ? 16 : 32;
    int rowBlocks = (e.heads + rowsABlock - 1) / rowsABlock;
    Stage stage = {nullptr, 0, many ? 384 : 288, 0, 1};
    const std::string name = many ? "mlaDecodeManyRows_bf16_512" : "mlaDecodeFewRows_bf16_512_" + std::to_string(rowsABlock);
    stage.kernel = find(many ? e.text("many", folder + "/mla-decode.many-rows.sm90.cubin") : e.text("few", folder + "/mla-decode.few-rows.sm90.cubin"), name);
    stage.shared = 232448;
    CHECK(cuFuncSetAttribute(stage.kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, stage.shared));
    int groups = 1;
    if (many) {
      stage.cluster = rowBlocks % 2 == 0 ? 2 : 1;
      groups = std::max(1, resident(stage, stage.cluster) / (rowBlocks / stage.cluster));
    } else {
      // The largest cluster of which one for each sequence and block of rows is resident, as many of them as have a tile for each block.
      for (int size : {1, 2, 4, 8}) {
        if (e.number("cluster", size) == size && (size == 1 || resident(stage, size) >= e.batch * rowBlocks)) stage.cluster = size;
      }
      groups = std::min(std::max(1, resident(stage, stage.cluster) / rowBlocks), e.batch * ((tiles + stage.cluster - 1) / stage.cluster));
    }
    int leastTiles = many ? 2 : 1;
    stage.grid = groups * rowBlocks * (many ? 1 : stage.cluster);
    const size_t pages = cacheRows(e) / PAGE;
    const size_t queryRows = static_cast<size_t>(e.batch) * e.heads;
    CUtensorMap map = many ? mapOf(cacheOf(e, layer), pages * PAGE, ENTRY, 64) : mapOfBoxes(cacheOf(e, layer), pages * PAGE, 64, 3);
    CUtensorMap queryMap = many ? mapOf(absorbed, queryRows, ENTRY, rowsABlock) : mapOfBoxes(absorbed, queryRows, rowsABlock, 9);
    const void *pq = absorbed, *pc = cacheOf(e, layer), *pt = table, *pl = lengths, *pn = count;
    void *po = attended, *pe = lse, *ps = scratch, *pu = counters;
    int batch = e.batch, rows = e.heads, heads = e.heads, sQ = 1, page = PAGE, width = static_cast<int>(pages / e.batch), causal = 1, splitTiles = 0;
    int statsOffset = 2 * groups * rowBlocks * rowsABlock * LATENT, counted = 0, outFloat = 0;
    float scale = SCALE;
    std::vector<void*> arguments = {&map, &queryMap, &pq, &pc, &pt, &pl, &pn, &po, &pe, &ps, &pu, &batch, &rows, &heads, &sQ, &page, &width, &causal,
                                    &groups, &rowBlocks, &splitTiles, &leastTiles, &statsOffset, &counted, &outFloat, &scale};
    start(stage, overlaps, arguments);
  }

  void epilogue(const Experiment& e, int layer, bool overlaps, float* out) {
    const int tokens = std::max(8, tokensOf(e));
    int each = e.number("each", e.batch);
    Stage stage = {find(e.text("epilogue", folder + "/mla-epilogue.sm90.cubin"), "mlaEpilogueProject_bf16_512_" + std::to_string(tokens)), e.heads * 2 * ((e.batch + each - 1) / each), tokens > 8 ? 256 : 128, 0, 1};
    stage.shared = 8 * 8192 + tokens * (LATENT * 2 + 16) + 64 + e.number("pad", 0);
    CHECK(cuFuncSetAttribute(stage.kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, stage.shared));
    CUtensorMap map = mapOf(weightsOf(layer), static_cast<size_t>(e.heads) * KV, LATENT, 64);
    const void *pa = attended, *pn = count, *pk = weightsOf(layer);
    void* po = out;
    int heads = e.heads, sQ = 1, counted = 0, batch = e.batch, nope = NOPE, value = VALUE, dtype = 0;
    std::vector<void*> arguments = {&map, &pa, &pn, &pk, &po, &heads, &sQ, &counted, &batch, &nope, &value, &dtype, &each};
    start(stage, overlaps, arguments);
  }

  /** The whole layer in one launch. */
  void fused(const Experiment& e, int layer, bool overlaps, float* out) {
    Stage stage = {find(e.text("fused", ""), "mlaLayer_bf16"), 132, 384, 232448, 1};
    CHECK(cuFuncSetAttribute(stage.kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, stage.shared));
    CUtensorMap map = mapOf(weightsOf(layer), static_cast<size_t>(e.heads) * KV, LATENT, 64), cacheMap = mapOfBoxes(cacheOf(e, layer), cacheRows(e), 64, 3);
    const void *pq = q, *pl = latents, *pn = norm, *pp = positions, *ps = slots, *pr = rotary, *pk = weightsOf(layer), *pt = table, *pe = lengths, *pr2 = count;
    void *pc = cacheOf(e, layer), *po = out, *pu = counters;
    int maxRows = e.batch, heads = e.heads, interleaved = 1, scaled = 0, rows = static_cast<int>(cacheRows(e)), page = PAGE, width = rows / PAGE / e.batch, dtype = 0;
    int rowBlocks = (e.heads + 31) / 32, groups = stage.grid / rowBlocks;
    float epsilon = EPSILON, scale = SCALE;
    std::vector<void*> arguments = {&map, &cacheMap, &pq, &pl, &pn, &pp, &ps, &pr, &pp, &pk, &pc, &pt, &pe, &pr2, &po, &pu, &maxRows, &heads, &interleaved,
                                    &scaled, &rows, &page, &width, &dtype, &groups, &rowBlocks, &epsilon, &scale};
    start(stage, overlaps, arguments);
  }

  /** Checks the layer in one launch against the values of the three, whose results are there, and times it. */
  void runFused(const Experiment& e, const std::string& line, const std::vector<int>& slotsHost) {
    const size_t outValues = static_cast<size_t>(e.batch) * e.heads * VALUE;
    auto poison = [&] {
      CHECK(cudaMemset(absorbed, 0xff, static_cast<size_t>(e.batch) * e.heads * ENTRY * 2));
      CHECK(cudaMemset(outs, 0xff, outValues * 4 * LAYERS));
      CHECK(cudaMemset(scratch, 0xff, 64 << 20));
      for (int layer = 0; layer < LAYERS; layer++) {
        for (int slot : slotsHost) {
          if (slot >= 0) CHECK(cudaMemset(cacheOf(e, layer) + static_cast<size_t>(slot) * ENTRY, 0xff, ENTRY * 2));
        }
      }
      CHECK(cudaDeviceSynchronize());
    };
    all(e, 0, false, outs);
    CHECK(cudaStreamSynchronize(stream));
    poison();
    fused(e, 0, false, outs);
    checkEntries<<<e.batch, 128, 0, stream>>>(latents, norm, rotary, positions, slots, cacheOf(e, 0), worst);
    const double entryError = errorOf();
    checkValues<<<e.batch * e.heads, 128, 0, stream>>>(attended, weightsOf(0), outs, e.heads, worst);
    const double valueError = errorOf();
    for (int layer = 0; layer < LAYERS; layer++) fused(e, layer, false, outs + layer * outValues);
    CHECK(cudaStreamSynchronize(stream));
    std::vector<float> serial(outValues * LAYERS), chained(outValues * LAYERS);
    CHECK(cudaMemcpy(serial.data(), outs, serial.size() * 4, cudaMemcpyDeviceToHost));
    cudaGraphExec_t chain = capture([&] {
      for (int layer = 0; layer < LAYERS; layer++) fused(e, layer, true, outs + layer * outValues);
    });
    int different = 0;
    for (int replay = 0; replay < 20; replay++) {
      if (replay % 5 == 0) poison();
      CHECK(cudaGraphLaunch(chain, stream));
      CHECK(cudaStreamSynchronize(stream));
      CHECK(cudaMemcpy(chained.data(), outs, chained.size() * 4, cudaMemcpyDeviceToHost));
      different += memcmp(serial.data(), chained.data(), serial.size() * 4) != 0;
    }
    CHECK(cudaGraphExecDestroy(chain));
    std::vector<unsigned> mail(COUNTERS);
    CHECK(cudaMemcpy(mail.data(), counters, 4 * COUNTERS, cudaMemcpyDeviceToHost));
    const long left = COUNTERS - std::count(mail.begin(), mail.end(), 0u);
    const bool right = entryError < 6e-3 && valueError < 1e-2 && different == 0 && left == 0;
    printf("  one launch: %s entry %.1e values %.1e, %d of 20 chains differ, %ld words left\n", right ? "right" : "WRONG", entryError, valueError, different, left);
    fflush(stdout);
    if (!right || e.number("notime", 0) > 0) return;
    if (e.options.count("stamps") > 0) return writeStamps(e, e.text("stamps", "") + ".txt");
    const double serialTime = timeOf([&](int layer) { fused(e, layer, false, values); }), time = timeOf([&](int layer) { fused(e, layer, true, values); });
    printf("  one launch %6.2f us, each after the other's end %6.2f us: %s\n", time, serialTime, line.c_str());
    fflush(stdout);
  }

  /** Readings of a build with STAMPS, in ns from the least: block, then three groups of 32. To $RESULTS, or the current folder. */
  void writeStamps(const Experiment& e, const std::string& name) {
    cudaGraphExec_t chain = capture([&] {
      for (int layer = 0; layer < LAYERS; layer++) fused(e, layer, true, values);
    });
    CUdeviceptr address;
    size_t bytes;
    CHECK(cuModuleGetGlobal(&address, &bytes, modules[e.text("fused", "")], "layerStamps"));
    for (int i = 0; i < 3; i++) {
      CHECK(cudaMemset(reinterpret_cast<void*>(address), 0, bytes));
      CHECK(cudaGraphLaunch(chain, stream));
      CHECK(cudaStreamSynchronize(stream));
    }
    CHECK(cudaGraphExecDestroy(chain));
    std::vector<unsigned long long> read(bytes / 8);
    CHECK(cudaMemcpy(read.data(), reinterpret_cast<void*>(address), bytes, cudaMemcpyDeviceToHost));
    unsigned long long zero = ~0ull;
    for (unsigned long long at : read) {
      if (at > 0) zero = std::min(zero, at);
    }
    const char* folder = getenv("RESULTS");
    FILE* file = fopen(((folder ? std::string(folder) + "/" : "") + name).c_str(), "w");
    for (size_t block = 0; file && block < read.size() / 96; block++) {
      for (int i = 0; i < 96; i++) fprintf(file, "%lld%c", read[block * 96 + i] > 0 ? static_cast<long long>(read[block * 96 + i] - zero) : -1, i < 95 ? ' ' : '\n');
    }
    if (file) fclose(file);
  }

  /** The three launches. */
  void all(const Experiment& e, int layer, bool overlaps, float* out) {
    prologue(e, layer, overlaps);
    decode(e, layer, overlaps);
    epilogue(e, layer, overlaps, out);
  }

  cudaGraphExec_t capture(const std::function<void()>& work) {
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    work();
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    return ready;
  }

  double timeOf(const std::function<void(int)>& call) {
    cudaGraphExec_t ready = capture([&] {
      for (int i = 0; i < CALLS; i++) call(i % LAYERS);
    });
    const double ms = medianReplay(ready, stream, 3, 21);
    CHECK(cudaGraphExecDestroy(ready));
    return ms * 1e3 / CALLS;
  }

  double errorOf() {
    Worst w;
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpy(&w, worst, sizeof w, cudaMemcpyDeviceToHost));
    CHECK(cudaMemset(worst, 0, sizeof w));
    float difference, value;
    memcpy(&difference, &w.difference, 4);
    memcpy(&value, &w.value, 4);
    return difference / value;
  }

  /** When blocks began, went on after their wait, and ended, in ns from the first of the last layer's prologue: of builds that note it down. */
  void printStamps(const Experiment& e, const std::function<void(int, bool, float*)>& all) {
    constexpr int BLOCKS = 2048;
    const bool many = takesManyRows(e);
    const char* names[3] = {"prologue", "decode", "epilogue"};
    const std::string paths[3] = {e.text("prologue", folder + "/mla-prologue.sm90.cubin"),
                                  many ? e.text("many", folder + "/mla-decode.many-rows.sm90.cubin") : e.text("few", folder + "/mla-decode.few-rows.sm90.cubin"),
                                  e.text("epilogue", folder + "/mla-epilogue.sm90.cubin")};
    cudaGraphExec_t chain = capture([&] {
      for (int layer = 0; layer < LAYERS; layer++) all(layer, true, values);
    });
    std::vector<unsigned long long> stamps[3];
    for (int i = 0; i < 3; i++) {
      CUdeviceptr address;
      size_t bytes;
      CHECK(cuModuleGetGlobal(&address, &bytes, modules[paths[i]], "stamps"));
      CHECK(cudaMemset(reinterpret_cast<void*>(address), 0, bytes));
    }
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaGraphLaunch(chain, stream));
    CHECK(cudaStreamSynchronize(stream));
    unsigned long long zero = ~0ull;
    for (int i = 0; i < 3; i++) {
      CUdeviceptr address;
      size_t bytes;
      CHECK(cuModuleGetGlobal(&address, &bytes, modules[paths[i]], "stamps"));
      stamps[i].resize(4 * BLOCKS);
      CHECK(cudaMemcpy(stamps[i].data(), reinterpret_cast<void*>(address), bytes, cudaMemcpyDeviceToHost));
      for (int block = 0; i == 0 && block < BLOCKS; block++) {
        if (stamps[i][block] > 0) zero = std::min(zero, stamps[i][block]);
      }
    }
    for (int i = 0; i < 3; i++) {
      printf("  %-8s", names[i]);
      for (int kind = 0; kind < 3; kind++) {
        std::vector<double> times;
        for (int block = 0; block < BLOCKS; block++) {
          const unsigned long long at = stamps[i][kind * BLOCKS + block];
          if (at > 0) times.push_back(static_cast<double>(static_cast<long long>(at - zero)));
        }
        std::sort(times.begin(), times.end());
        if (times.empty()) continue;
        printf(" %s %zu: %.0f %.0f %.0f %.0f %.0f;", kind == 0 ? "begin" : kind == 1 ? "waited" : "end", times.size(), times[0], times[times.size() / 4],
               times[times.size() / 2], times[times.size() * 3 / 4], times.back());
      }
      std::vector<bool> used(256);
      int processors = 0;
      for (int block = 0; block < BLOCKS; block++) {
        const size_t sm = stamps[i][3 * BLOCKS + block];
        if (sm > 0 && stamps[i][BLOCKS + block] > 0 && !used[sm]) used[sm] = true, processors++;
      }
      printf(" on %d SMs\n", processors);
    }
    fflush(stdout);
    CHECK(cudaGraphExecDestroy(chain));
  }

  void run(const Experiment& e, const std::string& line) {
    const int pagesEach = (e.length + PAGE - 1) / PAGE;
    std::vector<int> order(static_cast<size_t>(e.batch) * pagesEach), slotsHost(e.batch), positionsHost(e.batch), lengthsHost(e.batch, e.length);
    for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int>(i);
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[(i * 2654435761u >> 7) % i]);
    for (int b = 0; b < e.batch; b++) {
      if (e.number("ragged", 0) > 0) lengthsHost[b] = b == 1 ? 0 : b == 2 ? 1 : e.length - b * 977 % (e.length + 1);
      const int last = lengthsHost[b] - 1;
      slotsHost[b] = last < 0 ? -1 : order[b * pagesEach + last / PAGE] * PAGE + last % PAGE;
      positionsHost[b] = (b * 7 + 3) % POSITIONS;
    }
    if (cacheRows(e) * ENTRY * 2 * LAYERS > cacheBytes || order.size() > (1u << 20)) { printf("%s: too large\n", line.c_str()); return; }
    CHECK(cudaMemcpy(table, order.data(), order.size() * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(slots, slotsHost.data(), e.batch * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(positions, positionsHost.data(), e.batch * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(lengths, lengthsHost.data(), e.batch * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(count, &e.batch, 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemset(scratch, 0xff, SCRATCH));
    const size_t outValues = static_cast<size_t>(e.batch) * e.heads * VALUE;
    CHECK(cudaMemset(absorbed, 0xff, static_cast<size_t>(e.batch) * e.heads * ENTRY * 2));
    CHECK(cudaMemset(attended, 0xff, static_cast<size_t>(e.batch) * e.heads * LATENT * 2));
    CHECK(cudaMemset(outs, 0xff, outValues * 4 * LAYERS));
    auto all = [&](int layer, bool overlaps, float* out) { this->all(e, layer, overlaps, out); };
    all(0, false, outs);
    checkQueries<<<e.batch * e.heads, 128, 0, stream>>>(q, weightsOf(0), rotary, positions, absorbed, e.heads, worst);
    const double queryError = errorOf();
    checkEntries<<<e.batch, 128, 0, stream>>>(latents, norm, rotary, positions, slots, cacheOf(e, 0), worst);
    const double entryError = errorOf();
    checkAttended<<<dim3(6, e.batch), 256, 0, stream>>>(absorbed, cacheOf(e, 0), table, pagesEach, lengths, e.heads, attended, scores, worst);
    const double attendedError = errorOf();
    checkValues<<<e.batch * e.heads, 128, 0, stream>>>(attended, weightsOf(0), outs, e.heads, worst);
    const double valueError = errorOf();
    for (int layer = 0; layer < LAYERS; layer++) all(layer, false, outs + layer * outValues);
    CHECK(cudaStreamSynchronize(stream));
    std::vector<float> serial(outValues * LAYERS), chained(outValues * LAYERS);
    CHECK(cudaMemcpy(serial.data(), outs, serial.size() * 4, cudaMemcpyDeviceToHost));
    cudaGraphExec_t chain = capture([&] {
      for (int layer = 0; layer < LAYERS; layer++) all(layer, true, outs + layer * outValues);
    });
    int different = 0;
    for (int replay = 0; replay < 4; replay++) {
      CHECK(cudaMemset(outs, 0xff, serial.size() * 4));
      CHECK(cudaMemset(absorbed, 0xff, static_cast<size_t>(e.batch) * e.heads * ENTRY * 2));
      CHECK(cudaMemset(attended, 0xff, static_cast<size_t>(e.batch) * e.heads * LATENT * 2));
      CHECK(cudaDeviceSynchronize());
      CHECK(cudaGraphLaunch(chain, stream));
      CHECK(cudaStreamSynchronize(stream));
      CHECK(cudaMemcpy(chained.data(), outs, chained.size() * 4, cudaMemcpyDeviceToHost));
      different += memcmp(serial.data(), chained.data(), serial.size() * 4) != 0;
    }
    CHECK(cudaGraphExecDestroy(chain));
    const bool right = queryError < 6e-3 && entryError < 6e-3 && attendedError < 2e-2 && valueError < 1e-5 && different == 0;
    printf("%-52s %s q %.1e entry %.1e attention %.1e values %.1e, %d of 4 chains differ\n", line.c_str(), right ? "right" : "WRONG", queryError, entryError,
           attendedError, valueError, different);
    fflush(stdout);
    if (e.options.count("fused") > 0) runFused(e, line, slotsHost);
    if (!right || e.number("notime", 0) > 0 || e.number("three", 1) == 0) return;
    if (e.options.count("stamps") > 0) {
      printStamps(e, all);
      return;
    }
    const double prologueTime = timeOf([&](int layer) { prologue(e, layer, true); }), decodeTime = timeOf([&](int layer) { decode(e, layer, true); });
    const double epilogueTime = timeOf([&](int layer) { epilogue(e, layer, true, values); });
    const double both = timeOf([&](int layer) { prologue(e, layer, true); epilogue(e, layer, true, values); });
    const double serialTime = timeOf([&](int layer) { all(layer, false, values); }), chainTime = timeOf([&](int layer) { all(layer, true, values); });
    const double pd = timeOf([&](int layer) { prologue(e, layer, true), decode(e, layer, true); });
    const double de = timeOf([&](int layer) { decode(e, layer, true), epilogue(e, layer, true, values); });
    const double half = e.heads * 128. * LATENT * 2;
    printf("  prologue %6.2f us (%4.0f GB/s) decode %6.2f epilogue %6.2f (%4.0f GB/s) both %6.2f with decode %6.2f %6.2f serial layer %6.2f layer %6.2f\n", prologueTime,
           half / prologueTime / 1e3, decodeTime, epilogueTime, half / epilogueTime / 1e3, both, pd, de, serialTime, chainTime);
    for (int mask = 1; e.options.count("masks") > 0 && mask < 8; mask++) {
      printf("  overlapping%s%s%s: %.2f us\n", mask & 1 ? " prologue" : "", mask & 2 ? " decode" : "", mask & 4 ? " epilogue" : "", timeOf([&](int layer) {
               prologue(e, layer, mask & 1);
               decode(e, layer, mask & 2);
               epilogue(e, layer, mask & 4, values);
             }));
    }
    fflush(stdout);
  }
};

int main(int count, char** words) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  Harness h;
  CHECK(cudaSetDevice(0));
  h.folder = count > 1 ? words[1] : "cubin";
  if (count > 2) h.cacheBytes = atof(words[2]);
  if (count > 3) h.weightValues = static_cast<size_t>(atoi(words[3])) * KV * LATENT;
  h.weights = allocate<bf16>(h.weightValues * LAYERS);
  h.caches = allocate<bf16>(h.cacheBytes / 2);
  const size_t rows = 128 * 64;
  h.q = allocate<float>(rows * QUERY);
  h.latents = allocate<float>(64 * ENTRY);
  h.norm = allocate<float>(LATENT);
  h.rotary = allocate<float>(POSITIONS * ROPE);
  h.absorbed = allocate<bf16>(rows * ENTRY);
  h.attended = allocate<bf16>(rows * LATENT);
  h.lse = allocate<float>(rows);
  h.values = allocate<float>(rows * VALUE);
  h.outs = allocate<float>(rows * VALUE * LAYERS);
  h.scratch = allocate<float>(Harness::SCRATCH / 4);
  h.counters = allocate<unsigned>(Harness::COUNTERS);
  CHECK(cudaMemset(h.counters, 0, 4 * Harness::COUNTERS));
  h.scores = allocate<double>(8 * 262144);
  h.worst = allocate<Worst>(1);
  CHECK(cudaMemset(h.worst, 0, sizeof(Worst)));
  h.positions = allocate<int>(64);
  h.slots = allocate<int>(64);
  h.lengths = allocate<int>(64);
  h.count = allocate<int>(1);
  h.table = allocate<int>(1 << 20);
  CHECK(cudaStreamCreate(&h.stream));
  fill<<<2048, 256, 0, h.stream>>>(h.weights, h.weightValues * LAYERS, 1, 0.08f);
  fill<<<2048, 256, 0, h.stream>>>(h.caches, h.cacheBytes / 2, 2, 1.f);
  fill<<<2048, 256, 0, h.stream>>>(h.q, rows * QUERY, 3, 1.f);
  fill<<<64, 256, 0, h.stream>>>(h.latents, 64 * ENTRY, 4, 1.f);
  fill<<<8, 256, 0, h.stream>>>(h.norm, LATENT, 5, 1.f);
  fill<<<8, 256, 0, h.stream>>>(h.rotary, POSITIONS * ROPE, 6, 1.f);
  CHECK(cudaStreamSynchronize(h.stream));
  for (std::string line; std::getline(std::cin, line);) {
    if (line.empty() || line[0] == '#') {
      if (!line.empty()) printf("%s\n", line.c_str());
      continue;
    }
    std::istringstream words(line);
    Experiment e;
    words >> e.batch >> e.heads >> e.length;
    for (std::string word; words >> word;) {
      const size_t at = word.find('=');
      e.options[word.substr(0, at)] = at == std::string::npos ? "1" : word.substr(at + 1);
    }
    h.run(e, line);
  }
  return 0;
}
