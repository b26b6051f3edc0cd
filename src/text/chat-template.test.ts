import { describe, expect, it } from "vitest";
import { readGolden } from "../../tests/golden/tokenizer/golden.ts";
import { type ChatMessage, type ChatOptions, readChatTemplate, renderChat } from "./chat-template.ts";

interface GoldenConversation {
  readonly messages: ChatMessage[];
  readonly tools?: object[];
  readonly add_generation_prompt?: boolean;
  readonly enable_thinking?: boolean;
  readonly text: string;
}

const golden = readGolden<{
  template: string;
  now: [number, number, number];
  conversations: Record<string, GoldenConversation>;
}>("chat-template-golden.json");

const specialTokens = { bos_token: "<bos>", eos_token: "<eos>" };
const hello: ChatMessage[] = [{ role: "user", content: "hello" }];

function render(source: unknown, options: Partial<ChatOptions> = {}): string {
  return renderChat(readChatTemplate(source, specialTokens), { messages: hello, ...options });
}

describe("golden conversations", () => {
  it.each(Object.entries(golden.conversations))("renders %s as transformers does", (_name, conversation) => {
    const options: ChatOptions = {
      messages: conversation.messages,
      addGenerationPrompt: conversation.add_generation_prompt ?? true,
      ...(conversation.tools === undefined ? {} : { tools: conversation.tools }),
      variables:
        conversation.enable_thinking === undefined ? {} : { enable_thinking: conversation.enable_thinking },
      now: new Date(...golden.now),
    };
    expect(renderChat(readChatTemplate(golden.template, specialTokens), options)).toBe(conversation.text);
  });

  it("passes on what the template raises", () => {
    const messages = [{ role: "robot", content: "" }];
    expect(() => render(golden.template, { messages })).toThrow(
      expect.objectContaining({
        name: "UserError",
        message: "The model's chat template refuses these messages: Unknown role: robot",
      }),
    );
  });
});

describe("variables", () => {
  it("prefers the caller's special tokens and variables", () => {
    const source = "{{ bos_token }}{{ eos_token }}{{ extra }}{{ add_generation_prompt }}{{ tools is none }}";
    expect(render(source, { bosToken: "<s>", variables: { extra: 7 } })).toBe("<s><eos>7truetrue");
    expect(render(source, { eosToken: "</s>", addGenerationPrompt: false })).toBe("<bos></s>falsetrue");
  });

  it("renders a special token the model does not have as nothing", () => {
    expect(renderChat(readChatTemplate("[{{ bos_token }}]"), { messages: hello })).toBe("[]");
  });

  it("limits range as Jinja's sandbox does", () => {
    expect(render("{% for i in range(2, 8, 3) %}{{ i }};{% endfor %}{{ range(3)|length }}")).toBe("2;5;3");
    for (const call of ["range(1000000000)", "range(0, 5, 0)"]) {
      expect(() => render(`{{ ${call} }}`)).toThrow("range of more than 100000 items");
    }
  });
});

describe("several templates", () => {
  const list = [
    { name: "default", template: "plain" },
    { name: "tool_use", template: "tools" },
    { name: "rag", template: "rag" },
  ];

  it.each([
    ["a list", list],
    ["a record", { default: "plain", tool_use: "tools", rag: "rag" }],
  ])("chooses from %s", (_name, source) => {
    expect(render(source)).toBe("plain");
    expect(render(source, { tools: [{}] })).toBe("tools");
    expect(render(source, { tools: [{}], templateName: "default" })).toBe("plain");
    expect(render(source, { templateName: "rag" })).toBe("rag");
    expect(() => render(source, { templateName: "no" })).toThrow("choose one of default, tool_use, rag");
  });

  it("asks for a name when none is the default", () => {
    expect(() => render([{ name: "rag", template: "rag" }])).toThrow("no chat template named default");
  });
});

describe("what cannot be rendered", () => {
  it("says that a model has no chat template", () => {
    for (const source of [undefined, null, [], {}]) {
      expect(readChatTemplate(source)).toBeUndefined();
      expect(() => render(source)).toThrow("This model has no chat template; use generate instead");
    }
  });

  it.each([[3], [["text"]], [{ default: 3 }], [[{ name: "default" }]]])(
    "rejects the template %j",
    (source) => {
      expect(() => readChatTemplate(source)).toThrow(expect.objectContaining({ name: "UserError" }));
    },
  );

  it("says that a template is broken or fails", () => {
    expect(() => render("{% if %}")).toThrow("The model's chat template cannot be read:");
    expect(() => render("{{ messages[0].content.no_such() }}")).toThrow(
      "chat template fails on these messages:",
    );
    const circular: Record<string, unknown> & { role: string } = { role: "user" };
    circular.self = circular;
    expect(() => render("{{ messages }}", { messages: [circular] })).toThrow(
      expect.objectContaining({ name: "UserError" }),
    );
  });

  it("rejects messages that are none", () => {
    const wrong = [undefined, "hi", [null], [{ content: "no role" }], [{ role: 3 }]];
    for (const messages of wrong) {
      expect(() => render("x", { messages: messages as unknown as ChatMessage[] })).toThrow(TypeError);
    }
  });
});
