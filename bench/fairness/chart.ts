/** A small bar chart as SVG that reads on light and on dark ground. */
export interface Panel {
  readonly title: string;
  readonly unit: string;
  /** Logarithmic, for values that differ by more than a glance can hold. */
  readonly isLog?: boolean;
  readonly groups: readonly { readonly label: string; readonly bars: readonly number[] }[];
}

const COLORS = ["#8b95a5", "#d9a441", "#2f9e73"];
const [WIDTH, PANEL, LEFT, RIGHT, BAR, GAP] = [860, 26, 190, 96, 13, 15];

const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** @param series names of the bars of each group */
export function barChart(series: readonly string[], panels: readonly Panel[]): string {
  const parts: string[] = [];
  let y = 30;
  let x = LEFT;
  for (const [index, name] of series.entries()) {
    parts.push(`<rect x="${x}" y="${y - 10}" width="12" height="12" rx="2" fill="${COLORS[index]}"/>`);
    parts.push(`<text x="${x + 18}" y="${y}">${escaped(name)}</text>`);
    x += 40 + 8 * name.length;
  }
  y += PANEL + 8;
  for (const { title, unit, isLog = false, groups } of panels) {
    parts.push(`<text x="12" y="${y}" class="title">${escaped(title)}</text>`);
    y += 12;
    const scaled = (value: number) => (isLog ? Math.log10(1 + value) : value);
    const largest = Math.max(...groups.flatMap(({ bars }) => bars.map(scaled)), 1e-9);
    for (const { label, bars } of groups) {
      parts.push(
        `<text x="${LEFT - 10}" y="${y + (bars.length * BAR) / 2 + 5}" text-anchor="end">${escaped(label)}</text>`,
      );
      for (const [index, value] of bars.entries()) {
        const width = Math.max(1, (scaled(value) / largest) * (WIDTH - LEFT - RIGHT));
        parts.push(
          `<rect x="${LEFT}" y="${y}" width="${width.toFixed(1)}" height="${BAR - 2}" rx="2" fill="${COLORS[index]}"/>`,
        );
        const shown = value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(value >= 10 ? 1 : 2);
        parts.push(
          `<text x="${(LEFT + width + 6).toFixed(1)}" y="${y + BAR - 3}" class="value">${shown} ${unit}</text>`,
        );
        y += BAR;
      }
      y += GAP;
    }
    y += PANEL;
  }
  const style =
    "text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-weight:600;font-size:14px}.value{font-size:11px}" +
    "@media(prefers-color-scheme:dark){text{fill:#b1bac4}}";
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" role="img"><style>${style}</style>\n${parts.join("\n")}\n</svg>\n`;
}
