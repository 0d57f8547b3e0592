/** Two executions side by side: their outcomes by key, in the order of the first one. */

export interface Outcome {
  key: string;
  kind: string;
  ok: boolean;
  /** As it was recorded. */
  value: string;
}

export interface Pair {
  key: string;
  left: Outcome | null;
  right: Outcome | null;
  same: boolean;
}

/** Keys of the right side that the left one lacks come after the key that is before them there. */
export function align(left: readonly Outcome[], right: readonly Outcome[]): Pair[] {
  const rightByKey = new Map(right.map((one) => [one.key, one]));
  const leftKeys = new Set(left.map((one) => one.key));
  const after = new Map<string | null, Outcome[]>();
  let before: string | null = null;
  for (const one of right) {
    if (leftKeys.has(one.key)) before = one.key;
    else after.set(before, [...(after.get(before) ?? []), one]);
  }
  const pairs: Pair[] = [];
  const only = (key: string | null) => {
    for (const one of after.get(key) ?? []) pairs.push({ key: one.key, left: null, right: one, same: false });
  };
  only(null);
  for (const one of left) {
    const other = rightByKey.get(one.key) ?? null;
    pairs.push({ key: one.key, left: one, right: other, same: other !== null && other.ok === one.ok && other.value === one.value });
    only(one.key);
  }
  return pairs;
}

export type Shown = { same: Pair[] } | { pair: Pair };

/** Neighbours that are equal are one line. */
export function folded(pairs: readonly Pair[]): Shown[] {
  const found: Shown[] = [];
  for (const pair of pairs) {
    const last = found.at(-1);
    if (!pair.same) found.push({ pair });
    else if (last !== undefined && "same" in last) last.same.push(pair);
    else found.push({ same: [pair] });
  }
  return found;
}

/** Lines of each text that the other one does not have. */
export function differing(left: string, right: string): [ReadonlySet<number>, ReadonlySet<number>] {
  const lines = [left.split("\n"), right.split("\n")] as const;
  const bare = (line: string) => line.trim().replace(/,$/, "");
  const sets = lines.map((all) => new Set(all.map(bare)));
  const of = (all: string[], other: Set<string>) => new Set(all.flatMap((line, at) => (other.has(bare(line)) ? [] : [at])));
  return [of(lines[0], sets[1]!), of(lines[1], sets[0]!)];
}
