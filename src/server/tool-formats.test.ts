import { describe, expect, it } from "vitest";
import { toolFormatOf } from "./tool-formats.ts";
import { ToolReader } from "./tool-reader.ts";

const formatOf = (template: string) =>
  toolFormatOf({ templates: new Map([["default", template]]), specialTokens: {} })!;

const cases: [name: string, template: string, text: string, calls: [string, string][]][] = [
  [
    "JSON in tags",
    "<tool_call>",
    'x<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
    [["f", '{"a":1}']],
  ],
  [
    "argument tags",
    "<tool_call> <arg_key>",
    "x<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>two</arg_value>\n</tool_call>",
    [["f", '{"a":1,"b":"two"}']],
  ],
  [
    "DeepSeek V3 and R1: fenced JSON",
    "<｜tool▁calls▁begin｜>",
    'x<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    [["f", '{"a": 1}']],
  ],
  [
    "DeepSeek V3.1: the name first",
    "<｜tool▁calls▁begin｜>",
    'x<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    [
      ["f", '{"a": 1}'],
      ["g", "{}"],
    ],
  ],
  [
    "Mistral: a JSON list",
    "[TOOL_CALLS]",
    'x[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]',
    [["f", '{"a":1}']],
  ],
  [
    "Mistral: name and arguments",
    "[TOOL_CALLS]",
    'x[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}',
    [
      ["f", '{"a": 1}'],
      ["g", "{}"],
    ],
  ],
];

describe.each(cases)("%s", (_, template, text, calls) => {
  it.each([1, 2, 7, 1000])("in pieces of %i characters", (size) => {
    const reader = new ToolReader(formatOf(template));
    const pieces = [];
    for (let at = 0; at < text.length; at += size) pieces.push(reader.push(text.slice(at, at + size)));
    pieces.push(reader.flush());
    expect(pieces.map(({ content }) => content).join("")).toBe("x");
    expect(pieces.flatMap((piece) => piece.calls.map((call) => [call.name, call.arguments]))).toEqual(calls);
  });
});

it("a template of no known format has none", () => {
  expect(formatOf("{{ tools }}")).toBeNull();
});
