// Times builds of product-chain.sm90.cu without Node: a layer's four products (o, gate with up, down, the next q with the latent) as one
// launch, each layer over weights of its own, as a graph. Every line of standard input is one build:
//
//   name product-chain.cubin stages [shape] [stamps]
//
// stamps: a build with -DSTAMPS; prints when blocks began, went on, had their first weights and ended, by part, in µs.
//
//   nvcc -std=c++17 -O2 -gencode=arch=compute_90,code=sm_90 -o harness benchmarks/cuda/chain-harness.cu -lcuda
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <cmath>
#include <cstring>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include "../../src/kernels/common/product-chain.cuh"
#include "harness.cuh"

using flashmla::Chain, flashmla::Part, flashmla::MOST_PARTS, flashmla::STAMPS_A_PART;

constexpr int LAYERS = 8, ROWS = 16, THREADS = 288;
using bf16 = __nv_bfloat16;

struct Shape {
  const char* name;
  int hidden, query, latent, values, inner;
};
const Shape shapes[] = {{"mla-7b", 4096, 6144, 576, 4096, 11008}, {"v2-lite", 2048, 3072, 576, 2048, 10944}, {"youtu", 2048, 1536, 576, 2048, 6144}};

int main() {
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(nullptr));
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  const int units = properties.multiProcessorCount;
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  auto layerCount = [](const Shape& s) { return static_cast<size_t>(s.hidden) * (s.query + s.latent + s.values + 3 * static_cast<size_t>(s.inner)); };
  const size_t weightCount = layerCount(shapes[0]) * LAYERS;
  bf16* weights;
  float *hidden, *values, *query, *latent, *inner, *norm;
  int* rowCount;
  unsigned* counters;
  uint32_t* sink;
  CHECK(cudaMalloc(&weights, weightCount * 2));
  fill<<<4096, 256, 0, stream>>>(weights, weightCount, 1, 0.015f);
  for (float** buffer : {&hidden, &values, &query, &latent, &inner, &norm}) {
    CHECK(cudaMalloc(buffer, ROWS * 11008 * 4));
    fill<<<256, 256, 0, stream>>>(*buffer, ROWS * 11008, 7, 1.f);
  }
  CHECK(cudaMalloc(&rowCount, 4));
  CHECK(cudaMalloc(&sink, 4));
  CHECK(cudaMalloc(&counters, 64 + 8 * STAMPS_A_PART * MOST_PARTS * units));
  CHECK(cudaMemsetAsync(counters, 0, 64, stream));
  auto timed = [&](const std::function<void()>& record, int runs) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    record();
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    const double ms = medianReplay(exec, stream, 2, runs);
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    return ms * 1e3;
  };
  double ceiling = 0;
  for (int blocks : {units * 4, units * 8}) {
    const double us = timed([&] { readAll<<<blocks, 512, 0, stream>>>(reinterpret_cast<uint4*>(weights), weightCount / 8, sink); }, 5);
    ceiling = std::max(ceiling, weightCount * 2 / us / 1e3);
  }
  printf("read ceiling %.0f GB/s\n", ceiling);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string name, file, word;
    int stages, m = 1;
    if (!(words >> name >> file >> stages)) continue;
    const Shape* shape = &shapes[0];
    bool stamped = false;
    while (words >> word) {
      if (word == "stamps") stamped = true;
      for (const Shape& s : shapes) if (word == s.name) shape = &s;
    }
    const Shape& s = *shape;
    CUmodule module;
    CUfunction f;
    CHECK(cuModuleLoad(&module, file.c_str()));
    CHECK(cuModuleGetFunction(&f, module, "productChain"));
    const int shared = stages * 16 * (2048 + 64) + (36 * stages + 5232 + 15) / 16 * 16 + 6 * 11008;
    CHECK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared));
    CHECK(cudaMemcpy(rowCount, &m, 4, cudaMemcpyHostToDevice));
    auto layer = [&](int l, int count) {
      Chain c{};
      c.counters = counters, c.count = count;
      const bf16* at = weights + layerCount(s) * l;
      const size_t h = s.hidden;
      auto part = [&](const float* x, bool normed, int inputs, const bf16* first, int outputs, const bf16* second, int outputs2, float* out, float* out2, int kind, bool adds) {
        Part p{};
        p.x = x, p.norm = norm, p.rowCount = rowCount, p.first = first, p.second = second, p.out = out, p.out2 = out2;
        p.inputs = inputs, p.outputs = outputs, p.outputs2 = outputs2, p.kind = kind, p.accumulates = adds, p.isNormed = normed;
        p.scale = adds ? 0.f : 1.f, p.epsilon = 1e-6f;
        return p;
      };
      c.parts[0] = part(values, false, s.values, at, s.hidden, at, 0, hidden, hidden, 0, true), at += h * s.values;
      c.parts[1] = part(hidden, true, s.hidden, at, s.inner, at + h * s.inner, 0, inner, inner, 1, false), at += 2 * h * s.inner;
      c.parts[2] = part(inner, false, s.inner, at, s.hidden, at, 0, hidden, hidden, 0, true), at += h * s.inner;
      c.parts[3] = part(hidden, true, s.hidden, at, s.query, at + h * s.query, s.latent, query, latent, 0, false);
      for (int i = 0; i < 4; i++) c.parts[i].waitsFor = i - 1, c.parts[i].announces = i + 1 < count;
      void* parameters[] = {&c};
      CUlaunchAttribute attribute{};
      attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
      attribute.value.programmaticStreamSerializationAllowed = 1;
      CUlaunchConfig config{};
      config.gridDimX = units, config.gridDimY = config.gridDimZ = 1;
      config.blockDimX = THREADS, config.blockDimY = config.blockDimZ = 1;
      config.sharedMemBytes = shared, config.hStream = stream, config.attrs = &attribute, config.numAttrs = 1;
      CHECK(cuLaunchKernelEx(&config, f, parameters, nullptr));
    };
    const double us = timed([&] { for (int l = 0; l < LAYERS; l++) layer(l, 4); }, 15) / LAYERS;
    printf("%-12s %s: layer %.1f us %.1f %%\n", name.c_str(), s.name, us, layerCount(s) * 2 / us / ceiling / 10);
    if (stamped) {
      std::vector<unsigned long long> t(STAMPS_A_PART * MOST_PARTS * units);
      CHECK(cudaMemcpy(t.data(), counters + 16, t.size() * 8, cudaMemcpyDeviceToHost));
      unsigned long long first = ~0ull;
      for (int b = 0; b < units; b++) first = std::min(first, t[b * MOST_PARTS * STAMPS_A_PART]);
      printf("  us, least mean most of: ready | goes on | has its inputs | last tile | ended\n");
      for (int p = 0; p < 4; p++) {
        printf("  part %d", p);
        for (int i = 0; i < STAMPS_A_PART; i++) {
          double least = 1e30, most = 0, sum = 0;
          for (int b = 0; b < units; b++) {
            const double v = (t[(b * MOST_PARTS + p) * STAMPS_A_PART + i] - first) * 1e-3;
            least = std::min(least, v), most = std::max(most, v), sum += v;
          }
          printf(" | %.1f %.1f %.1f", least, sum / units, most);
        }
        printf("\n");
      }
    }
    fflush(stdout);
    CHECK(cudaStreamSynchronize(stream));
  }
  return 0;
}
