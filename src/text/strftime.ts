const months = "January February March April May June July August September October November December".split(
  " ",
);
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

const pad = (value: number, width: number): string => String(value).padStart(width, "0");

function dayOfYear(date: Date): number {
  const start = Date.UTC(date.getFullYear(), 0, 0);
  return Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - start) / 86_400_000);
}

const fields: Readonly<Record<string, (date: Date) => string>> = {
  a: (date) => days[date.getDay()]!.slice(0, 3),
  A: (date) => days[date.getDay()]!,
  b: (date) => months[date.getMonth()]!.slice(0, 3),
  B: (date) => months[date.getMonth()]!,
  d: (date) => pad(date.getDate(), 2),
  F: (date) => `${pad(date.getFullYear(), 4)}-${pad(date.getMonth() + 1, 2)}-${pad(date.getDate(), 2)}`,
  H: (date) => pad(date.getHours(), 2),
  I: (date) => pad(date.getHours() % 12 || 12, 2),
  j: (date) => pad(dayOfYear(date), 3),
  m: (date) => pad(date.getMonth() + 1, 2),
  M: (date) => pad(date.getMinutes(), 2),
  p: (date) => (date.getHours() < 12 ? "AM" : "PM"),
  S: (date) => pad(date.getSeconds(), 2),
  w: (date) => String(date.getDay()),
  y: (date) => pad(date.getFullYear() % 100, 2),
  Y: (date) => String(date.getFullYear()),
  "%": () => "%",
};

/**
 * Python's `date.strftime(format)` in local time and English, the locale that chat templates are written for.
 * Directives outside `%a %A %b %B %d %F %H %I %j %m %M %p %S %w %y %Y %%` stay as they are; `%-d` drops leading zeros.
 */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)([a-zA-Z%])/g, (directive, bare: string, name: string) => {
    const text = fields[name]?.(date);
    if (text === undefined) return directive;
    return bare ? text.replace(/^0+(?=\d)/, "") : text;
  });
}
