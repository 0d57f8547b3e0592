import { Plus, X } from "lucide-preact";
import { below, draftOf, fieldOf, type Draft, type Field, type Schema } from "../model/schema";
import { Labelled, Switch } from "./controls";
import { Shown } from "./text";

interface Props {
  root: Schema;
  draft: Draft;
  onChange: (draft: Draft) => void;
  /** By path, as `read` gives them. Only those of fields that were touched, or of all after a try to send. */
  problems: Map<string, string>;
  onTouch?: (path: string) => void;
  /** What the form held first. A field that differs shows it. */
  was?: Draft;
  /** What the whole is, where it is no object. */
  word?: string;
}

/** The fields for a value of a JSON Schema. */
export function SchemaForm({ word = "Input", ...props }: Props) {
  const field = fieldOf(props.root, props.root);
  if (field.kind === "object") return <Members {...props} field={field} path="" depth={0} />;
  return <Part {...props} schema={props.root} name={word} path="" required depth={0} />;
}

function Members({ field, path, depth, ...props }: Props & { field: Field & { kind: "object" }; path: string; depth: number }) {
  const known = (props.draft ?? {}) as Record<string, Draft>;
  const first = (props.was ?? {}) as Record<string, Draft>;
  return (
    <>
      {field.of.map(({ name, schema, required }) => (
        <Part
          {...props}
          key={name}
          schema={schema}
          name={name}
          path={below(path, name)}
          required={required}
          depth={depth + 1}
          draft={known[name]}
          was={first[name]}
          onChange={(draft) => props.onChange({ ...known, [name]: draft })}
        />
      ))}
      {field.of.length === 0 && <p class="dim">This object has no fields.</p>}
    </>
  );
}

type PartProps = Props & { schema: Schema; name: string; path: string; required: boolean; depth: number };

function Part({ schema, name, path, required, depth, ...props }: PartProps) {
  const field = fieldOf(schema, props.root, depth);
  const optional = !required || field.nullable;
  const wrong = props.problems.get(path);
  const label = (
    <>
      <Shown text={schema.label ?? name} /> {optional && <span class="opt">optional</span>}
    </>
  );
  const help = field.schema.description;
  if (field.kind === "object" || field.kind === "list") {
    const given = props.draft !== undefined && props.draft !== null;
    return (
      <fieldset class="group" data-path={path}>
        <legend>{label}</legend>
        {help !== undefined && (
          <small class="dim3">
            <Shown text={help} />
          </small>
        )}
        {given && field.kind === "object" && <Members {...props} field={field} path={path} depth={depth} />}
        {given && field.kind === "list" && <Items {...props} field={field} name={name} path={path} depth={depth} />}
        {optional && (field.kind === "object" || !given) && (
          <button type="button" class="btn sm ghost" onClick={() => props.onChange(given ? undefined : (draftOf(field.schema, props.root, undefined, depth) ?? (field.kind === "list" ? [] : {})))}>
            {given ? `Leave ${name} out` : `Add ${name}`}
          </button>
        )}
        {wrong !== undefined && <small class="bad">{wrong}</small>}
      </fieldset>
    );
  }
  const changed = props.was !== undefined && props.was !== props.draft;
  return (
    <Labelled label={label} path={path} wrong={wrong} help={help === undefined && !changed ? undefined : changed ? <Changed was={props.was} help={help} /> : <Shown text={help!} />}>
      <Control {...props} field={field} optional={optional} name={name} wrong={wrong !== undefined} onTouch={() => props.onTouch?.(path)} />
    </Labelled>
  );
}

function Changed({ was, help }: { was: Draft; help: string | undefined }) {
  return (
    <>
      You changed this.{" "}
      <s>
        <Shown text={String(was)} />
      </s>
      {help !== undefined && (
        <>
          {" "}
          <Shown text={help} />
        </>
      )}
    </>
  );
}

function Items({ field, name, path, depth, ...props }: Props & { field: Field & { kind: "list" }; name: string; path: string; depth: number }) {
  const items = props.draft as Draft[];
  return (
    <div class="items">
      {items.map((item, at) => (
        <div class="row" key={at}>
          <div class="grow">
            <Part
              {...props}
              schema={field.items}
              name={`${name} ${at + 1}`}
              path={below(path, at)}
              required
              depth={depth + 1}
              draft={item}
              was={undefined}
              onChange={(draft) => props.onChange(items.with(at, draft))}
            />
          </div>
          <button type="button" class="btn sm ghost icon" aria-label={`Remove ${name} ${at + 1}`} onClick={() => props.onChange(items.toSpliced(at, 1))}>
            <X size={14} aria-hidden="true" />
          </button>
        </div>
      ))}
      <button type="button" class="btn sm ghost accent" onClick={() => props.onChange([...items, draftOf(field.items, props.root, undefined, depth + 1)])}>
        <Plus size={14} aria-hidden="true" /> Add to {name}
      </button>
    </div>
  );
}

/** `id` and what describes it come from `Labelled`. */
type ControlProps = Props & { field: Field; optional: boolean; name: string; wrong: boolean; id?: string; "aria-describedby"?: string };

function Control({ field, draft, optional, name, wrong, onChange, onTouch, id, ...given }: ControlProps) {
  const text = typeof draft === "string" ? draft : "";
  const shared = { id, class: wrong ? "input wrong" : "input", "aria-invalid": wrong, "aria-describedby": given["aria-describedby"], onBlur: () => onTouch?.("") };
  switch (field.kind) {
    case "switch":
      return (
        <span class="row">
          <Switch id={id} on={draft === true} word={name} onChange={onChange} />
          <span class="dim">{draft === undefined ? "not set" : String(draft)}</span>
        </span>
      );
    case "choice":
      return (
        <select {...shared} value={text} onChange={(event) => onChange(event.currentTarget.value === "" ? undefined : event.currentTarget.value)}>
          {(optional || text === "") && <option value="">{optional ? "not set" : "Choose one"}</option>}
          {field.values.map((value, at) => (
            <option key={JSON.stringify(value)} value={JSON.stringify(value)}>
              {field.words?.[at] ?? (typeof value === "string" ? value : JSON.stringify(value))}
            </option>
          ))}
        </select>
      );
    case "json":
      return <textarea {...shared} spellcheck={false} value={text} placeholder="JSON" onInput={(event) => onChange(event.currentTarget.value)} />;
    case "number":
      return <input {...shared} inputMode={field.whole ? "numeric" : "decimal"} value={text} onInput={(event) => onChange(event.currentTarget.value)} />;
    case "text":
      if (field.input === "text" && ((field.schema.maxLength ?? 0) > 200 || text.includes("\n"))) {
        return <textarea {...shared} value={text} onInput={(event) => onChange(event.currentTarget.value)} />;
      }
      return (
        <input
          {...shared}
          type={field.input}
          step={field.input === "text" || field.input === "date" ? undefined : 1}
          value={text}
          onInput={(event) => onChange(event.currentTarget.value === "" && field.input !== "text" ? undefined : event.currentTarget.value)}
        />
      );
  }
}
