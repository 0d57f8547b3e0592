import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Link, useLocation, useSearch } from "wouter-preact";
import { ArrowDown, Bookmark, CircleStop, Columns3, GitFork, Lock, Play, RotateCcw, X, type LucideIcon } from "lucide-preact";
import { now } from "../../api/client";
import { useCommands, type Command } from "../../keys";
import { asFlags, builtInViews, chips, NAMES, readFilters, sameFilters, showsFailures, without, type Filters, type View } from "../../model/filters";
import { ordinal } from "../../model/says";
import { count, counted, errorWords, splitError, visible } from "../../model/words";
import { Copies } from "../../parts/action";
import { Dialog } from "../../parts/dialog";
import { Page } from "../../parts/page";
import { Phase } from "../../parts/phase";
import { Empty, Problem, Skeleton } from "../../parts/state";
import { Key, Shown, Time } from "../../parts/text";
import { useTick } from "../../parts/tick";
import { scrollToRow, useWindow } from "../../parts/window";
import { useQueryParams } from "../../url";
import { useMay } from "../../session";
import { BulkDialog, type Act, type Chosen } from "./bulk";
import { ColumnsDialog, columnsOf, type Column } from "./columns";
import { FilterBar } from "./filterbar";
import { HistogramBar } from "./histogram";
import { useExecutions, type Summary } from "./list";
import { useCount, useErrorGroups } from "./numbers";
import { Peek } from "./peek";
import { useSelection } from "./selection";
import { savedViews, saveView, dropView } from "./views";
import "./executions.css";

const HEAD = 28;
const rowHeight = () => (document.documentElement.dataset["density"] === "compact" ? 28 : 34);
/** Where the list was, by its address: going back finds the same place. */
const places = new Map<string, number>();

export default function Executions() {
  const [params, change] = useQueryParams();
  const search = useSearch();
  const [, navigate] = useLocation();
  const filters = useMemo(() => readFilters(new URLSearchParams(search)), [search]);
  const known = useRef(filters);
  if (!sameFilters(known.current, filters)) known.current = filters;
  const wanted = known.current;
  const sort = params.get("sort") === "ended" ? "ended" : "created";
  const { list, rows, fresh, gone, load, searchedTo } = useExecutions(wanted, sort);
  const chosenColumns = columnsOf(params.get("cols"), sort);
  const columns = params.get("peek") === null ? chosenColumns : chosenColumns.slice(-1);
  const [cursor, setCursor] = useState<string | null>(null);
  const loaded = list.data !== undefined;
  const { selected, setSelected, all, setAll, clear } = useSelection(wanted, rows, loaded);
  const [choosing, setChoosing] = useState(false);
  const [dialog, setDialog] = useState<{ act: Act; chosen: Chosen } | null>(null);
  const [copying, setCopying] = useState(false);
  useTick(5_000);
  const anchor = useRef<string | null>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const height = rowHeight();
  const { first, last, total } = useWindow(scroller, rows.length, height, { above: HEAD, more: 10 });
  const peek = params.get("peek");
  const at = rows.findIndex((row) => row.id === cursor);

  const setFilters = (next: Filters) =>
    change(Object.fromEntries([...NAMES, "peek", "sel"].map((name) => [name, next[name] ?? null])), true);

  useEffect(() => {
    if (last >= rows.length - 20 && list.hasNextPage && !list.isFetchingNextPage && !list.isError) void list.fetchNextPage();
  });
  const place = `${sort} ${JSON.stringify(wanted)}`;
  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    element.scrollTop = places.get(place) ?? 0;
    const remember = () => void places.set(place, element.scrollTop);
    element.addEventListener("scroll", remember, { passive: true });
    return () => element.removeEventListener("scroll", remember);
  }, [place, loaded]);

  const move = (step: number) => {
    const next = rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)];
    if (next === undefined) return;
    setCursor(next.id);
    scrollToRow(scroller.current, rows.indexOf(next), height, HEAD);
    if (peek !== null) change({ peek: next.id });
  };
  const toggle = (row: Summary | undefined, range = false) => {
    if (row === undefined) return;
    const next = new Map(all ? rows.map((one) => [one.id, one]) : selected);
    const from = rows.findIndex((one) => one.id === anchor.current);
    const to = rows.indexOf(row);
    if (range && from >= 0) for (const one of rows.slice(Math.min(from, to), Math.max(from, to) + 1)) next.set(one.id, one);
    else if (!next.delete(row.id)) next.set(row.id, row);
    anchor.current = row.id;
    setAll(false);
    setCursor(row.id);
    setSelected(next);
  };
  const current = rows[at];
  const chosen = (): Chosen | null =>
    all ? { filters: wanted } : selected.size > 0 ? { rows: [...selected.values()] } : current === undefined ? null : { rows: [current] };
  const start = (act: Act, given = chosen()) => given !== null && setDialog({ act, chosen: given });
  const open = (row: Summary | undefined) => row !== undefined && navigate(`/executions/${row.id}`);

  const commands: Command[] = [
    { title: "Next execution", key: "j", quiet: true, run: () => move(1) },
    { title: "Previous execution", key: "k", quiet: true, run: () => move(-1) },
    { title: "Open the execution", key: "o", run: () => open(current) },
    { title: "Open the execution", key: "enter", quiet: true, run: () => open(current) },
    { title: "Select", key: "x", quiet: true, run: () => toggle(current) },
    { title: "Select to here", key: "shift+x", quiet: true, run: () => toggle(current, true) },
    {
      title: "Select all that are loaded",
      key: "mod+a",
      run: () => (setAll(false), setSelected(new Map(rows.map((row) => [row.id, row])))),
    },
    {
      title: "Look at the execution beside the list",
      key: "space",
      run: () => change({ peek: peek === null ? (current?.id ?? rows[0]?.id ?? null) : null }),
    },
    {
      title: "One step back",
      key: "escape",
      quiet: true,
      run: () => (peek !== null ? change({ peek: null }) : selected.size > 0 || all ? clear() : Object.keys(wanted).length > 0 && setFilters({})),
    },
    { title: "Show new executions", key: ".", run: load },
    { title: "Retry", key: "r", run: () => start("retry") },
    { title: "Fork with edits", key: "f", run: () => start("fork") },
    { title: "Cancel", key: "c", run: () => start("cancel") },
    { title: "Answer", key: "a", run: () => start("resume") },
    { title: "Retry all that match", run: () => start("retry", { filters: wanted }) },
    { title: "Cancel all that match", run: () => start("cancel", { filters: wanted }) },
    { title: "Choose columns", run: () => setChoosing(true) },
    { title: sort === "ended" ? "Show what was created last first" : "Show what ended last first", run: () => change({ sort: sort === "ended" ? null : "ended" }, true) },
  ];
  useCommands(commands);

  const failures = showsFailures(wanted);
  const groups = useErrorGroups(wanted, failures);
  const flags = asFlags(wanted);
  const query = new URLSearchParams({ ...wanted, ...(sort === "ended" && { sort }) }).toString();
  return (
    <Page
      title="Executions"
      bare
      actions={
        <>
          <Link href="/bulk" class="btn sm ghost">
            Bulk jobs
          </Link>
          <button type="button" class="btn sm ghost" onClick={() => setChoosing(true)}>
            <Columns3 size={14} aria-hidden="true" />
            Columns
          </button>
          <SaveView filters={wanted} />
          <button type="button" class="btn sm ghost" onClick={() => setCopying(true)}>
            Copy as
          </button>
          <Link href="/workflows" class="btn sm pri">
            <Play size={13} aria-hidden="true" /> Start a run
          </Link>
        </>
      }
    >
      <div class="listpage">
        <Views filters={wanted} onChange={setFilters} />
        <FilterBar filters={wanted} onChange={setFilters} />
        {groups.length > 0 && (
          <div class="row errors" role="group" aria-label="Errors">
            <span class="dim3">Errors</span>
            {groups.map((group) => (
              <button type="button" class="btn" key={`${group.class} ${group.message} ${group.workflow_id}`} onClick={() => setFilters({ ...wanted, ...(group.filter as Filters) })}>
                <b class="num">{count(group.count)}</b>
                <code class="trunc">
                  <Shown text={errorWords([group.class, group.message].filter(Boolean).join(": "), false)} />
                </code>
                <span class="dim3">
                  <Shown text={group.place ?? group.workflow_id ?? ""} />
                </span>
              </button>
            ))}
          </div>
        )}
        <HistogramBar filters={wanted} onRange={(after, before) => setFilters({ ...wanted, created_after: after, created_before: before })} />
        <div class="listsplit">
          <div class="scroll rows" ref={scroller} tabIndex={-1}>
            {(fresh.count > 0 || gone.size > 0) && (
              <button type="button" class="fresh" onClick={load}>
                {[
                  ...(fresh.count > 0 ? [`${fresh.at_least ? "at least " : ""}${count(fresh.count)} new`] : []),
                  ...(fresh.failed > 0 ? [`${count(fresh.failed)} failed`] : []),
                  ...(gone.size > 0 ? [`${count(gone.size)} no longer match`] : []),
                ].join(" · ")}{" "}
                <Key keys="." />
              </button>
            )}
            {list.error !== null && <Problem error={list.error} again={() => void list.refetch()} />}
            {!loaded && list.error === null && <Skeleton rows={12} />}
            {loaded && rows.length === 0 && <NoRows filters={wanted} onChange={setFilters} />}
            {rows.length > 0 && (
              <table aria-rowcount={list.hasNextPage ? -1 : rows.length + 1} style={{ minWidth: `${columns.reduce((sum, column) => sum + column.width, 640)}px` }}>
                <thead>
                  <tr>
                    <th class="pick">
                      <input
                        type="checkbox"
                        aria-label="Select all that are loaded"
                        checked={all || selected.size === rows.length}
                        onChange={(event) => {
                          setAll(false);
                          setSelected(event.currentTarget.checked ? new Map(rows.map((row) => [row.id, row])) : new Map());
                        }}
                      />
                    </th>
                    <th class="phase">Phase</th>
                    <th style={{ width: columns.length > 3 ? "220px" : "23%" }}>Workflow and key</th>
                    <th>Details</th>
                    {columns.map((column) => (
                      <th key={column.name} class={column.right === true ? "r" : undefined} style={{ width: `${column.width}px` }} aria-sort={column.name === sort ? "descending" : undefined}>
                        {column.name === "created" || column.name === "ended" ? (
                          <button type="button" class="plain" title={`Show what was ${column.name} last first`} onClick={() => change({ sort: column.name === "ended" ? "ended" : null }, true)}>
                            {column.word}
                            {column.name === sort && <ArrowDown size={11} aria-hidden="true" />}
                          </button>
                        ) : (
                          column.word
                        )}
                      </th>
                    ))}
                  </tr>
                </thead>
                <tbody>
                  <tr aria-hidden="true" style={{ height: `${first * height}px` }} />
                  {rows.slice(first, last).map((row, at) => (
                    <Row
                      key={row.id}
                      row={row}
                      columns={columns}
                      index={first + at}
                      current={row.id === cursor}
                      selected={all || selected.has(row.id)}
                      gone={gone.has(row.id)}
                      onSelect={(range) => toggle(row, range)}
                      onPoint={() => {
                        setCursor(row.id);
                        if (peek !== null) change({ peek: row.id });
                      }}
                    />
                  ))}
                  <tr aria-hidden="true" style={{ height: `${total - last * height}px` }} />
                </tbody>
              </table>
            )}
            {list.isFetchingNextPage && <Skeleton rows={2} />}
            {loaded && !list.hasNextPage && searchedTo !== null && (
              <p class="dim3 end">
                Searched to <Time at={searchedTo} />.
              </p>
            )}
          </div>
          {peek !== null && <Peek id={peek} row={rows.find((row) => row.id === peek)} onClose={() => change({ peek: null })} />}
        </div>
        {(selected.size > 0 || all) && (
          <BulkBar selected={selected.size} all={all} more={list.hasNextPage || selected.size === rows.length} filters={wanted} onAll={() => setAll(true)} onClear={clear} onAct={(act) => start(act)} />
        )}
      </div>
      {choosing && <ColumnsDialog shown={chosenColumns} sort={sort} onChange={(cols) => change({ cols })} onClose={() => setChoosing(false)} />}
      {dialog !== null && <BulkDialog act={dialog.act} chosen={dialog.chosen} onClose={() => setDialog(null)} onDone={clear} />}
      {copying && (
        <Dialog title="Copy this list as" onClose={() => setCopying(false)}>
          <p class="dim">The same list for a terminal or a program.</p>
          <Copies
            call={{ method: "GET", path: `/api/v1/executions/summaries${query === "" ? "" : `?${query}`}` }}
            command={flags === null || sort === "ended" ? undefined : ["perdure ls", ...flags.map((flag) => (/^[\w@%+=:,./-]+$/.test(flag) ? flag : `'${flag.replaceAll("'", `'\\''`)}'`))].join(" ")}
          />
        </Dialog>
      )}
    </Page>
  );
}

interface RowProps {
  row: Summary;
  columns: readonly Column[];
  index: number;
  current: boolean;
  selected: boolean;
  gone: boolean;
  onSelect: (range: boolean) => void;
  onPoint: () => void;
}

function Row({ row, columns, index, current, selected, gone, onSelect, onPoint }: RowProps) {
  const name = visible(`${row.workflow_id} ${row.key ?? row.id}`);
  const classes = [selected && "sel", current && "cur", gone && "gone"].filter(Boolean).join(" ");
  return (
    <tr class={classes} aria-rowindex={index + 2} aria-current={current ? "true" : undefined} onClick={onPoint}>
      <td class="pick">
        <input
          type="checkbox"
          aria-label={`Select ${name}`}
          checked={selected}
          onClick={(event) => {
            event.stopPropagation();
            onSelect(event.shiftKey);
          }}
        />
      </td>
      <td>
        <Phase phase={row.phase} />
      </td>
      <td class="trunc">
        <Link href={`/executions/${row.id}`} class="m">
          <Shown text={row.workflow_id} />
        </Link>{" "}
        <code class="dim2" title={row.id}>
          <Shown text={row.key ?? `…${row.id.slice(-8)}`} />
        </code>
      </td>
      <td class="trunc says" title={row.details == null ? undefined : visible(row.details)}>
        <Details row={row} />
      </td>
      {columns.map((column) => (
        <td key={column.name} class={column.right === true ? "r num" : "trunc dim"}>
          {column.show(row)}
        </td>
      ))}
    </tr>
  );
}

/** The error, else the current step, else the wait, with what else matters in a list. */
export function Details({ row }: { row: Summary }) {
  const error = row.phase === "failed" && row.details != null ? splitError(row.details) : null;
  return (
    <>
      {error === null ? (
        <Shown text={row.details ?? ""} />
      ) : (
        <>
          <b>
            <Shown text={error.type} />
          </b>
          : <Shown text={error.message} />
          {error.step !== null && (
            <i>
              {" "}
              in <Shown text={error.step} />, {counted(error.tries, "try", "tries")}
            </i>
          )}
        </>
      )}
      {row.due_at != null && (
        <i>
          {" "}
          · <Time at={row.due_at} />
        </i>
      )}
      {row.paused && <i> · paused</i>}
      {row.losses > 0 && <i> · lost {counted(row.losses, "worker", "workers")}</i>}
      {row.tries > 1 && <i> · {ordinal(row.tries)} try</i>}
      {row.retried_as != null && <i> · retried</i>}
    </>
  );
}

function Views({ filters, onChange }: { filters: Filters; onChange: (filters: Filters) => void }) {
  const [saved, setSaved] = useState(savedViews);
  useEffect(() => {
    const again = () => setSaved(savedViews());
    addEventListener("perdure:views", again);
    return () => removeEventListener("perdure:views", again);
  }, []);
  const own = saved.map((view) => ({ ...view, own: true }));
  return (
    <nav class="tabs" aria-label="Views">
      {[...builtInViews(now()).map((view) => ({ ...view, own: false })), ...own].map((view) => (
        <Tab key={`${view.own} ${view.name}`} view={view} own={view.own} on={sameFilters(view.filters, filters)} onChange={onChange} />
      ))}
      <Link href="/inbox">Needs an answer</Link>
    </nav>
  );
}

function Tab({ view, own, on, onChange }: { view: View; own: boolean; on: boolean; onChange: (filters: Filters) => void }) {
  const found = useCount(view.filters);
  return (
    <span class={on ? "on" : undefined}>
      <button type="button" class="plain" aria-current={on ? "page" : undefined} onClick={() => onChange(view.filters)}>
        <Shown text={view.name} />
        {found !== undefined && <span class="c"> {count(found.count)}{found.exact ? "" : "+"}</span>}
      </button>
      {own && on && (
        <button type="button" class="plain x" aria-label={`Delete the view ${view.name}`} onClick={() => dropView(view.name)}>
          <X size={12} aria-hidden="true" />
        </button>
      )}
    </span>
  );
}

function SaveView({ filters }: { filters: Filters }) {
  const [open, setOpen] = useState(false);
  const [name, setName] = useState("");
  const save = () => {
    if (name.trim() === "") return;
    saveView({ name: name.trim(), filters });
    setOpen(false);
  };
  return (
    <>
      <button type="button" class="btn sm ghost" disabled={Object.keys(filters).length === 0} onClick={() => setOpen(true)}>
        <Bookmark size={14} aria-hidden="true" />
        Save view
      </button>
      {open && (
        <Dialog
          title="Save view"
          onClose={() => setOpen(false)}
          footer={
            <>
              <span class="grow" />
              <button type="button" class="btn pri" disabled={name.trim() === ""} onClick={save}>
                Save
              </button>
            </>
          }
        >
          <p class="dim">This browser keeps the view. Share the address of the page to show the same list to another person.</p>
          <label class="field">
            <span>Name</span>
            <input class="input" autofocus value={name} onInput={(event) => setName(event.currentTarget.value)} onKeyDown={(event) => event.key === "Enter" && save()} />
          </label>
        </Dialog>
      )}
    </>
  );
}

const ACTS: { act: Act; word: string; Icon?: LucideIcon }[] = [
  { act: "retry", word: "Retry…", Icon: RotateCcw },
  { act: "fork", word: "Fork with edits…", Icon: GitFork },
  { act: "cancel", word: "Cancel…", Icon: CircleStop },
  { act: "resume", word: "Answer…" },
  { act: "delete", word: "Delete…" },
];

interface BarProps {
  selected: number;
  all: boolean;
  more: boolean;
  filters: Filters;
  onAll: () => void;
  onClear: () => void;
  onAct: (act: Act) => void;
}

function BulkBar({ selected, all, more, filters, onAll, onClear, onAct }: BarProps) {
  const may = useMay(all ? "admin" : "write");
  const found = useCount(filters);
  return (
    <div class="bulkbar" role="toolbar" aria-label="Selected executions">
      <b>{all ? (found === undefined ? "All that match" : `All ${count(found.count)}${found.exact ? "" : "+"} that match`) : `${count(selected)} selected`}</b>
      {!all && more && (
        <button type="button" class="btn sm ghost inherit" onClick={onAll}>
          {found === undefined ? "Select all that match" : `Select all ${count(found.count)}${found.exact ? "" : "+"} that match`}
        </button>
      )}
      <span class="sep" />
      {ACTS.map(({ act, word, Icon }) => (
        <button type="button" key={act} class="btn sm ghost inherit" disabled={!may} title={may ? undefined : `Needs the role ${all ? "admin" : "write"}.`} onClick={() => onAct(act)}>
          {may ? Icon !== undefined && <Icon size={13} aria-hidden="true" /> : <Lock size={12} aria-hidden="true" />}
          {word}
        </button>
      ))}
      <button type="button" class="btn sm ghost inherit" onClick={onClear}>
        Clear <Key keys="escape" />
      </button>
    </div>
  );
}

function NoRows({ filters, onChange }: { filters: Filters; onChange: (filters: Filters) => void }) {
  const given = chips(filters, now());
  if (Object.keys(filters).length === 0) {
    return (
      <Empty title="No executions yet" code={"perdure run WORKFLOW --input '{}'"} docs="docs/workflows.md">
        Each start of a workflow or an agent appears here.
      </Empty>
    );
  }
  return (
    <div class="empty">
      <h2>No matching executions</h2>
      {[...given.map((chip) => ({ name: chip.name, says: `${chip.says} ${chip.shows}` })), ...("q" in filters ? [{ name: "q", says: `words ${filters["q"]}` }] : [])].map((one) => (
        <Remove key={one.name} {...one} filters={filters} onChange={onChange} />
      ))}
    </div>
  );
}

function Remove({ name, says, filters, onChange }: { name: string; says: string; filters: Filters; onChange: (filters: Filters) => void }) {
  const rest = without(filters, name);
  const found = useCount(rest);
  return (
    <p>
      <button type="button" class="btn sm" onClick={() => onChange(rest)}>
        Remove <b><Shown text={says} /></b>
        {found !== undefined && ` to show ${found.exact ? "" : "at least "}${counted(found.count, "execution")}`}
      </button>
    </p>
  );
}
