import { blocks, type Inline } from "../model/markdown";
import { Shown } from "./text";

/** What a model wrote, as elements. Links and HTML stay text. */
export function Markdown({ text }: { text: string }) {
  return (
    <>
      {blocks(text).map((block, at) => {
        switch (block.kind) {
          case "p":
            return <p key={at}>{block.of.map(piece)}</p>;
          case "h":
            return <h4 key={at}>{block.of.map(piece)}</h4>;
          case "code":
            return (
              <pre key={at} class="box val">
                <Shown text={block.text} />
              </pre>
            );
          default: {
            const List = block.kind;
            return (
              <List key={at}>
                {block.items.map((item, n) => (
                  <li key={n}>{item.map(piece)}</li>
                ))}
              </List>
            );
          }
        }
      })}
    </>
  );
}

function piece(one: Inline, at: number) {
  if (typeof one === "string") return <Shown key={at} text={one} />;
  const Kind = one.kind;
  return (
    <Kind key={at}>
      <Shown text={one.text} />
    </Kind>
  );
}
