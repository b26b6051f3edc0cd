// Checks and times builds of the products of a few rows (linear.cu, gated-mlp.cu over streamed-products.cuh) without Node. Every line of
// standard input is one build with the rows it is run with:
//
//   name linear.cubin gated-mlp.cubin parts m[,m…] [shape] [head]
//
// parts: tiles of 16 weight rows that a block takes at a time, 1 or 2; 0 as models choose them.
// The four products of a layer (q with the latent, o, gate with up, down) are timed alone and one after the other, each launch over weights
// of its own (8 layers), as graphs of launches that may begin before the one before them ends.
//
//   nvcc -std=c++17 -O2 -gencode=arch=compute_90,code=sm_90 -o harness benchmarks/cuda/products-harness.cu -lcuda
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>
#include "harness.cuh"

constexpr int LAYERS = 8, ROWS = 16, SAMPLES = 64;
using bf16 = __nv_bfloat16;

struct Shape {
  const char* name;
  int hidden, query, latent, values, inner, vocab;
};
const Shape shapes[] = {{"mla-7b", 4096, 6144, 576, 4096, 11008, 32000},
                        {"v2-lite", 2048, 3072, 576, 2048, 10944, 102400},
                        {"youtu", 2048, 1536, 576, 2048, 6144, 128256},
                        {"minicpm3", 2560, 768, 288, 2560, 6400, 73448}};

/** Sampled outputs of normed products in float64: Σ x·w·W / rms(x). */
__global__ void reference(const float* x, const float* norm, const bf16* weights, const int* outputs, double* result, int inputs, int m, double epsilon) {
  const int row = blockIdx.x % m, output = outputs[blockIdx.x / m];
  __shared__ double sums[256], squares[256];
  double sum = 0, square = 0;
  for (int i = threadIdx.x; i < inputs; i += 256) {
    const double v = x[static_cast<size_t>(row) * inputs + i];
    square += v * v;
    sum += v * norm[i] * static_cast<double>(__bfloat162float(weights[static_cast<size_t>(output) * inputs + i]));
  }
  sums[threadIdx.x] = sum, squares[threadIdx.x] = square;
  __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half], squares[threadIdx.x] += squares[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) result[blockIdx.x] = sums[0] / sqrt(squares[0] / inputs + epsilon);
}

struct Memory {
  bf16* weights;
  float *hidden, *values, *query, *latent, *inner, *norm, *logits;
  int* rowCount;
};
Memory memory;
size_t weightCount;
cudaStream_t stream;
int units;

struct Build {
  std::string name;
  CUmodule linear, gated;
  int parts, m;
};

CUfunction functionOf(CUmodule module, const std::string& name) {
  CUfunction f;
  CHECK(cuModuleGetFunction(&f, module, name.c_str()));
  return f;
}

int sharedOf(int parts, int nt) {
  const int stage = parts * 16 * (1024 + 64) + 16, sums = 8 * nt * 8 * (parts * 16 + 5) * 4;
  return 12 / (2 * parts) * stage + sums;
}

int gridOf(int tiles) { return std::min(units * 2, tiles); }

void launch(CUfunction f, int grid, int shared, void** parameters) {
  CHECK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared));
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  attribute.value.programmaticStreamSerializationAllowed = 1;
  CUlaunchConfig config{};
  config.gridDimX = grid, config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = 288, config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = shared, config.hStream = stream, config.attrs = &attribute, config.numAttrs = 1;
  CHECK(cuLaunchKernelEx(&config, f, parameters, nullptr));
}

void linear(const Build& b, const float* x, const float* norm, const bf16* w, float* out, int outputs, const bf16* w2, float* out2, int outputs2, int inputs,
            int accumulates) {
  const int nt = b.m <= 8 ? 1 : 2;
  auto tilesOf = [&](int parts) { return (outputs + 16 * parts - 1) / (16 * parts) + (outputs2 + 16 * parts - 1) / (16 * parts); };
  const int parts = b.parts > 0 ? b.parts : tilesOf(2) >= units * 1.5 ? 2 : 1;
  int rowBlocks = 1, isNormed = norm != nullptr, hasBias = 0;
  float scale = 1.f, epsilon = 1e-6f;
  if (norm == nullptr) norm = x;
  void* parameters[] = {&x,       &norm,   &memory.rowCount, &w,         &out,         &out,      &w2,       &out2,  &inputs,
                        &outputs, &outputs2, &inputs,        &rowBlocks, &accumulates, &isNormed, &hasBias, &scale, &epsilon};
  const std::string name = "linear_bf16_" + std::to_string(parts) + "_" + std::to_string(nt);
  launch(functionOf(b.linear, name), gridOf(tilesOf(parts)), sharedOf(parts, nt), parameters);
}

void gateUp(const Build& b, const float* x, const bf16* gate, const bf16* up, float* out, int inputs, int outputs) {
  const int nt = b.m <= 8 ? 1 : 2;
  int rowBlocks = 1, isNormed = 1;
  float epsilon = 1e-6f;
  void* parameters[] = {&x, &memory.norm, &gate, &up, &out, &memory.rowCount, &inputs, &outputs, &rowBlocks, &isNormed, &epsilon};
  launch(functionOf(b.gated, "gatedMlpGateUp_bf16_2_" + std::to_string(nt)), gridOf((outputs + 15) / 16), sharedOf(2, nt), parameters);
}

struct LayerWeights {
  const bf16 *query, *latent, *output, *gate, *up, *down;
};
size_t layerCount(const Shape& s) {
  return static_cast<size_t>(s.hidden) * (s.query + s.latent + s.values + 3 * static_cast<size_t>(s.inner));
}
LayerWeights layerOf(const Shape& s, int layer) {
  LayerWeights l;
  const bf16* at = memory.weights + layerCount(s) * layer;
  const size_t h = s.hidden;
  l.query = at, at += h * s.query, l.latent = at, at += h * s.latent, l.output = at, at += h * s.values;
  l.gate = at, at += h * s.inner, l.up = at, at += h * s.inner, l.down = at;
  return l;
}

enum Product { QUERY, OUTPUT, GATE_UP, DOWN };
const char* productNames[] = {"qkv", "o", "gate-up", "down"};
size_t bytesOf(const Shape& s, int p) {
  const size_t h = 2 * static_cast<size_t>(s.hidden);
  return h * (p == QUERY ? s.query + s.latent : p == OUTPUT ? s.values : p == GATE_UP ? 2 * s.inner : s.inner);
}
void product(const Build& b, const Shape& s, int p, int layer) {
  const LayerWeights l = layerOf(s, layer);
  if (p == QUERY) linear(b, memory.hidden, memory.norm, l.query, memory.query, s.query, l.latent, memory.latent, s.latent, s.hidden, 0);
  if (p == OUTPUT) linear(b, memory.values, nullptr, l.output, memory.hidden, s.hidden, l.output, memory.hidden, 0, s.values, 1);
  if (p == GATE_UP) gateUp(b, memory.hidden, l.gate, l.up, memory.inner, s.hidden, s.inner);
  if (p == DOWN) linear(b, memory.inner, nullptr, l.down, memory.hidden, s.hidden, l.down, memory.hidden, 0, s.inner, 1);
}

double timed(const std::function<void()>& record, int runs) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  record();
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&exec, graph, 0));
  const double ms = medianReplay(exec, stream, 2, runs);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  return ms * 1e3;
}

void refill() {
  fill<<<256, 256, 0, stream>>>(memory.hidden, ROWS * 4096, 7, 1.f);
  fill<<<256, 256, 0, stream>>>(memory.values, ROWS * 4096, 8, 1.f);
  fill<<<256, 256, 0, stream>>>(memory.inner, ROWS * 11008, 9, 1.f);
  fill<<<16, 256, 0, stream>>>(memory.norm, 4096, 10, 1.f);
}

/** Largest difference from float64 over sampled outputs of the product with the norm, for every row. */
double worstError(const Build& b, const Shape& s) {
  refill();
  CHECK(cudaMemsetAsync(memory.query, 0xff, ROWS * s.query * 4, stream));
  CHECK(cudaMemsetAsync(memory.latent, 0xff, ROWS * s.latent * 4, stream));
  product(b, s, QUERY, 1);
  std::vector<int> outputs(SAMPLES);
  for (int i = 0; i < SAMPLES; i++) outputs[i] = i < 4 ? s.query + s.latent - 1 - i * 11 : i * 7919 % (s.query + s.latent);
  int* chosen;
  double* result;
  CHECK(cudaMalloc(&chosen, SAMPLES * 4));
  CHECK(cudaMalloc(&result, SAMPLES * b.m * 8));
  CHECK(cudaMemcpyAsync(chosen, outputs.data(), SAMPLES * 4, cudaMemcpyHostToDevice, stream));
  const LayerWeights l = layerOf(s, 1);
  reference<<<SAMPLES * b.m, 256, 0, stream>>>(memory.hidden, memory.norm, l.query, chosen, result, s.hidden, b.m, 1e-6);
  std::vector<double> truth(SAMPLES * b.m);
  std::vector<float> query(ROWS * s.query), latent(ROWS * s.latent);
  CHECK(cudaMemcpyAsync(truth.data(), result, truth.size() * 8, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaMemcpyAsync(query.data(), memory.query, query.size() * 4, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaMemcpyAsync(latent.data(), memory.latent, latent.size() * 4, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaStreamSynchronize(stream));
  cudaFree(chosen), cudaFree(result);
  double worst = 0;
  for (int i = 0; i < SAMPLES; i++) {
    for (int row = 0; row < b.m; row++) {
      const int o = outputs[i];
      const double got = o < s.query ? query[row * s.query + o] : latent[row * s.latent + o - s.query];
      const double off = std::abs(got - truth[i * b.m + row]);
      worst = off <= worst ? worst : off;
      if (!(off < 1e300)) return INFINITY;
    }
  }
  for (const float* v : {query.data(), latent.data()}) {
    const int width = v == query.data() ? s.query : s.latent;
    for (int i = 0; i < b.m * width; i++)
      if (std::isnan(v[i])) return INFINITY;
    for (int i = b.m * width; i < ROWS * width; i++)
      if (!std::isnan(v[i])) return -1;
  }
  return worst;
}

int main() {
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(nullptr));
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  units = properties.multiProcessorCount;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  weightCount = layerCount(shapes[0]) * LAYERS;
  CHECK(cudaMalloc(&memory.weights, weightCount * 2));
  fill<<<4096, 256, 0, stream>>>(memory.weights, weightCount, 1, 0.015f);
  for (float** buffer : {&memory.hidden, &memory.values, &memory.query, &memory.latent, &memory.inner, &memory.norm}) CHECK(cudaMalloc(buffer, ROWS * 11008 * 4));
  CHECK(cudaMalloc(&memory.logits, ROWS * 131072 * 4));
  CHECK(cudaMalloc(&memory.rowCount, 4));
  uint32_t* sink;
  CHECK(cudaMalloc(&sink, 4));
  double ceiling = 0;
  for (int blocks : {units * 4, units * 8}) {
    const double us = timed([&] { readAll<<<blocks, 512, 0, stream>>>(reinterpret_cast<uint4*>(memory.weights), weightCount / 8, sink); }, 5);
    ceiling = std::max(ceiling, weightCount * 2 / us / 1e3);
  }
  printf("read ceiling %.0f GB/s\n", ceiling);
  std::string line;
  while (std::getline(std::cin, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string linearFile, gatedFile, ms, word;
    Build b;
    words >> b.name >> linearFile >> gatedFile >> b.parts >> ms;
    const Shape* shape = &shapes[0];
    bool head = false;
    while (words >> word) {
      if (word == "head") head = true;
      for (const Shape& s : shapes) if (word == s.name) shape = &s;
    }
    CHECK(cuModuleLoad(&b.linear, linearFile.c_str()));
    CHECK(cuModuleLoad(&b.gated, gatedFile.c_str()));
    std::istringstream counts(ms);
    std::string each;
    while (std::getline(counts, each, ',')) {
      b.m = std::stoi(each);
      CHECK(cudaMemcpy(memory.rowCount, &b.m, 4, cudaMemcpyHostToDevice));
      const Shape& s = *shape;
      printf("%-14s m=%-2d off %.1e |", b.name.c_str(), b.m, worstError(b, s));
      refill();
      size_t bytes = 0;
      for (int p = 0; p < 4; p++) {
        const double us = timed([&] { for (int i = 0; i < 2 * LAYERS; i++) product(b, s, p, i % LAYERS); }, 9) / (2 * LAYERS);
        printf(" %s %.1f us %.0f %% |", productNames[p], us, bytesOf(s, p) / us / ceiling / 10);
        bytes += bytesOf(s, p);
      }
      refill();
      const double us = timed([&] { for (int l = 0; l < LAYERS; l++) for (int p = 0; p < 4; p++) product(b, s, p, l); }, 15) / LAYERS;
      printf(" all four %.1f us %.0f %%", us, bytes / us / ceiling / 10);
      if (head) {
        const size_t count = static_cast<size_t>(s.vocab) * s.hidden;
        const int copies = std::max<size_t>(1, std::min<size_t>(8, weightCount / count));
        const double t = timed([&] { for (int i = 0; i < copies; i++) linear(b, memory.hidden, memory.norm, memory.weights + count * i, memory.logits, s.vocab, memory.weights, memory.logits, 0, s.hidden, 0); }, 9) / copies;
        printf(" | head %.1f us %.0f %%", t, count * 2 / t / ceiling / 10);
      }
      printf("\n");
      fflush(stdout);
    }
    CHECK(cudaStreamSynchronize(stream));
    cuModuleUnload(b.linear), cuModuleUnload(b.gated);
  }
  return 0;
}
