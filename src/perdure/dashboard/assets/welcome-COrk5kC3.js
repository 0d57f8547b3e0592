import{B as e,F as t,I as n,J as r,N as i,Nt as a,T as o,V as s,bt as c,ct as l,q as u,rt as d,ut as f,wt as p}from"./useQuery-BZpxJBxC.js";import{t as m}from"./check-BVzTBPRq.js";import{t as h}from"./play-CQh09iSb.js";import{t as g}from"./skull-DcECK4pm.js";import{c as _,h as v,i as y,l as b,m as x,s as S,t as C}from"./index-8I0l-U0Y.js";import{r as w}from"./calls-DS1GXYli.js";import{n as T,t as E}from"./spans-ETkMFDhb.js";import{i as D,n as O}from"./controls-tNACF4LW.js";var k={name:`flame`,size:24,node:[[`path`,{d:`M12 3q1 4 4 6.5t3 5.5a1 1 0 0 1-14 0 5 5 0 0 1 1-3 1 1 0 0 0 5 0c0-2-1.5-3-1.5-5q0-2 2.5-4`,key:`1slcih`}]]};k.node;var A=c(k),j={workflow:{word:`Workflow`,run:`perdure dev app.py`,start:[`order`,7],text:`from perdure import Context, step, workflow


@step(retry=3)
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"


@workflow
async def order(ctx: Context, order_id: int) -> str:
    receipt = await charge(order_id)  # recorded: never runs again
    await ctx.sleep(20)  # durable: kill the worker now
    return f"order {order_id} is paid, {receipt}"
`},agent:{word:`Agent`,run:`perdure dev app.py`,start:[`support`,`Where is my order? May I have my money back?`],text:`# pip install "perdure[agents]"
# The model "test" calls each tool once and needs no key. A real one: "openai:gpt-5.2"
from pydantic_ai import Agent

from perdure.agents import durable

agent = Agent("test", name="support", defer_model_check=True)


@agent.tool_plain
async def find_order(number: int) -> str:
    """Where an order is."""
    return f"order {number} is on its way"


@agent.tool_plain(requires_approval=True)
async def refund(number: int, cents: int) -> str:
    """Pay money back, after a person approves it."""
    return f"{cents} cents for order {number}"


support = durable(agent)
`},fastapi:{word:`FastAPI`,run:`uvicorn app:app --port 8000`,start:[`order`,7],text:`# pip install perdure fastapi uvicorn
# No server to run: the pages are at http://127.0.0.1:8080
from contextlib import asynccontextmanager

from fastapi import FastAPI

from perdure import Context, step, workflow
from perdure.embedded import embedded


@step(retry=3)
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"


@workflow
async def order(ctx: Context, order_id: int) -> str:
    receipt = await charge(order_id)
    await ctx.sleep(20)
    return receipt


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with embedded("orders.db", serve=8080) as app.state.perdure:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order_id}", status_code=202)
async def place(order_id: int) -> dict[str, str]:
    handle = await app.state.perdure.start(order, order_id, key=f"order-{order_id}")
    return {"execution": handle.id}
`}};function M(){let e=_(),r=e.features?.includes(`dev`)===!0,[c,l]=p(`workflow`),u=x(`/api/v1/workers`,{params:{query:{limit:20}}},{every:1500}),m=x(`/api/v1/workflows`,{params:{query:{limit:20}}},{every:3e3}),v=x(`/api/v1/executions/summaries`,{params:{query:{limit:1}}},{every:1e3}),b=x(`/api/v1/dev`,{},{every:1e3,enabled:r}),T=v.data?.executions[0],E=x(`/api/v1/executions/{execution_id}/timeline`,{params:{path:{execution_id:T?.id??``}}},{every:1e3,enabled:T!==void 0}),D=(u.data?.workers??[]).some(e=>e.state===`online`),k=[...new Set((m.data??[]).map(e=>e.workflow_id))],{word:A,run:M,start:L,text:z}=j[c],V=(E.data?.proof?.lost??0)>0||b.data?.last_kill!=null,H=[!0,D,T!==void 0,V,!1],U=H.indexOf(!1),W=e=>({n:e+1,done:H[e],on:e===U}),G=k.includes(L[0])?L[0]:k[0];return s(C,{title:`Welcome`,actions:s(o,{href:G===void 0?`/workflows?run=1`:`/workflows/${encodeURIComponent(G)}?run=1`,class:`btn`,children:[s(h,{size:13,"aria-hidden":`true`}),` Start an execution `,s(t,{keys:`n`})]}),children:s(`div`,{class:`welcome`,children:[s(`div`,{children:[s(`h2`,{class:`hero`,children:`Code that goes on after a crash`}),s(`p`,{class:`dim lead1`,children:`Five steps, five minutes. Each one checks itself.`}),s(`ol`,{class:`steps`,children:[s(P,{...W(0),title:`The server runs`,children:[`Perdure `,e.version,` at `,location.host,`, data in `,e.store===`sqlite`?`SQLite`:`PostgreSQL`,`.`]}),s(P,{...W(1),title:`A worker runs your code`,children:D&&k.length>0?s(a,{children:[`It serves`,` `,k.slice(0,4).map((e,t)=>s(`span`,{children:[t>0&&`, `,s(`b`,{class:`m`,children:s(n,{text:e})})]},e)),k.length>4&&` and ${k.length-4} more`,r&&`, and reloads when you save`,`.`]}):s(a,{children:[`Save the program as `,s(`code`,{children:`app.py`}),` and run `,s(F,{text:r||c===`fastapi`?M:`perdure work app.py`})]})}),s(P,{...W(2),title:`You start an execution`,children:[s(F,{text:c===`fastapi`?`curl -X POST http://127.0.0.1:8000/orders/7`:`perdure run ${G??L[0]}${G===void 0||G===L[0]?` --input ${w(JSON.stringify(L[1]))}`:``}`}),`, or the key `,s(t,{keys:`n`})]}),s(P,{...W(3),title:V?`You killed the worker`:`Kill the worker`,children:[V?s(I,{status:b.data,timeline:E.data}):s(a,{children:[`End the process in the middle of an execution. Another worker goes on at the next line. A recorded step does not run again.`,!r&&s(a,{children:[` `,s(F,{text:`pkill -KILL -f "perdure work"`})]})]}),r&&s(`div`,{class:`row kill`,children:[s(`button`,{type:`button`,class:`btn dangerfill`,onClick:()=>void S(),children:[s(g,{size:14,"aria-hidden":`true`}),` Kill the worker `,s(t,{keys:`shift+k`})]}),s(`span`,{class:`dim3`,children:`SIGKILL: no clean-up, as in a power cut`})]})]}),s(P,{...W(4),title:`Go on`,children:s(`span`,{class:`row wrap gap6`,children:N.map(([e,t])=>s(`span`,{class:`chip`,title:t,children:[e,s(`code`,{class:`dim3`,children:t})]},e))})})]})]}),s(`div`,{class:`col gap16`,children:[s(`div`,{class:`card`,children:[s(`header`,{children:[s(O,{label:`Program`,of:Object.keys(j).map(e=>[e,j[e].word]),value:c,onChange:l}),s(`span`,{class:`grow`}),s(`code`,{class:`dim3`,children:`app.py`}),s(i,{text:z,what:`program`})]}),s(`pre`,{class:`json program`,tabIndex:0,children:z})]}),T!==void 0&&s(`div`,{class:`card`,children:[s(`header`,{children:[s(y,{phase:T.phase,big:!0}),s(o,{href:`/executions/${T.id}`,class:`m`,children:s(n,{text:T.workflow_id})}),s(`code`,{class:`dim`,children:T.key??`…${T.id.slice(-8)}`}),s(`span`,{class:`grow`}),T.started_at!==null&&s(`span`,{class:`dim3 num`,children:d((T.completed_at===null?f():Date.parse(T.completed_at))-Date.parse(T.started_at))})]}),s(R,{timeline:E.data,ended:T.completed_at})]}),r&&b.data!==void 0&&s(B,{status:b.data})]})]})})}var N=[[`Ask a person`,`docs/approvals.md`],[`A durable agent`,`docs/agents.md`],[`Wait for an event`,`docs/workflows.md`],[`A schedule`,`docs/schedules.md`],[`Many children`,`docs/workflows.md`]];function P({n:e,done:t,on:n,title:r,children:i}){return s(`li`,{class:t?`done`:n?`on`:``,"aria-current":n?`step`:void 0,children:[s(`span`,{class:`mark`,children:t?s(m,{size:14,"aria-label":`Done`}):e}),s(`div`,{children:[s(`h3`,{children:r}),s(`div`,{class:`dim`,children:i})]})]})}function F({text:e}){return s(`span`,{class:`copied`,children:[s(`code`,{children:e}),` `,s(i,{text:e,what:`command`})]})}function I({status:e,timeline:t}){let n=e?.last_kill,i=e?.steps_rerun??t?.proof?.steps_rerun??0;return s(a,{children:[n!=null&&s(a,{children:[`The last one held `,r(n.held,`execution`),n.resumed_after_ms!=null&&`, and another worker went on after ${d(n.resumed_after_ms)}`,`.`,` `]}),s(`b`,{class:i===0?`m good`:`m bad`,children:[r(i,`recorded step`),` ran again.`]})]})}var L=.7;function R({timeline:e,ended:t}){let n=(e?.spans??[]).filter(e=>e.started_at!=null||e.queued_at!=null).slice(-8);if(n.length===0)return s(`p`,{class:`dim mini`,children:`Its steps appear here.`});let r=new Set([`timer`,`event`,`answer`,`child`]),i=T(n.map(e=>{let n=[`running`,`waiting`,`paused`,`held`,`lost`].includes(e.state);return{id:`${e.kind} ${e.key}`,parent:null,name:e.label??e.key,kind:r.has(e.kind)?`wait`:`step`,from:Date.parse(e.started_at??e.queued_at),to:n&&t===null?null:Date.parse(e.ended_at??e.started_at??e.queued_at),failed:e.state===`failed`||e.state===`lost`}}),f()).rows.map(e=>({...e,left:e.left*L,width:e.width*L})),a=new Map(n.map(e=>[`${e.kind} ${e.key}`,e.wait?.until]));return s(`div`,{class:`mini`,children:s(E,{rows:i,label:`Steps of the newest execution`,note:e=>{if(e.to!==null)return e.failed?`failed`:`recorded`;let t=a.get(e.id);return t==null?`open`:`${d(Date.parse(t)-f())} to go`}})})}var z=20;function B({status:t}){let n=v(),i=b(`admin`),a=t.chaos_seconds!=null,o=async t=>{try{await l.PUT(`/api/v1/dev/chaos`,{body:{every_seconds:t?z:null}})}catch(t){e(t instanceof Error?t.message:String(t))}n(`/api/v1/dev`)};return s(`div`,{class:`row chaos`,children:[s(A,{size:18,class:`bad`,"aria-hidden":`true`}),s(`div`,{class:`grow`,children:[s(`b`,{class:`m`,children:`Chaos while you work`}),s(`div`,{class:`dim small`,children:[a?`Kills a worker about every ${u(t.chaos_seconds)} s.`:`Kills a worker about every ${z} s.`,` `,r(t.kills,`kill`),` so far, `,r(t.bodies,`step`),` ran,`,` `,s(`b`,{class:t.steps_rerun===0?`m good`:`m bad`,children:[r(t.steps_rerun,`recorded step`),` ran again`]}),`.`]})]}),s(D,{on:a,word:`Chaos`,disabled:!i,onChange:e=>void o(e)})]})}export{M as default};