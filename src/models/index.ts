export { architectures } from "./architectures/registry.ts";
export { type LoadModelOptions, loadModel, type Model, weightBytesOf } from "./model.ts";
export type { ModelWeights } from "./model-weights.ts";
export { type ReferenceInput, type ReferenceWeights, referenceLogits } from "./reference.ts";
export { inverseFrequencies, queryScale, rotaryTable, softmaxScale } from "./rope.ts";
export { type LoadProgress, type Matrix, WeightSource } from "./weight-source.ts";
