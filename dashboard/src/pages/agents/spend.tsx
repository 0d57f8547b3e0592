import { useGet } from "../../api/query";
import { RANGES, RANGE_WORDS, type Range } from "../../model/time";
import { count, counted, money, spent } from "../../model/words";
import { Amounts } from "../../parts/bars";
import { Segments } from "../../parts/controls";
import { Loaded } from "../../parts/state";
import { Shown } from "../../parts/text";
import { useQueryParams } from "../../url";

/** What the executions of an agent that began in a range spent on models. */
export function Spend({ agent }: { agent: string }) {
  const [params, change] = useQueryParams();
  const range = RANGES.find((one) => one === params.get("range")) ?? "24h";
  const found = useGet("/api/v1/stats/spend", { params: { query: { range, agent_id: agent } } }, { every: 10_000 });
  return (
    <section aria-label="Spend">
      <div class="row">
        <h2 class="grow">Spend</h2>
        <Segments label="Range" of={RANGES.map((one) => [one, one] as const)} value={range} onChange={(to: Range) => change({ range: to === "24h" ? null : to })} />
      </div>
      <Loaded of={found} rows={3}>
        {({ total, executions, buckets, models, exact }) =>
          executions === 0 ? (
            <p class="dim">No execution began in {RANGE_WORDS[range]}.</p>
          ) : (
            <>
              <dl class="figures">
                {[
                  ["Cost", spent(total, exact)],
                  ["Tokens", `${count(total.input_tokens)} → ${count(total.output_tokens)}`],
                  ["Calls", count(total.calls)],
                  ["Executions", count(executions)],
                ].map(([name, value]) => (
                  <div key={name}>
                    <dt>{name}</dt>
                    <dd class="num">{value}</dd>
                  </div>
                ))}
              </dl>
              <Amounts
                label={`Spent over ${RANGE_WORDS[range]}: ${spent(total, exact)}, ${counted(total.input_tokens + total.output_tokens, "token")}`}
                of={buckets.map((one) => ({
                  at: one.at,
                  value: total.usd > 0 ? one.usd : one.tokens,
                  words: `${money(one.usd)}, ${counted(one.tokens, "token")}, ${counted(one.calls, "call")}`,
                }))}
              />
              {models.length > 0 && (
                <table>
                  <thead>
                    <tr>
                      <th>Model</th>
                      <th class="r">Calls</th>
                      <th class="r">Input</th>
                      <th class="r">From cache</th>
                      <th class="r">Output</th>
                      <th class="r">Cost</th>
                    </tr>
                  </thead>
                  <tbody>
                    {models.map((one) => (
                      <tr key={one.model}>
                        <td>
                          <Shown text={one.model ?? "unknown"} />
                        </td>
                        <td class="r num">{count(one.calls)}</td>
                        <td class="r num">{count(one.input_tokens)}</td>
                        <td class="r num dim">{count(one.cached_tokens)}</td>
                        <td class="r num">{count(one.output_tokens)}</td>
                        <td class="r num">{spent(one, exact)}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              )}
            </>
          )
        }
      </Loaded>
    </section>
  );
}
