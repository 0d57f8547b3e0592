import { useMemo, useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { ChevronDown, ChevronRight, Lock, Play, X } from "lucide-preact";
import { currentProject, send, type Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { useCommands } from "../../keys";
import { asCurl } from "../../model/calls";
import { draftOf, faultOf, read, type Draft, type Json, type Schema } from "../../model/schema";
import { NO_OPTIONS, optionProblems, startCall, startCommand, startPython, type StartOptions } from "../../model/start";
import { Labelled, Segments } from "../../parts/controls";
import { SchemaForm } from "../../parts/schemaform";
import { Loaded, Problem } from "../../parts/state";
import { CopyButton, Key, Shown } from "../../parts/text";
import { toast } from "../../parts/toast";
import { useBlocked, useMay } from "../../session";
import { useDefinition } from "./index";

type Typed = Schemas["DeploymentWorkflow"];

interface Props {
  workflow: string;
  deployment?: string | undefined;
  /** The execution whose input fills the form. */
  from: string | null;
  onClose: () => void;
}

/** Start a workflow: its input as a form or as JSON, the options, and the same start as code. */
export function RunForm(props: Props) {
  const known = useDefinition(props.workflow, props.deployment);
  const source = useGet("/api/v1/executions/{execution_id}", { params: { path: { execution_id: props.from ?? "" } } }, { enabled: props.from !== null });
  return (
    <Loaded of={known}>
      {(definition) => {
        if (props.from !== null && source.data?.id !== props.from) return <Loaded of={source}>{() => null}</Loaded>;
        const given = props.from === null ? undefined : ((source.data!.payload ?? null) as Json);
        return <Form key={`${props.workflow} ${props.from}`} {...props} typed={definition ?? {}} given={given} queue={definition?.queue_name ?? props.workflow} />;
      }}
    </Loaded>
  );
}

function nameOf(schema: Schema | null | undefined): string | null {
  const name = /\/([^/]+)$/.exec(schema?.$ref ?? "")?.[1] ?? schema?.title;
  return name ?? (typeof schema?.type === "string" ? schema.type : null);
}

function Form({ workflow, from, onClose, typed, given, queue }: Props & { typed: Partial<Typed>; given: Json | undefined; queue: string }) {
  const schema = typed.takes_input === false ? null : ((typed.input_schema as Schema | null | undefined) ?? null);
  const [mode, setMode] = useState<"form" | "json">(schema === null ? "json" : "form");
  const [draft, setDraft] = useState<Draft>(() => (schema === null ? undefined : draftOf(schema, schema, given)));
  const [text, setText] = useState(() => JSON.stringify(given ?? (typed.takes_input === false ? null : {}), null, 2));
  const [options, setOptions] = useState<StartOptions>(NO_OPTIONS);
  const [open, setOpen] = useState(false);
  const [touched, setTouched] = useState<ReadonlySet<string>>(new Set());
  const [tried, setTried] = useState(false);
  const [sending, setSending] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [, navigate] = useLocation();
  const may = useMay("write");
  const blocked = useBlocked("write");

  const fault = mode === "json" ? faultOf(text) : null;
  const filled = useMemo(() => {
    if (mode === "form" && schema !== null) return read(schema, draft);
    return { value: fault === null ? (JSON.parse(text) as Json) : null, problems: new Map<string, string>() };
  }, [mode, draft, text]);
  const payload = typed.takes_input === false ? null : (filled.value ?? null);
  const bad = optionProblems(options);
  const count = filled.problems.size + Object.keys(bad).length + (fault === null ? 0 : 1);
  const shown = tried ? filled.problems : new Map([...filled.problems].filter(([path]) => touched.has(path)));
  const call = startCall(workflow, payload, options);
  const body = JSON.stringify(call.body);
  const key = useMemo(() => crypto.randomUUID(), [body]); // another body is another start; the same body after a lost answer is the same

  const start = async () => {
    setTried(true);
    if (blocked !== undefined || sending) return;
    if (count > 0) {
      const first = [...filled.problems.keys()][0];
      if (Object.keys(bad).length > 0) setOpen(true);
      if (first !== undefined) document.querySelector<HTMLElement>(`[data-path="${CSS.escape(first)}"] :is(input, select, textarea, button)`)?.focus();
      return;
    }
    setSending(true);
    setError(null);
    try {
      const answer = (await send(call.method, call.path, call.body, key)) as { execution_id: string };
      navigate(`/executions/${answer.execution_id}`);
      toast(`Started ${workflow}.`);
    } catch (problem) {
      setError(problem);
      setSending(false);
    }
  };
  useCommands([
    { title: `Start ${workflow}`, key: "mod+enter", everywhere: true, run: () => void start() },
    { title: "Close the form", key: "escape", everywhere: true, quiet: true, run: onClose },
  ]);

  const turn = (next: "form" | "json") => {
    if (next === mode || schema === null) return;
    if (next === "json") setText(JSON.stringify(filled.value ?? null, null, 2));
    else if (fault === null) setDraft(draftOf(schema, schema, JSON.parse(text) as Json));
    else return;
    setMode(next);
  };
  const takes = nameOf(schema);
  const gives = nameOf(typed.output_schema as Schema | null | undefined);
  const option = (name: keyof StartOptions, label: string, help?: string) => (
    <Labelled label={label} help={help} wrong={bad[name]}>
      <input class={bad[name] === undefined ? "input" : "input wrong"} value={options[name]} onInput={(event) => setOptions({ ...options, [name]: event.currentTarget.value })} />
    </Labelled>
  );

  return (
    <form
      class="run"
      aria-label={`Start ${workflow}`}
      onSubmit={(event) => {
        event.preventDefault();
        void start();
      }}
    >
      <header class="col gap4">
        <div class="row">
          <h2 class="grow trunc">
            Start <Shown text={workflow} />
          </h2>
          {schema !== null && (
            <Segments
              label="Input as"
              of={
                [
                  ["form", "Form"],
                  ["json", "JSON"],
                ] as const
              }
              value={mode}
              onChange={turn}
            />
          )}
          <button type="button" class="btn ghost icon sm" aria-label="Close the form" onClick={onClose}>
            <X size={16} aria-hidden="true" />
          </button>
        </div>
        {typed.takes_input === false ? (
          <p class="dim">It takes no input.</p>
        ) : (
          (takes !== null || gives !== null) && (
            <p class="dim">
              {takes !== null && (
                <>
                  Takes <Shown text={takes} mono />
                </>
              )}
              {takes !== null && gives !== null && ", "}
              {gives !== null && (
                <>
                  returns <Shown text={gives} mono />
                </>
              )}
            </p>
          )
        )}
        {from !== null && (
          <p class="dim">
            The input is that of execution <code>{from.slice(-8)}</code>.
          </p>
        )}
      </header>
      {typed.takes_input !== false && mode === "form" && schema !== null && (
        <SchemaForm root={schema} draft={draft} onChange={setDraft} problems={shown} onTouch={(path) => setTouched(new Set([...touched, path]))} />
      )}
      {typed.takes_input !== false && mode === "json" && (
        <Labelled label="Input as JSON" wrong={fault ?? undefined} help={schema === null ? "The worker has not told the input's type, so it checks the input when it runs." : undefined}>
          <textarea class={fault === null ? "input" : "input wrong"} rows={10} spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </Labelled>
      )}
      <div class="options">
        <button type="button" class="row fold" aria-expanded={open} onClick={() => setOpen(!open)}>
          {open ? <ChevronDown size={14} aria-hidden="true" /> : <ChevronRight size={14} aria-hidden="true" />}
          <b class="m">Options</b>
          <span class="dim trunc">key, queue, priority, delay, session, tags, budget</span>
        </button>
        {open && (
          <div class="two">
            {option("key", "Key", "The same key and input give the same execution.")}
            {option("queue", "Queue", `Default: ${queue}`)}
            {option("concurrencyKey", "Concurrency key")}
            {option("priority", "Priority", "Higher goes first.")}
            {option("delay", "Delay in seconds")}
            {option("timeout", "Running time limit in seconds")}
            {option("session", "Session")}
            {option("user", "User")}
            {option("tags", "Tags", "name=value, with commas between")}
            {option("budget", "Budget in dollars")}
            {option("deployment", "Deployment", "Default: the current one")}
          </div>
        )}
      </div>
      <AsCode curl={asCurl(call, location.origin, currentProject())} command={startCommand(workflow, payload, options)} python={startPython(workflow, payload, options)} />
      {error !== null && <Problem error={error} />}
      <footer class="row">
        <button type="submit" class="btn pri" disabled={blocked !== undefined || sending} title={blocked}>
          {may ? <Play size={13} aria-hidden="true" /> : <Lock size={13} aria-hidden="true" />}
          Start
        </button>
        {tried && count > 0 && <span class="bad">{count === 1 ? "1 field needs a change" : `${count} fields need a change`}</span>}
        {blocked !== undefined && <span class="dim">{blocked}</span>}
        <span class="grow" />
        <Key keys="mod+enter" />
      </footer>
    </form>
  );
}

function AsCode(of: { command: string | null; curl: string; python: string }) {
  const [chosen, setChosen] = useState<"command" | "curl" | "python">("command");
  const text = of[chosen] ?? of.curl;
  return (
    <section class="col gap4" aria-label="The same start as code">
      <div class="row">
        <h3 class="grow">The same from a terminal or a program</h3>
        <Segments
          label="As"
          of={
            [
              ["command", "perdure"],
              ["curl", "curl"],
              ["python", "Python"],
            ] as const
          }
          value={chosen}
          onChange={setChosen}
        />
        <CopyButton text={text} what="start" />
      </div>
      <pre class="box json" tabIndex={0}>
        {text}
      </pre>
    </section>
  );
}
