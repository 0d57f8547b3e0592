import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { useInfiniteQuery } from "@tanstack/preact-query";
import { Hand, OctagonPause, UserRound } from "lucide-preact";
import { currentProject, get, type Schemas } from "../../api/client";
import { useCommands } from "../../keys";
import { nameOf, questionForm, verdict } from "../../model/questions";
import { shortId } from "../../model/words";
import { Empty, Loaded } from "../../parts/state";
import { Key, Shown, Time } from "../../parts/text";
import { useQueryParams } from "../../url";

type Item = Schemas["OpenApproval"];
type Listed = Schemas["ApprovalListResponse"];

const ROWS = 100;
const ICONS = { agent: Hand, workflow: UserRound, limit: OctagonPause };

/** The questions that were answered, or that expired, the newest first, and beside them the chosen one. */
export function EndedList({ state, children }: { state: "answered" | "expired"; children: (name: string, item: Item | undefined) => ComponentChildren }) {
  const [params, change] = useQueryParams();
  const list = useInfiniteQuery({
    queryKey: ["/api/v1/approvals", currentProject(), state, "pages"],
    queryFn: ({ pageParam, signal }) => get("/api/v1/approvals", { params: { query: { state, limit: ROWS, cursor: pageParam ?? undefined } as never } }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page: Listed) => page.next_cursor ?? null,
  });
  const all = (list.data?.pages ?? []).flatMap((page) => page.approvals);
  const wanted = params.get("item");
  const narrow = innerWidth <= 1_000;
  const open = wanted ?? (narrow || all.length === 0 ? null : nameOf(all[0]!));
  const at = all.findIndex((item) => nameOf(item) === open);
  const select = (to: number) => all[to] !== undefined && change({ item: nameOf(all[to]!) });
  useEffect(() => {
    if (wanted === null && open !== null) change({ item: open }); // new answers come above it
  }, [wanted, open]);
  useCommands([
    { title: "Next question", key: "j", quiet: true, run: () => select(Math.min(at + 1, all.length - 1)) },
    { title: "Previous question", key: "k", quiet: true, run: () => select(Math.max(at - 1, 0)) },
  ]);
  return (
    <Loaded of={list}>
      {() =>
        all.length === 0 && wanted === null ? (
          <Empty title={state === "answered" ? "No question was answered" : "No question expired"} docs="docs/approvals.md">
            {state === "answered" ? "Answers appear here, with their author and time." : "A question with a timeout appears here if its time passes without an answer."}
          </Empty>
        ) : (
          <div class={open === null ? "inbox" : "inbox open"}>
            <section class="list" aria-label={state === "answered" ? "Answered questions" : "Expired questions"}>
              <ul>
                {all.map((item) => (
                  <Row key={item.question} item={item} on={nameOf(item) === open} onOpen={() => change({ item: nameOf(item) }, narrow)} />
                ))}
              </ul>
              {list.hasNextPage && (
                <p class="pad">
                  <button type="button" class="btn sm" disabled={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
                    Show older
                  </button>
                </p>
              )}
              <p class="hints row gap12">
                <span>
                  <Key keys="j k" /> next, previous
                </span>
              </p>
            </section>
            <section class="detail" aria-label="Question">
              {open !== null && children(open, all[at])}
            </section>
          </div>
        )
      }
    </Loaded>
  );
}

function Row({ item, on, onOpen }: { item: Item; on: boolean; onOpen: () => void }) {
  const form = questionForm(item.step_key, item.data);
  const Icon = ICONS[form.kind];
  return (
    <li>
      <button type="button" class={on ? "item on" : "item"} aria-current={on ? "true" : undefined} onClick={onOpen}>
        <Icon size={16} aria-hidden="true" />
        <span class="title trunc">
          <Shown text={form.title} />
        </span>
        <small class="num nowrap">
          <Time at={item.answered_at ?? item.expires_at ?? item.asked_at} />
        </small>
        <small class="sub trunc">
          {item.state === "answered" ? (
            <Shown text={verdict(item.answer, item.answered_by ?? "another client")} />
          ) : (
            <>
              <Shown text={item.workflow_id} /> {item.key == null ? <code>{shortId(item.execution_id)}</code> : <Shown text={item.key} mono />} asked
            </>
          )}
        </small>
      </button>
    </li>
  );
}
