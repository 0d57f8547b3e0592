/** Spans as rows of a waterfall: below their parents, in the order in which they began. */

export interface Span {
  id: string;
  parent: string | null;
  name: string;
  kind: string;
  from: number;
  /** null: it is open. */
  to: number | null;
  failed: boolean;
}

export interface SpanRow extends Span {
  depth: number;
  /** Share of the whole, 0 to 1. */
  left: number;
  width: number;
}

/** A parent that is missing, or that is below its own child, counts as no parent. */
export function rowsOf(spans: readonly Span[], now: number): { rows: SpanRow[]; from: number; to: number } {
  const known = new Map(spans.map((span) => [span.id, span]));
  const children = new Map<string | null, Span[]>();
  for (const span of spans) {
    const parent = span.parent !== null && span.parent !== span.id && known.has(span.parent) ? span.parent : null;
    const list = children.get(parent);
    if (list === undefined) children.set(parent, [span]);
    else list.push(span);
  }
  for (const list of children.values()) list.sort((a, b) => a.from - b.from);
  const from = spans.reduce((first, span) => Math.min(first, span.from), Infinity);
  const to = spans.reduce((last, span) => Math.max(last, span.to ?? now), from);
  const whole = Math.max(1, to - from);
  const rows: SpanRow[] = [];
  const drawn = new Set<string>();
  const add = (span: Span, depth: number) => {
    if (drawn.has(span.id)) return;
    drawn.add(span.id);
    rows.push({ ...span, depth, left: (span.from - from) / whole, width: Math.max(0, (span.to ?? now) - span.from) / whole });
    for (const child of children.get(span.id) ?? []) add(child, depth + 1);
  };
  for (const span of children.get(null) ?? []) add(span, 0);
  for (const span of spans) add(span, 0);
  return { rows, from, to };
}
