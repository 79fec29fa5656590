// The pure parts of `npm run mutate`: applying a mutation, judging its outcome, and the lines of docs/proof.md.

/** Of each part's mutations, so many in a hundred must be caught. */
export const REQUIRED_PERCENT = 90;

export function applyMutation(text, { find, replace }) {
  const found = find === "" ? 0 : text.split(find).length - 1;
  if (found !== 1) return { stale: `its text occurs ${found} times in the file; it must occur once` };
  if (find === replace) return { stale: "it changes nothing" };
  const at = text.indexOf(find);
  return { text: text.slice(0, at) + replace + text.slice(at + find.length) }; // `$` in it stays what it is
}

export function scores(results) {
  return [...Map.groupBy(results, ({ part }) => part)]
    .map(([part, of]) => {
      const caught = of.filter(({ outcome }) => outcome === "caught").length;
      return { part, caught, all: of.length, percent: (100 * caught) / of.length };
    })
    .sort((one, other) => one.part.localeCompare(other.part));
}

export const isEnough = (parts) => parts.length > 0 && parts.every(({ percent }) => percent >= REQUIRED_PERCENT);

export function isSelected({ part, promise, file }, filters) {
  if (filters.length === 0) return true;
  return filters.some((filter) => part === filter || promise.includes(filter) || file.includes(filter));
}

/** @param remaining the set of tests of each mutation that is still to be run */
export function remainingSeconds(remaining, secondsOf) {
  const known = [...secondsOf.values()];
  const mean = known.length === 0 ? 0 : known.reduce((sum, each) => sum + each, 0) / known.length;
  return remaining.reduce((sum, tests) => sum + (secondsOf.get(tests) ?? mean), 0);
}

export function proofSection(results, { date, machine }) {
  const lines = [
    `Run on ${date} (${machine}). A part passes with ${REQUIRED_PERCENT} % of its faults caught.`,
    "",
    "| part | caught | of | score |",
    "| --- | --- | --- | --- |",
    ...scores(results).map(
      ({ part, caught, all, percent }) => `| ${part} | ${caught} | ${all} | ${percentText(percent)} |`,
    ),
  ];
  for (const [part, of] of [...Map.groupBy(results, (result) => result.part)].sort()) {
    lines.push(
      "",
      `### ${part[0].toUpperCase()}${part.slice(1)}`,
      "",
      "| promise | tests | faults |",
      "| --- | --- | --- |",
    );
    for (const [promise, faults] of Map.groupBy(of, (result) => result.promise)) {
      const tests = [...new Set(faults.flatMap((fault) => fault.tests))].map((test) => `\`${test}\``).join(", ");
      lines.push(`| ${cell(promise)} | ${tests} | ${verdict(faults)} |`);
    }
  }
  return lines.join("\n");
}

export function withSection(document, name, body) {
  const [begin, end] = [`<!-- ${name}: written by a machine -->`, `<!-- end of ${name} -->`];
  const section = `${begin}\n\n${body}\n\n${end}`;
  const [from, to] = [document.indexOf(begin), document.indexOf(end)];
  if (from < 0 || to < from) return `${document.trimEnd()}\n\n${section}\n`;
  return document.slice(0, from) + section + document.slice(to + end.length);
}

/** Never rounded up to what was not reached. */
const percentText = (percent) => `${(Math.floor(percent * 10) / 10).toFixed(1)} %`;
const cell = (text) => text.replaceAll("|", "\\|").replaceAll("\n", " ");

function verdict(faults) {
  const missed = faults.filter(({ outcome }) => outcome !== "caught");
  if (missed.length === 0) return faults.length === 1 ? "caught" : `${faults.length} of ${faults.length} caught`;
  const why = missed.map(
    ({ outcome, file, detail }) => `${outcome}: \`${file}\`${outcome === "survived" ? "" : `, ${cell(detail)}`}`,
  );
  return `${faults.length - missed.length} of ${faults.length} caught; ${[...new Set(why)].join("; ")}`;
}
