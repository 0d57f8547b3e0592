import { isDict } from "../model/questions";
import type { Json } from "../model/schema";
import { Shown } from "./text";
import "./value.css";

/** A JSON value as text: small ones in a line, others indented. Long ones scroll. */
export function Value({ value }: { value: Json }) {
  if (typeof value === "string") return <span class="valtext"><Shown text={value} /></span>;
  const line = JSON.stringify(value);
  const text = line.length <= 60 ? line : JSON.stringify(value, null, 2);
  return (
    <pre class="val">
      <Shown text={text} />
    </pre>
  );
}

/** Names and values, as in the context of a question. */
export function Pairs({ of }: { of: [string, Json][] }) {
  return (
    <dl class="pairs">
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>
            <Shown text={name} />
          </dt>
          <dd>{isDict(value) && Object.keys(value).length === 0 ? "{}" : <Value value={value} />}</dd>
        </div>
      ))}
    </dl>
  );
}
