import { useRef, useState } from "preact/hooks";
import { useId } from "preact/hooks";
import { ListFilter, X } from "lucide-preact";
import { now } from "../../api/client";
import { useCommands } from "../../keys";
import {
  begins,
  chips,
  fieldOf,
  negated,
  readValue,
  suggestFields,
  without,
  withValue,
  type Filters,
  type Suggestion,
} from "../../model/filters";
import { visible } from "../../model/words";
import { PHASES } from "../../parts/phase";
import { Key, Shown } from "../../parts/text";
import { useFacet } from "./numbers";

const MOMENTS = ["1 h", "6 h", "today", "noon", "24 h", "7 d"];

/** Filters as chips. Typing offers fields, then their values; other words search keys and ids. */
export function FilterBar({ filters, onChange }: { filters: Filters; onChange: (filters: Filters) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState("");
  const [field, setField] = useState<string | null>(null);
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const [wrong, setWrong] = useState<string | null>(null);
  const id = useId();
  const known = field === null ? undefined : fieldOf(field);
  const values = useFacet(known?.facet ?? null, filters, open);
  const shown = chips(filters, now());

  const offered: Suggestion[] =
    known === undefined
      ? [
          ...suggestFields(text),
          ...(text.trim().length >= 2 && !text.includes(":") ? [{ name: "q", value: text.trim(), text: `Search “${text.trim()}”`, hint: "key or id" }] : []),
        ]
      : (known.name === "phase"
          ? PHASES.map((phase) => ({ value: phase, count: values.find((one) => one.value === phase)?.count }))
          : known.name.startsWith("created_")
            ? MOMENTS.map((value) => ({ value, count: undefined }))
            : known.name === "retried"
              ? ["true", "false"].map((value) => ({ value, count: undefined }))
              : values
        )
          .filter(({ value }) => value.toLowerCase().includes(text.trim().toLowerCase()))
          .map(({ value, count }) => ({ name: field!, value, text: value, hint: count === undefined ? undefined : String(count) }));

  const reset = () => {
    setText("");
    setField(null);
    setAt(-1);
    setWrong(null);
  };
  const add = (name: string, given: string) => {
    if (name === "q") {
      onChange({ ...filters, q: given });
      reset();
      return;
    }
    const read = readValue(name, given, now());
    if ("wrong" in read) setWrong(read.wrong);
    else {
      onChange(withValue(filters, name, read.value));
      reset();
    }
  };
  const choose = (one: Suggestion) => {
    if (one.value !== undefined) add(one.name, one.value);
    else {
      setField(one.name);
      setText("");
      setAt(-1);
      input.current?.focus();
    }
  };
  const enter = () => {
    const chosen = offered[at];
    if (chosen !== undefined) choose(chosen);
    else if (field !== null && text.trim() !== "") add(field, text);
    else if (text.trim() === "") onChange(without(filters, "q"));
    else {
      const typed = suggestFields(text)[0];
      if (typed?.value !== undefined) choose(typed);
      else add("q", text.trim());
    }
  };
  useCommands([{ title: "Filter the list", key: "/", run: () => input.current?.focus() }]);

  return (
    <div class="filterbar">
      <div class="input grow">
        <ListFilter size={14} aria-hidden="true" class="dim3" />
        {shown.map((chip) => (
          <span class="chip set" key={chip.name}>
            <Begins name={chip.name} filters={filters} onChange={onChange} />{" "}
            <button
              type="button"
              class="plain"
              title={visible(`Change: ${chip.says} ${chip.shows}`)}
              onClick={() => {
                setField(chip.name);
                setText(chip.name.startsWith("created_") || chip.value.includes(",") ? "" : chip.value);
                input.current?.focus();
              }}
            >
              <b class="trunc">
                <Shown text={chip.shows} />
              </b>
            </button>
            <button type="button" class="x plain" aria-label={visible(`Remove the filter: ${chip.says} ${chip.shows}`)} onClick={() => onChange(without(filters, chip.name))}>
              <X size={12} aria-hidden="true" />
            </button>
          </span>
        ))}
        {filters["q"] !== undefined && (
          <span class="chip set">
            <em>words</em>{" "}
            <b class="trunc">
              <Shown text={filters["q"]} />
            </b>
            <button type="button" class="x plain" aria-label="Remove the words" onClick={() => onChange(without(filters, "q"))}>
              <X size={12} aria-hidden="true" />
            </button>
          </span>
        )}
        {known !== undefined && (
          <span class="chip add">
            {begins(field!)}
          </span>
        )}
        <input
          ref={input}
          class="bare grow"
          role="combobox"
          aria-label={known === undefined ? "Filter" : begins(field!)}
          aria-expanded={open}
          aria-controls={`${id}-offered`}
          aria-activedescendant={at >= 0 ? `${id}-${at}` : undefined}
          aria-invalid={wrong !== null}
          placeholder={known?.hint ?? (shown.length > 0 ? "" : "workflow, key, tag, user, error…")}
          value={text}
          autocomplete="off"
          spellcheck={false}
          onFocus={() => setOpen(true)}
          onBlur={() => setOpen(false)}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setAt(-1);
            setWrong(null);
            setOpen(true);
          }}
          onKeyDown={(event) => {
            if (event.key === "ArrowDown") setAt(Math.min(at + 1, offered.length - 1));
            else if (event.key === "ArrowUp") setAt(Math.max(at - 1, -1));
            else if (event.key === "Enter") enter();
            else if (event.key === "Escape") {
              if (field === null && text === "") input.current?.blur();
              reset();
            } else if (event.key === "Backspace" && text === "") {
              if (field !== null) setField(null);
              else {
                const last = filters["q"] !== undefined ? "q" : shown.at(-1)?.name;
                if (last !== undefined) onChange(without(filters, last));
              }
            } else return;
            event.preventDefault();
            event.stopPropagation();
          }}
        />
        {Object.keys(filters).length > 0 && (
          <button type="button" class="plain dim3" onClick={() => onChange({})}>
            Clear
          </button>
        )}
        <Key keys="/" />
      </div>
      {wrong !== null && (
        <p class="bad" role="alert">
          {wrong}
        </p>
      )}
      {open && offered.length > 0 && (
        <ul class="pop found offered" id={`${id}-offered`} role="listbox" aria-label={known === undefined ? "Fields" : "Values"}>
          {offered.slice(0, 20).map((one, index) => (
            <li
              key={`${one.name} ${one.value ?? ""}`}
              id={`${id}-${index}`}
              role="option"
              aria-selected={index === at}
              class={index === at ? "row on" : "row"}
              onMouseDown={(event) => {
                event.preventDefault(); // keeps the focus in the field
                choose(one);
              }}
              onMouseMove={() => setAt(index)}
            >
              <span class="grow trunc">
                <Shown text={one.text} />
              </span>
              {one.hint !== undefined && <span class="dim3">{one.hint}</span>}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

/** "phase is": a click makes it "phase is not", if the field can leave values out. */
function Begins({ name, filters, onChange }: { name: string; filters: Filters; onChange: (filters: Filters) => void }) {
  const other = negated(filters, name);
  if (other === null) return <em>{begins(name)}</em>;
  const word = fieldOf(name)!.word;
  const change = name.startsWith("not_") ? "Show only these" : "Leave these out";
  return (
    <button type="button" class="plain" title={change} aria-label={`${begins(name)}. ${change}`} onClick={() => onChange(other)}>
      <em>
        {word} <u>{begins(name).slice(word.length + 1)}</u>
      </em>
    </button>
  );
}
