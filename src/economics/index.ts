export { assumedEfficiency, defaultLoad, STEP_OVERHEAD_SECONDS } from "./assumptions.ts";
export { type CacheForm, cacheBytesPerToken, cacheFormNames, cacheForms } from "./cache-forms.ts";
export { type Calibration, calibrationOf } from "./calibration.ts";
export { type Capacity, capacityOf } from "./capacity.ts";
export { findGpu, type Gpu, parseGpus, type Source } from "./gpus.ts";
export { checkLoad, type Load } from "./load.ts";
export {
  type FormPlan,
  HOURS_A_MONTH,
  type Obstacle,
  type Plan,
  type PlanInput,
  planDeployment,
  type Service,
} from "./plan.ts";
export {
  activeWeights,
  type PlanExperts,
  type PlanModel,
  planModelOf,
  totalWeights,
} from "./plan-model.ts";
export { assumptionsOf, planPage } from "./plan-page.ts";
export { costRows, findingsOf, memoryRows, type Rows, scenarioRows, stepRows } from "./plan-tables.ts";
export { type PlainModel, plainModel, presets } from "./presets.ts";
export { type Deployment, decodeStep, type Efficiency, prefillStep, type StepTime } from "./roofline.ts";
export { derivationsOf67, publishedCosts, scenarioAssumptions } from "./scenarios.ts";
export { sensitivityCharts } from "./sensitivity.ts";
