import { describe, expect, it } from "vitest";
import { strftime } from "./strftime.ts";

describe("strftime", () => {
  const date = new Date(2026, 1, 3, 0, 5, 9);

  it.each([
    ["%d %B %Y", "03 February 2026"],
    ["%Y-%m-%d %H:%M:%S", "2026-02-03 00:05:09"],
    ["%F|%y|%b|%a|%A|%w", "2026-02-03|26|Feb|Tue|Tuesday|2"],
    ["%I %p %j", "12 AM 034"],
    ["%-d/%-m at %-H", "3/2 at 0"],
    ["100%% %Q %", "100% %Q %"],
  ])("formats %s", (format, expected) => expect(strftime(date, format)).toBe(expected));

  it("counts the last day of a leap year", () => {
    expect(strftime(new Date(2028, 11, 31, 23), "%j %I %p")).toBe("366 11 PM");
  });
});
