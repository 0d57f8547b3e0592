/** JSON as it was sent: text, positions and lines. Numbers are never read, so large ones stay exact. */

/** The text of the value at a path of an answer: `rawAt(text, ["steps", 0, "value"])`. */
export function rawAt(text: string, path: readonly (string | number)[]): string | undefined {
  let at = skip(text, 0);
  for (const name of path) {
    const open = text[at];
    if (typeof name === "string" ? open !== "{" : open !== "[") return undefined;
    at = skip(text, at + 1);
    let index = 0;
    let found = false;
    while (at < text.length && text[at] !== "}" && text[at] !== "]") {
      if (typeof name === "string") {
        const end = ending(text, at);
        const key = text.slice(at, end);
        at = skip(text, skip(text, end) + 1);
        found = key === JSON.stringify(name) || (key.includes("\\") && JSON.parse(key) === name);
      } else found = index === name;
      if (found) break;
      at = skip(text, ending(text, at));
      if (text[at] === ",") at = skip(text, at + 1);
      index += 1;
    }
    if (!found) return undefined;
  }
  return text.slice(at, ending(text, at));
}

function skip(text: string, at: number): number {
  for (;;) {
    const code = text.charCodeAt(at);
    if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return at;
    at += 1;
  }
}

function stringEnd(text: string, at: number): number {
  for (let close = text.indexOf('"', at + 1); ; close = text.indexOf('"', close + 1)) {
    if (close < 0) return text.length;
    let slashes = 0;
    while (text.charCodeAt(close - 1 - slashes) === 92) slashes += 1;
    if (slashes % 2 === 0) return close + 1;
  }
}

/** Where the value ends that begins at `at`. */
function ending(text: string, at: number): number {
  const first = text.charCodeAt(at);
  if (first === 34) return stringEnd(text, at);
  if (first !== 123 && first !== 91) {
    let end = at;
    while (end < text.length && !",]} \n\r\t".includes(text[end]!)) end += 1;
    return end;
  }
  let depth = 0;
  for (let end = at; end < text.length; end += 1) {
    const code = text.charCodeAt(end);
    if (code === 34) end = stringEnd(text, end) - 1;
    else if (code === 123 || code === 91) depth += 1;
    else if (code === 125 || code === 93) {
      depth -= 1;
      if (depth === 0) return end + 1;
    }
  }
  return text.length;
}

/** The values of a text by number, in the order in which they begin. */
export interface Tree {
  text: string;
  count: number;
  start: Int32Array;
  end: Int32Array;
  /** Where the name of a member begins, with its quotation mark; -1 for items of lists and for the root. */
  key: Int32Array;
  keyEnd: Int32Array;
  depth: Int32Array;
  parent: Int32Array;
  /** The number of the first value after this one and all in it. */
  next: Int32Array;
  /** Members of an object or list. */
  size: Int32Array;
}

export function treeOf(text: string): Tree {
  let room = 1_024;
  const make = () => new Int32Array(room);
  const tree: Tree = { text, count: 0, start: make(), end: make(), key: make(), keyEnd: make(), depth: make(), parent: make(), next: make(), size: make() };
  const columns = ["start", "end", "key", "keyEnd", "depth", "parent", "next", "size"] as const;
  let parent = -1;
  let depth = 0;
  let key = -1;
  let keyEnd = -1;
  const add = (at: number): number => {
    if (tree.count === room) {
      room *= 2;
      for (const column of columns) {
        const wider = make();
        wider.set(tree[column]);
        tree[column] = wider;
      }
    }
    const node = tree.count++;
    tree.start[node] = at;
    tree.key[node] = key;
    tree.keyEnd[node] = keyEnd;
    tree.depth[node] = depth;
    tree.parent[node] = parent;
    if (parent >= 0) tree.size[parent]! += 1;
    key = -1;
    return node;
  };
  let at = skip(text, 0);
  let wantsKey = false;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === 44 || code === 58) at += 1;
    else if (code === 123 || code === 91) {
      parent = add(at);
      depth += 1;
      wantsKey = code === 123;
      at += 1;
      at = skip(text, at);
      continue;
    } else if (code === 125 || code === 93) {
      at += 1;
      if (parent < 0) break;
      tree.end[parent] = at;
      tree.next[parent] = tree.count;
      parent = tree.parent[parent]!;
      depth -= 1;
      wantsKey = parent >= 0 && text.charCodeAt(tree.start[parent]!) === 123;
    } else if (code === 34 && wantsKey && key < 0) {
      const end = stringEnd(text, at);
      key = at;
      keyEnd = end;
      at = end;
    } else {
      const end = Math.max(ending(text, at), at + 1);
      const node = add(at);
      tree.end[node] = end;
      tree.next[node] = tree.count;
      at = end;
      if (parent < 0) break;
    }
    at = skip(text, at);
  }
  return tree;
}

export function isContainer(tree: Tree, node: number): boolean {
  const code = tree.text.charCodeAt(tree.start[node]!);
  return (code === 123 || code === 91) && tree.size[node]! > 0;
}

/** Which objects and lists are open at first: the root, and small ones above depth 3. */
export function openAtFirst(tree: Tree): Set<number> {
  const open = new Set<number>();
  for (let node = 0; node < tree.count; ) {
    const small = tree.next[node]! - node <= 40;
    if (isContainer(tree, node) && (node === 0 || (tree.depth[node]! < 3 && small))) {
      open.add(node);
      node += 1;
    } else node = tree.depth[node] === 0 ? node + 1 : Math.max(node + 1, tree.next[node]!);
    if (open.size > 5_000) break;
  }
  return open;
}

/** Lines to show: a value's number, or for a closing bracket `-1 - number`. */
export function linesOf(tree: Tree, open: ReadonlySet<number>): Int32Array {
  const lines = new Int32Array(2 * tree.count);
  let count = 0;
  const closing: number[] = [];
  for (let node = 0; node < tree.count; ) {
    while (closing.length > 0 && tree.next[closing.at(-1)!]! <= node) lines[count++] = -1 - closing.pop()!;
    lines[count++] = node;
    if (open.has(node) && isContainer(tree, node)) {
      closing.push(node);
      node += 1;
    } else node = tree.next[node]!;
  }
  while (closing.length > 0) lines[count++] = -1 - closing.pop()!;
  return lines.subarray(0, count);
}

/** `$.lines[3].name`, as JSONPath. */
export function pathOf(tree: Tree, node: number): string {
  const parts: string[] = [];
  for (let one = node; tree.parent[one]! >= 0; one = tree.parent[one]!) {
    if (tree.key[one]! >= 0) {
      const name = keyText(tree, one);
      parts.push(/^[A-Za-z_]\w*$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`);
    } else {
      let index = 0;
      for (let other = tree.parent[one]! + 1; other < one; other = tree.next[other]!) index += 1;
      parts.push(`[${index}]`);
    }
  }
  return `$${parts.toReversed().join("")}`;
}

export function keyText(tree: Tree, node: number): string {
  return readString(tree.text.slice(tree.key[node]!, tree.keyEnd[node]!));
}

/** The characters of a JSON string; the text itself if it is none. */
export function readString(raw: string): string {
  try {
    return JSON.parse(raw) as string;
  } catch {
    return raw;
  }
}

/** The value that holds the character at this place of the text. */
export function nodeAt(tree: Tree, at: number): number {
  let low = 0;
  let high = tree.count - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    const from = tree.key[middle]! >= 0 ? tree.key[middle]! : tree.start[middle]!;
    if (from <= at) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The parents of a value, which must be open for it to have a line. */
export function parentsOf(tree: Tree, node: number): number[] {
  const found: number[] = [];
  for (let one = tree.parent[node]!; one >= 0; one = tree.parent[one]!) found.push(one);
  return found;
}

/** Laid out with two spaces, as it was sent; for copying and for short values. */
export function pretty(text: string): string {
  const tree = treeOf(text);
  const open = new Set(Array.from({ length: tree.count }, (_, node) => node));
  return Array.from(linesOf(tree, open), (line) => {
    const node = line < 0 ? -1 - line : line;
    const pad = "  ".repeat(tree.depth[node]!);
    const more = moreAfter(tree, node) ? "," : "";
    if (line < 0) return `${pad}${text[tree.end[node]! - 1]}${more}`;
    const name = tree.key[node]! >= 0 ? `${text.slice(tree.key[node]!, tree.keyEnd[node]!)}: ` : "";
    return isContainer(tree, node) ? `${pad}${name}${text[tree.start[node]!]}` : `${pad}${name}${text.slice(tree.start[node]!, tree.end[node]!)}${more}`;
  }).join("\n");
}

/** Whether another member follows in the same object or list. */
export function moreAfter(tree: Tree, node: number): boolean {
  const parent = tree.parent[node]!;
  return parent >= 0 && tree.next[node]! < tree.next[parent]!;
}

/** The texts of the items of a list. */
export function rawItems(list: string): string[] {
  const found: string[] = [];
  let at = skip(list, 1);
  while (at < list.length && list[at] !== "]") {
    const end = ending(list, at);
    found.push(list.slice(at, end));
    at = skip(list, end);
    if (list[at] === ",") at = skip(list, at + 1);
  }
  return found;
}
