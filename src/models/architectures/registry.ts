import type { ModelType } from "../../formats/config-types.ts";
import type { Architecture } from "./architecture.ts";
import { deepseekV2 } from "./deepseek-v2.ts";
import { deepseekV3 } from "./deepseek-v3.ts";
import { glm4MoeLite } from "./glm4-moe-lite.ts";
import { minicpm3 } from "./minicpm3.ts";
import { mistral4 } from "./mistral4.ts";
import { youtu } from "./youtu.ts";

/** Every architecture by its model type. */
export const architectures: Readonly<Record<ModelType, Architecture>> = {
  deepseek_v2: deepseekV2,
  deepseek_v3: deepseekV3,
  minicpm3,
  glm4_moe_lite: glm4MoeLite,
  youtu,
  mistral4,
};
