// Checks and times builds of the Hopper mla-decode kernels without Node: every line of standard input is one experiment,
//
//   b s_q h s [many] [cluster=2] [groups=66] [least=4] [split=16] [few=16] [page=64] [vary=1] [cubin=PATH] [f32=1] [notime=1] [beside=PATH] [power=1] [pdl=0] [stamps=1]
//
// with d_c 512, d_r 64, bf16. pdl=0: a call does not begin before the one before it ends; stamps=1: prints the
// clock readings of a build with -DSTAMPS. A line is checked against float64 first (sampled rows, NaN wherever nothing may be read, counters back at
// zero), then timed as graphs of many calls: with pages of its own for each call (over more than 300 MB), and with the same pages.
//
// With beside=PATH another library (a shared object as rival.h says) is checked the same way, and both are timed in turn, three times with cold pages, once with warm ones;
// power=1 replays each for half a second more and tells energy, power and clock.
//
//   nvcc -std=c++17 -O2 -gencode=arch=compute_90a,code=sm_90a -o harness benchmarks/cuda/decode-harness.cu -lcuda
//   ./harness cubin/mla-decode.few-rows.sm90.cubin cubin/mla-decode.many-rows.sm90.cubin < experiments
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>
#include "harness.cuh"
#include "rival.h"

constexpr int LATENT = 512, WIDTH = 576, SAMPLES = 12;
constexpr float SCALE = 0.07216878364870322f;

struct Sample {
  int sequence, row, visible;
};

/** Float64 attention of one sampled row a block. */
__global__ void reference(const __nv_bfloat16* q, const __nv_bfloat16* cache, const int* table, const Sample* samples, double* scores,
                          double* out, double* lse, int rows, int page, int tableWidth, int most) {
  const Sample s = samples[blockIdx.x];
  double* own = scores + static_cast<size_t>(blockIdx.x) * most;
  __shared__ double part[256];
  const __nv_bfloat16* query = q + (static_cast<size_t>(s.sequence) * rows + s.row) * WIDTH;
  auto entry = [&](int t) {
    return cache + (static_cast<size_t>(table[s.sequence * tableWidth + t / page]) * page + t % page) * WIDTH;
  };
  double top = -INFINITY;
  for (int t = threadIdx.x; t < s.visible; t += 256) {
    double sum = 0;
    for (int i = 0; i < WIDTH; i++) sum += static_cast<double>(__bfloat162float(query[i])) * __bfloat162float(entry(t)[i]);
    own[t] = sum * SCALE;
    top = fmax(top, own[t]);
  }
  part[threadIdx.x] = top;
  __syncthreads();
  for (int i = 0; i < 256; i++) top = fmax(top, part[i]);
  __syncthreads();
  double sum = 0;
  for (int t = threadIdx.x; t < s.visible; t += 256) sum += own[t] = exp(own[t] - top);
  part[threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  for (int i = 0; i < 256; i++) sum += part[i];
  double x = 0, y = 0;
  for (int t = 0; t < s.visible; t++) {
    x += own[t] * __bfloat162float(entry(t)[threadIdx.x]);
    y += own[t] * __bfloat162float(entry(t)[threadIdx.x + 256]);
  }
  out[blockIdx.x * LATENT + threadIdx.x] = s.visible > 0 ? x / sum : 0;
  out[blockIdx.x * LATENT + threadIdx.x + 256] = s.visible > 0 ? y / sum : 0;
  if (threadIdx.x == 0) lse[blockIdx.x] = s.visible > 0 ? top + log(sum) : INFINITY;
}

template <typename T> T* allocate(size_t count) {
  T* pointer;
  CHECK(cudaMalloc(&pointer, count * sizeof(T)));
  return pointer;
}

struct Experiment {
  int batch, sQ, heads, length;
  std::map<std::string, std::string> options;
  int number(const char* name, int otherwise) const {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : atoi(found->second.c_str());
  }
};

struct Plan {
  CUfunction kernel;
  CUmodule module;
  int rowsABlock, rowBlocks, cluster, groups, splitTiles, leastTiles, slots, grid, shared, threads;
  bool many, overlaps;
  RivalLaunch rivalLaunch;
  double lseUnit = 1;
  void* rival;
};

/** The GPU's own counters, by its management library. */
struct EnergyMeter {
  using Device = void*;
  Device device = nullptr;
  int (*energy)(Device, unsigned long long*);
  int (*clockOf)(Device, int, unsigned*);

  EnergyMeter() {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    CHECK(library == nullptr);
    CHECK(reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"))());
    CHECK(reinterpret_cast<int (*)(unsigned, Device*)>(dlsym(library, "nvmlDeviceGetHandleByIndex_v2"))(0, &device));
    energy = reinterpret_cast<decltype(energy)>(dlsym(library, "nvmlDeviceGetTotalEnergyConsumption"));
    clockOf = reinterpret_cast<decltype(clockOf)>(dlsym(library, "nvmlDeviceGetClockInfo"));
  }
  double millijoules() const {
    unsigned long long value = 0;
    energy(device, &value);
    return static_cast<double>(value);
  }
  unsigned megahertz() const {
    unsigned value = 0;
    clockOf(device, 1, &value);
    return value;
  }
};

struct Harness {
  size_t pages;
  __nv_bfloat16 *pool, *q, *out;
  float *lse, *scratch;
  unsigned* counters;
  double *scores, *truth, *truthLse;
  Sample* samples;
  int *tables, *lengths;
  cudaStream_t stream;
  std::string defaults[2];
  std::map<std::string, CUmodule> modules;
  static constexpr size_t SCRATCH = 1ull << 30;

  CUmodule load(const std::string& path) {
    CUmodule& module = modules[path];
    if (module == nullptr) CHECK(cuModuleLoad(&module, path.c_str()));
    return module;
  }

  CUtensorMap mapOf(const void* base, size_t rows, int boxRows) {
    CUtensorMap map;
    const cuuint64_t dims[2] = {WIDTH, rows}, strides[1] = {WIDTH * 2};
    const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(boxRows)}, steps[2] = {1, 1};
    CHECK(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(base), dims, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    return map;
  }

  /** The map of three dimensions that fetches several neighbouring boxes at once. */
  CUtensorMap mapOfBoxes(const void* base, size_t rows, int boxRows, int boxes) {
    CUtensorMap map;
    const cuuint64_t dims[3] = {64, rows, WIDTH / 64}, strides[2] = {WIDTH * 2, 128};
    const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(boxRows), static_cast<cuuint32_t>(boxes)}, steps[3] = {1, 1, 1};
    CHECK(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 3, const_cast<void*>(base), dims, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    return map;
  }

  CUlaunchConfig configOf(const Plan& plan, CUlaunchAttribute* attribute) {
    CUlaunchConfig config = {};
    config.gridDimX = plan.grid;
    config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.blockDimX = plan.threads;
    config.sharedMemBytes = plan.shared;
    config.hStream = stream;
    config.attrs = attribute;
    if (plan.cluster > 1) {
      CUlaunchAttribute& cluster = attribute[config.numAttrs++];
      cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
      cluster.value.clusterDim.x = plan.cluster;
      cluster.value.clusterDim.y = cluster.value.clusterDim.z = 1;
    }
    if (plan.overlaps) {
      CUlaunchAttribute& overlap = attribute[config.numAttrs++];
      overlap.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
      overlap.value.programmaticStreamSerializationAllowed = 1;
    }
    return config;
  }

  /** Another library's plan for the lengths that lie on the device, which its launches use again and again. */
  Plan rivalPlanOf(const Experiment& e, int tableWidth) {
    const std::string& path = e.options.at("beside");
    void* library = dlopen(path.c_str(), RTLD_NOW);
    if (library == nullptr) {
      printf("%s\n", dlerror());
      exit(1);
    }
    Plan plan = {};
    const auto planner = reinterpret_cast<RivalPlan>(dlsym(library, "rivalPlan"));
    plan.rivalLaunch = reinterpret_cast<RivalLaunch>(dlsym(library, "rivalLaunch"));
    CHECK(planner == nullptr || plan.rivalLaunch == nullptr);
    const int* base = reinterpret_cast<const int*>(dlsym(library, "rivalLseBase"));
    if (base != nullptr) plan.lseUnit = std::log(*base);
    const RivalCall call = {e.batch, e.sQ, e.heads, e.length, tableWidth, pages, q, pool, lengths, out, lse, scratch, SCALE, stream};
    plan.rival = planner(&call, &plan.groups);
    CHECK(cudaStreamSynchronize(stream));
    return plan;
  }

  Plan planOf(const Experiment& e) {
    Plan plan = {};
    const int rows = e.sQ * e.heads;
    plan.many = rows > 32 || e.options.count("many") > 0;
    if (e.options.count("few") > 0) plan.many = false;
    plan.rowsABlock = plan.many ? 64 : e.number("few", rows <= 8 ? 8 : rows <= 16 ? 16 : 32);
    plan.rowBlocks = (rows + plan.rowsABlock - 1) / plan.rowsABlock;
    plan.threads = plan.many || e.number("maps", 2) == 1 ? 384 : 288;
    const auto path = e.options.find("cubin");
    plan.module = load(path == e.options.end() ? defaults[plan.many ? 1 : 0] : path->second);
    char name[64];
    if (plan.many) snprintf(name, sizeof name, "mlaDecodeManyRows_bf16_512");
    else snprintf(name, sizeof name, "mlaDecodeFewRows_bf16_512_%d", plan.rowsABlock);
    CHECK(cuModuleGetFunction(&plan.kernel, plan.module, name));
    plan.shared = 232448;
    CHECK(cuFuncSetAttribute(plan.kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, plan.shared));
    auto residentOf = [&](int size) {
      if (size == 1) return 132;
      CUlaunchAttribute attribute[2];
      Plan one = plan;
      one.cluster = one.grid = size;
      CUlaunchConfig config = configOf(one, attribute);
      int count = 0;
      CHECK(cuOccupancyMaxActiveClusters(&count, plan.kernel, &config));
      return count;
    };
    plan.cluster = e.number("cluster", 0);
    int one = 1;
    if (plan.many) {
      if (plan.cluster == 0) plan.cluster = plan.rowBlocks % 2 == 0 ? 2 : 1;
      plan.groups = std::max(1, residentOf(plan.cluster) / (plan.rowBlocks / plan.cluster));
    } else {
      // As clusterOf in mla-decode.hopper.ts.
      const int tiles = std::max(1, (e.length + 63) / 64);
      double best = 1e30;
      for (int size : {8, 4, 2, 1}) {
        const int groups = std::max(1, residentOf(size) / plan.rowBlocks), each = groups / e.batch;
        if (plan.cluster == 0 || plan.cluster == size) {
          const int shares = std::max(1, each) * size, most = (tiles + shares - 1) / shares;
          const int splits = (tiles + most * size - 1) / (most * size);
          const double reading = each == 0 ? static_cast<double>(e.batch) * tiles / groups / size : most;
          const double merging = splits > 1 ? 1 + 0.6 * (8. / size) * ((splits + 7) / 8) : 0;
          const double work = reading * (plan.rowsABlock == 32 ? 1.9 : 1.35), all = e.batch * tiles * std::max(0.0242, plan.rowBlocks * 0.0134);
          const double cost = std::max(work, all) + (each == 0 ? 4 : 0) + merging + (size == 8 ? 0.9 : size == 4 ? 0.7 : size == 2 ? 0.5 : 0.3);
          if (cost < best && (size == 1 || each > 0 || plan.cluster > 0)) best = cost, plan.groups = groups, one = size;
        }
      }
      plan.cluster = one;
      if (e.options.count("old") == 0) plan.groups = std::min(plan.groups, e.batch * ((tiles + one - 1) / one));
    }
    plan.overlaps = e.options.count("old") == 0 && e.number("pdl", 1) > 0;
    plan.groups = e.number("groups", plan.groups);
    plan.splitTiles = e.number("split", 0);
    plan.leastTiles = e.number("least", plan.many ? 4 : plan.cluster);
    plan.grid = plan.groups * plan.rowBlocks * (plan.many ? 1 : plan.cluster);
    const int mostTiles = std::max(1, (e.length + 63) / 64);
    plan.slots = plan.splitTiles > 0 ? e.batch * ((mostTiles + plan.splitTiles - 1) / plan.splitTiles) : 2 * plan.groups;
    return plan;
  }

  void launch(const Plan& plan, const Experiment& e, const int* table, int tableWidth, int page) {
    if (plan.rival != nullptr) return plan.rivalLaunch(plan.rival, table);
    const size_t queryRows = static_cast<size_t>(e.batch) * e.sQ * e.heads;
    const bool flat = plan.many || e.options.count("old") > 0;
    CUtensorMap map = flat ? mapOf(pool, pages * 64, std::min(64, page)) : mapOfBoxes(pool, pages * 64, std::min(64, page), page < 64 ? 1 : 3);
    CUtensorMap queryMap = flat ? mapOf(q, queryRows, plan.rowsABlock) : mapOfBoxes(q, queryRows, plan.rowsABlock, 9);
    const void *queries = q, *cache = pool, *tablePointer = table, *lengthPointer = lengths, *count = lengths;
    void *outPointer = out, *lsePointer = lse, *scratchPointer = scratch, *counterPointer = counters;
    int batch = e.batch, rows = e.sQ * e.heads, heads = e.heads, sQ = e.sQ, pageSize = page, width = tableWidth, causal = 1;
    int groups = plan.groups, rowBlocks = plan.rowBlocks, splitTiles = plan.splitTiles, leastTiles = plan.leastTiles;
    int statsOffset = plan.slots * plan.rowBlocks * plan.rowsABlock * LATENT, counted = 0, outFloat = 0;
    float scale = SCALE;
    std::vector<void*> arguments = {&map};
    if (e.number("maps", 2) == 2) arguments.push_back(&queryMap);
    for (void* pointer : std::initializer_list<void*>{&queries, &cache, &tablePointer, &lengthPointer, &count, &outPointer, &lsePointer, &scratchPointer,
                                      &counterPointer, &batch, &rows, &heads, &sQ, &pageSize, &width, &causal, &groups, &rowBlocks,
                                      &splitTiles, &leastTiles, &statsOffset, &counted, &outFloat, &scale}) {
      arguments.push_back(pointer);
    }
    CUlaunchAttribute attribute[2];
    CUlaunchConfig config = configOf(plan, attribute);
    CHECK(cuLaunchKernelEx(&config, plan.kernel, arguments.data(), nullptr));
  }

  cudaGraphExec_t graphOf(const Plan& plan, const Experiment& e, int calls, int step, int tableWidth, int page) {
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int call = 0; call < calls; call++) launch(plan, e, tables + static_cast<size_t>(call) * step, tableWidth, page);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    return ready;
  }

  /** Half a second of replays: what a call takes then, its energy, the power, and the multiprocessors' clock at the end. */
  void sustain(const char* whose, const Plan& plan, const Experiment& e, int calls, int step, int tableWidth, int page) {
    static const EnergyMeter meter;
    cudaGraphExec_t ready = graphOf(plan, e, calls, step, tableWidth, page);
    const auto now = std::chrono::steady_clock::now;
    auto start = now();
    auto seconds = [&] { return std::chrono::duration<double>(now() - start).count(); };
    int replays = 0;
    unsigned clock = 0;
    double millijoules = meter.millijoules();
    for (; seconds() < 0.5; replays += 4) {
      for (int i = 0; i < 4; i++) CHECK(cudaGraphLaunch(ready, stream));
      clock = meter.megahertz();
      CHECK(cudaStreamSynchronize(stream));
    }
    const double all = seconds(), total = static_cast<double>(replays) * calls;
    millijoules = meter.millijoules() - millijoules;
    printf("  %-6s sustained %8.2f us, %7.2f mJ a call, %4.0f W, %u MHz\n", whose, all / total * 1e6, millijoules / total, millijoules / all / 1e3, clock);
    CHECK(cudaGraphExecDestroy(ready));
  }

  double timeOf(const Plan& plan, const Experiment& e, int calls, int step, int tableWidth, int page) {
    cudaGraphExec_t ready = graphOf(plan, e, calls, step, tableWidth, page);
    const double ms = medianReplay(ready, stream, 1, 7);
    CHECK(cudaGraphExecDestroy(ready));
    return ms * 1e3 / calls;
  }

  /** Worst error of the sampled rows, relative to max(|truth|, 0.05), and the relative distance of all of them; NaN where out has one. */
  void check(const Plan& plan, const Experiment& e, const std::vector<int>& lengthsHost, int tableWidth, int page, double* worst, double* distance,
             double* lseError, bool* clean) {
    const int rows = e.sQ * e.heads, all = e.batch * rows;
    std::vector<Sample> chosen;
    std::mt19937 random(all);
    for (int i = 0; i < SAMPLES; i++) {
      const int at = i == 0 ? 0 : i == 1 ? all - 1 : random() % all;
      Sample s = {at / rows, at % rows, 0};
      s.visible = std::max(0, lengthsHost[s.sequence] - e.sQ + 1 + s.row / e.heads);
      chosen.push_back(s);
    }
    CHECK(cudaMemcpy(samples, chosen.data(), chosen.size() * sizeof(Sample), cudaMemcpyHostToDevice));
    CHECK(cudaMemset(out, 0xff, static_cast<size_t>(all) * LATENT * 2));
    CHECK(cudaMemset(lse, 0xff, static_cast<size_t>(all) * 4));
    CHECK(cudaMemset(scratch, 0xff, SCRATCH));
    for (int again = 0; again < 2; again++) launch(plan, e, tables, tableWidth, page);
    const auto failed = cudaStreamSynchronize(stream);
    if (failed != cudaSuccess) {
      printf("FAILED: cluster %d, groups %d, grid %d: %s\n", plan.cluster, plan.groups, plan.grid, cudaGetErrorString(failed));
      exit(1);
    }
    reference<<<SAMPLES, 256, 0, stream>>>(q, pool, tables, samples, scores, truth, truthLse, rows, page, tableWidth, 262144);
    CHECK(cudaStreamSynchronize(stream));
    std::vector<double> expected(SAMPLES * LATENT), expectedLse(SAMPLES);
    CHECK(cudaMemcpy(expected.data(), truth, expected.size() * 8, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(expectedLse.data(), truthLse, SAMPLES * 8, cudaMemcpyDeviceToHost));
    double difference = 0, size = 0;
    *worst = *lseError = 0;
    auto keep = [](double* most, double value) {
      if (!(value <= *most)) *most = value;
    };
    for (int i = 0; i < SAMPLES; i++) {
      const size_t row = static_cast<size_t>(chosen[i].sequence) * rows + chosen[i].row;
      std::vector<__nv_bfloat16> actual(LATENT);
      float actualLse;
      CHECK(cudaMemcpy(actual.data(), out + row * LATENT, LATENT * 2, cudaMemcpyDeviceToHost));
      CHECK(cudaMemcpy(&actualLse, lse + row, 4, cudaMemcpyDeviceToHost));
      for (int c = 0; c < LATENT; c++) {
        const double want = expected[i * LATENT + c], error = std::abs(__bfloat162float(actual[c]) - want);
        keep(worst, error / std::max(std::abs(want), 0.05));
        difference += error * error;
        size += want * want;
      }
      if (!(std::isinf(actualLse) && expectedLse[i] == actualLse)) keep(lseError, std::abs(actualLse * plan.lseUnit - expectedLse[i]));
    }
    *distance = std::sqrt(difference / size);
    std::vector<unsigned> left(1 << 16);
    CHECK(cudaMemcpy(left.data(), counters, left.size() * 4, cudaMemcpyDeviceToHost));
    *clean = std::all_of(left.begin(), left.end(), [](unsigned value) { return value == 0; });
    if (!*clean) CHECK(cudaMemset(counters, 0, 4 << 16));
  }

  bool right(const Plan& plan, const Experiment& e, const std::string& line, const std::vector<int>& lengthsHost, int tableWidth, int page,
             double* worst, double* distance) {
    double lseError;
    bool clean;
    check(plan, e, lengthsHost, tableWidth, page, worst, distance, &lseError, &clean);
    if (*worst <= 4e-2 && *distance < 4e-3 && lseError < 1e-3 && clean) return true;
    printf("WRONG %s: worst %.2e distance %.2e lse %.1e counters %s\n", line.c_str(), *worst, *distance, lseError, clean ? "zero" : "NOT ZERO");
    fflush(stdout);
    return false;
  }

  /** One, then the other, `rounds` times: the medians. */
  void timeInTurn(int rounds, const Plan& plan, const Plan& rival, const Experiment& e, int calls, int step, int tableWidth, int page, double* ours,
                  double* theirs) {
    std::vector<double> times[2];
    for (int round = 0; round < rounds; round++) {
      times[0].push_back(timeOf(plan, e, calls, step, tableWidth, page));
      times[1].push_back(timeOf(rival, e, calls, step, tableWidth, page));
    }
    for (auto& list : times) std::sort(list.begin(), list.end());
    *ours = times[0][rounds / 2];
    *theirs = times[1][rounds / 2];
  }

  /** Clock readings of some blocks of the last of several calls in a row, none of which finds its entries in the caches. */
  void printStamps(const Plan& plan, const Experiment& e, int calls, int step, int tableWidth, int page) {
    CUdeviceptr place;
    size_t bytes;
    CHECK(cuModuleGetGlobal(&place, &bytes, plan.module, "stamps"));
    CHECK(cuMemsetD8(place, 0, bytes));
    for (int call = 0; call < std::min(calls, 6); call++) launch(plan, e, tables + static_cast<size_t>(call) * step, tableWidth, page);
    CHECK(cudaDeviceSynchronize());
    std::vector<long long> read(bytes / 8);
    CHECK(cuMemcpyDtoH(read.data(), place, bytes));
    for (int block = 0; block < std::min(plan.grid, 264); block += std::max(1, plan.grid / 4)) {
      const long long start = read[block * 96];
      for (int group = 0; group < 3; group++) {
        printf("   block %d %s:", block, group == 0 ? "first" : group == 1 ? "second" : "producer");
        for (int at = 0; at < 32; at++) {
          const long long value = read[block * 96 + group * 32 + at];
          if (value != 0) printf(" %d:%lld", at, value - start);
        }
        printf("\n");
      }
    }
  }

  /** Cycles a tile of a build with -DSTAMPS, as means over its blocks, of the last launch. */
  void printMeans(const Plan& plan) {
    static const char* names[16] = {"queries", "wait tile", "latent scores", "softmax", "left waits", "left values", "right waits", "right values",
                                    "walk", "rotary scores", "kernel", "beginning", "left fetches", "right fetches", "", "tiles"};
    CUdeviceptr address;
    size_t bytes;
    if (cuModuleGetGlobal(&address, &bytes, plan.module, "manyRowsStamps") != CUDA_SUCCESS) return;
    std::vector<unsigned> stamps(bytes / 4);
    CHECK(cudaMemcpy(stamps.data(), reinterpret_cast<void*>(address), bytes, cudaMemcpyDeviceToHost));
    double sums[16] = {}, most = 0, least = 1e12;
    int blocks = 0;
    for (int block = 0; block < std::min(plan.grid, 256); block++) {
      const unsigned* own = &stamps[block * 16];
      if (own[15] == 0) continue;
      blocks++;
      for (int i = 0; i < 16; i++) sums[i] += own[i];
      most = std::max<double>(most, own[10]);
      least = std::min<double>(least, own[10]);
    }
    printf("  ");
    for (int i = 0; i < 16; i++) {
      if (names[i][0] == 0) continue;
      if (i == 15 || i == 10 || i == 11 || i == 0 || i == 8) printf("%s %.0f, ", names[i], sums[i] / blocks);
      else printf("%s %.0f, ", names[i], sums[i] / sums[15]);
    }
    printf("kernel %.0f to %.0f, %d blocks\n", least, most, blocks);
  }

  void run(const Experiment& e, const std::string& line) {
    const int page = e.number("page", 64);
    std::vector<int> lengthsHost(e.batch, e.length);
    std::mt19937 random(e.batch + e.length);
    if (e.number("vary", 0) > 0) {
      for (int& length : lengthsHost) length = random() % 5 == 0 ? 0 : random() % (e.length + 1);
      lengthsHost.back() = e.length;
    }
    CHECK(cudaMemcpy(lengths, lengthsHost.data(), e.batch * 4, cudaMemcpyHostToDevice));
    const int tableWidth = (e.length + page - 1) / page, step = e.batch * tableWidth;
    const Plan plan = planOf(e);
    double tokens = 0;
    for (int length : lengthsHost) tokens += length;
    const double bytes = tokens * WIDTH * 2 + 2. * e.batch * e.sQ * e.heads * (WIDTH + LATENT), flops = 2. * e.sQ * e.heads * tokens * (WIDTH + LATENT);
    const int calls = std::max(4, std::min(200, static_cast<int>(300e6 / bytes) + 1));
    const size_t smallPages = pages * 64 / page;
    std::vector<int> order(static_cast<size_t>(calls) * step);
    // A stride through the pool that has no factor in common with it: no page twice in a call.
    size_t at = 0, stride = smallPages / 2 + 12345;
    while (std::__gcd(stride, smallPages) != 1) stride++;
    for (int& value : order) {
      value = static_cast<int>(at);
      at = (at + stride) % smallPages;
    }
    if (order.size() > (16u << 20)) { printf("%s: too many pages\n", line.c_str()); return; }
    CHECK(cudaMemcpy(tables, order.data(), order.size() * 4, cudaMemcpyHostToDevice));
    double worst, distance;
    if (!right(plan, e, line, lengthsHost, tableWidth, page, &worst, &distance)) return;
    double cold = 0, warm = 0, theirWorst = 0, theirDistance = 0;
    const bool beside = e.options.count("beside") > 0;
    const Plan rival = beside ? rivalPlanOf(e, tableWidth) : Plan{};
    if (beside && !right(rival, e, line + " (theirs)", lengthsHost, tableWidth, page, &theirWorst, &theirDistance)) return;
    if (e.number("notime", 0) > 0) {
      printf("%-44s right: err %.1e/%.1e\n", line.c_str(), worst, distance);
      return;
    }
    if (e.number("stamps", 0) > 0) return printStamps(plan, e, calls, step, tableWidth, page);
    if (beside) {
      double theirCold, theirWarm;
      timeInTurn(3, plan, rival, e, calls, step, tableWidth, page, &cold, &theirCold);
      timeInTurn(1, plan, rival, e, calls, 0, tableWidth, page, &warm, &theirWarm);
      printf("%-44s theirs cold %8.2f us warm %8.2f us err %.1e/%.1e (p%d)\n", line.c_str(), theirCold, theirWarm, theirWorst, theirDistance, rival.groups);
    } else {
      cold = timeOf(plan, e, calls, step, tableWidth, page);
      warm = timeOf(plan, e, calls, 0, tableWidth, page);
    }
    if (e.number("power", 0) > 0) {
      sustain("ours", plan, e, calls, step, tableWidth, page);
      if (beside) sustain("theirs", rival, e, calls, step, tableWidth, page);
    }
    if (e.number("means", 0) > 0) printMeans(plan);
    printf("%-44s cold %8.2f us warm %8.2f us %6.1f TFLOPS %6.0f GB/s err %.1e/%.1e (c%d g%d)\n", line.c_str(), cold, warm, flops / cold / 1e6,
           bytes / cold / 1e3, worst, distance, plan.cluster, plan.groups);
    fflush(stdout);
  }
};

int main(int count, char** words) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  Harness h;
  CHECK(cudaSetDevice(0));
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  h.defaults[0] = count > 1 ? words[1] : "";
  h.defaults[1] = count > 2 ? words[2] : "";
  h.pages = (count > 3 ? atof(words[3]) : 5.2e9) / (64 * WIDTH * 2);
  h.pool = allocate<__nv_bfloat16>(h.pages * 64 * WIDTH);
  const size_t rows = 128 * 256;
  h.q = allocate<__nv_bfloat16>(rows * WIDTH);
  h.out = allocate<__nv_bfloat16>(rows * LATENT);
  h.lse = allocate<float>(rows);
  h.scratch = allocate<float>(Harness::SCRATCH / 4);
  h.counters = allocate<unsigned>(1 << 16);
  CHECK(cudaMemset(h.counters, 0, 4 << 16));
  h.scores = allocate<double>(SAMPLES * 262144);
  h.truth = allocate<double>(SAMPLES * LATENT);
  h.truthLse = allocate<double>(SAMPLES);
  h.samples = allocate<Sample>(SAMPLES);
  h.tables = allocate<int>(16u << 20);
  h.lengths = allocate<int>(1024);
  CHECK(cudaStreamCreate(&h.stream));
  fill<<<2048, 256, 0, h.stream>>>(h.pool, h.pages * 64 * WIDTH, 1, 1.f);
  fill<<<2048, 256, 0, h.stream>>>(h.q, rows * WIDTH, 2, 1.f);
  CHECK(cudaStreamSynchronize(h.stream));
  printf("%s\n", properties.name);
  for (std::string line; std::getline(std::cin, line);) {
    if (line.empty() || line[0] == '#') {
      if (!line.empty()) printf("%s\n", line.c_str());
      continue;
    }
    std::istringstream stream(line);
    Experiment e;
    stream >> e.batch >> e.sQ >> e.heads >> e.length;
    for (std::string word; stream >> word;) {
      const size_t at = word.find('=');
      e.options[word.substr(0, at)] = at == std::string::npos ? "1" : word.substr(at + 1);
    }
    h.run(e, line);
  }
  return 0;
}
