import{$ as e,B as t,F as n,I as r,N as i,Ot as a,T as o,U as s,V as c,W as l,at as u,ht as d,rt as f,yt as p}from"./useQuery-BVrLWVWp.js";import{t as m}from"./check-B6MCO2GA.js";import{t as h}from"./play-C-UUW3J1.js";import{t as g}from"./skull-Ct4i0kJJ.js";import{c as _,g as v,h as y,i as b,l as x,s as S,t as C}from"./index-B3h7AC1R.js";import{r as w}from"./calls-DS1GXYli.js";import{n as T,t as E}from"./spans-C8xG2J8q.js";import{i as D,n as O}from"./controls-eNcDJ_Th.js";var k={name:`flame`,size:24,node:[[`path`,{d:`M12 3q1 4 4 6.5t3 5.5a1 1 0 0 1-14 0 5 5 0 0 1 1-3 1 1 0 0 0 5 0c0-2-1.5-3-1.5-5q0-2 2.5-4`,key:`1slcih`}]]};k.node;var A=d(k),j={workflow:{word:`Workflow`,run:`perdure dev app.py`,start:[`order`,7],text:`from perdure import Context, step, workflow


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
`}};function M(){let t=_(),s=t.features?.includes(`dev`)===!0,[l,d]=p(`workflow`),f=y(`/api/v1/workers`,{params:{query:{limit:20}}},{every:1500}),m=y(`/api/v1/workflows`,{params:{query:{limit:20}}},{every:3e3}),v=y(`/api/v1/executions/summaries`,{params:{query:{limit:1}}},{every:1e3}),x=y(`/api/v1/dev`,{},{every:1e3,enabled:s}),T=v.data?.executions[0],E=y(`/api/v1/executions/{execution_id}/timeline`,{params:{path:{execution_id:T?.id??``}}},{every:1e3,enabled:T!==void 0}),D=(f.data?.workers??[]).some(e=>e.state===`online`),k=[...new Set((m.data??[]).map(e=>e.workflow_id))],{word:A,run:M,start:L,text:z}=j[l],V=(E.data?.proof?.lost??0)>0||x.data?.last_kill!=null,H=[!0,D,T!==void 0,V,!1],U=H.indexOf(!1),W=e=>({n:e+1,done:H[e],on:e===U}),G=k.includes(L[0])?L[0]:k[0];return c(C,{title:`Welcome`,actions:c(o,{href:G===void 0?`/workflows?run=1`:`/workflows/${encodeURIComponent(G)}?run=1`,class:`btn`,children:[c(h,{size:13,"aria-hidden":`true`}),` Start an execution `,c(n,{keys:`n`})]}),children:c(`div`,{class:`welcome`,children:[c(`div`,{children:[c(`h2`,{class:`hero`,children:`Code that goes on after a crash`}),c(`p`,{class:`dim lead1`,children:`Five steps, five minutes. Each one checks itself.`}),c(`ol`,{class:`steps`,children:[c(P,{...W(0),title:`The server runs`,children:[`Perdure `,t.version,` at `,location.host,`, data in `,t.store===`sqlite`?`SQLite`:`PostgreSQL`,`.`]}),c(P,{...W(1),title:`A worker runs your code`,children:D&&k.length>0?c(a,{children:[`It serves`,` `,k.slice(0,4).map((e,t)=>c(`span`,{children:[t>0&&`, `,c(`b`,{class:`m`,children:c(r,{text:e})})]},e)),k.length>4&&` and ${k.length-4} more`,s&&`, and reloads when you save`,`.`]}):c(a,{children:[`Save the program as `,c(`code`,{children:`app.py`}),` and run `,c(F,{text:s||l===`fastapi`?M:`perdure work app.py`})]})}),c(P,{...W(2),title:`You start an execution`,children:[c(F,{text:l===`fastapi`?`curl -X POST http://127.0.0.1:8000/orders/7`:`perdure run ${G??L[0]}${G===void 0||G===L[0]?` --input ${w(JSON.stringify(L[1]))}`:``}`}),`, or the key `,c(n,{keys:`n`})]}),c(P,{...W(3),title:V?`You killed the worker`:`Kill the worker`,children:[V?c(I,{status:x.data,timeline:E.data}):c(a,{children:[`End the process in the middle of an execution. Another worker goes on at the next line. A recorded step does not run again.`,!s&&c(a,{children:[` `,c(F,{text:`pkill -KILL -f "perdure work"`})]})]}),s&&c(`div`,{class:`row kill`,children:[c(`button`,{type:`button`,class:`btn dangerfill`,onClick:()=>void S(),children:[c(g,{size:14,"aria-hidden":`true`}),` Kill the worker `,c(n,{keys:`shift+k`})]}),c(`span`,{class:`dim3`,children:`SIGKILL: no clean-up, as in a power cut`})]})]}),c(P,{...W(4),title:`Go on`,children:c(`span`,{class:`row wrap gap6`,children:N.map(([e,t])=>c(`span`,{class:`chip`,title:t,children:[e,c(`code`,{class:`dim3`,children:t})]},e))})})]})]}),c(`div`,{class:`col gap16`,children:[c(`div`,{class:`card`,children:[c(`header`,{children:[c(O,{label:`Program`,of:Object.keys(j).map(e=>[e,j[e].word]),value:l,onChange:d}),c(`span`,{class:`grow`}),c(`code`,{class:`dim3`,children:`app.py`}),c(i,{text:z,what:`program`})]}),c(`pre`,{class:`json program`,tabIndex:0,children:z})]}),T!==void 0&&c(`div`,{class:`card`,children:[c(`header`,{children:[c(b,{phase:T.phase,big:!0}),c(o,{href:`/executions/${T.id}`,class:`m`,children:c(r,{text:T.workflow_id})}),c(`code`,{class:`dim`,children:T.key??`…${T.id.slice(-8)}`}),c(`span`,{class:`grow`}),T.started_at!==null&&c(`span`,{class:`dim3 num`,children:e((T.completed_at===null?u():Date.parse(T.completed_at))-Date.parse(T.started_at))})]}),c(R,{timeline:E.data,ended:T.completed_at})]}),s&&x.data!==void 0&&c(B,{status:x.data})]})]})})}var N=[[`Ask a person`,`docs/approvals.md`],[`A durable agent`,`docs/agents.md`],[`Wait for an event`,`docs/workflows.md`],[`A schedule`,`docs/schedules.md`],[`Many children`,`docs/workflows.md`]];function P({n:e,done:t,on:n,title:r,children:i}){return c(`li`,{class:t?`done`:n?`on`:``,"aria-current":n?`step`:void 0,children:[c(`span`,{class:`mark`,children:t?c(m,{size:14,"aria-label":`Done`}):e}),c(`div`,{children:[c(`h3`,{children:r}),c(`div`,{class:`dim`,children:i})]})]})}function F({text:e}){return c(`span`,{class:`copied`,children:[c(`code`,{children:e}),` `,c(i,{text:e,what:`command`})]})}function I({status:t,timeline:n}){let r=t?.last_kill,i=t?.steps_rerun??n?.proof?.steps_rerun??0;return c(a,{children:[r!=null&&c(a,{children:[`The last one held `,l(r.held,`execution`),r.resumed_after_ms!=null&&`, and another worker went on after ${e(r.resumed_after_ms)}`,`.`,` `]}),c(`b`,{class:i===0?`m good`:`m bad`,children:[l(i,`recorded step`),` ran again.`]})]})}var L=.7;function R({timeline:t,ended:n}){let r=(t?.spans??[]).filter(e=>e.started_at!=null||e.queued_at!=null).slice(-8);if(r.length===0)return c(`p`,{class:`dim mini`,children:`Its steps appear here.`});let i=new Set([`timer`,`event`,`answer`,`child`]),a=T(r.map(e=>{let t=[`running`,`waiting`,`paused`,`held`,`lost`].includes(e.state);return{id:`${e.kind} ${e.key}`,parent:null,name:e.label??e.key,kind:i.has(e.kind)?`wait`:`step`,from:Date.parse(e.started_at??e.queued_at),to:t&&n===null?null:Date.parse(e.ended_at??e.started_at??e.queued_at),failed:e.state===`failed`||e.state===`lost`}}),u()).rows.map(e=>({...e,left:e.left*L,width:e.width*L})),o=new Map(r.map(e=>[`${e.kind} ${e.key}`,e.wait?.until]));return c(`div`,{class:`mini`,children:c(E,{rows:a,label:`Steps of the newest execution`,note:t=>{if(t.to!==null)return t.failed?`failed`:`recorded`;let n=o.get(t.id);return n==null?`open`:`${e(Date.parse(n)-u())} to go`}})})}var z=20;function B({status:e}){let n=v(),r=x(`admin`),i=e.chaos_seconds!=null,a=async e=>{try{await f.PUT(`/api/v1/dev/chaos`,{body:{every_seconds:e?z:null}})}catch(e){t(e instanceof Error?e.message:String(e))}n(`/api/v1/dev`)};return c(`div`,{class:`row chaos`,children:[c(A,{size:18,class:`bad`,"aria-hidden":`true`}),c(`div`,{class:`grow`,children:[c(`b`,{class:`m`,children:`Chaos while you work`}),c(`div`,{class:`dim small`,children:[i?`Kills a worker about every ${s(e.chaos_seconds)} s.`:`Kills a worker about every ${z} s.`,` `,l(e.kills,`kill`),` so far, `,l(e.bodies,`step`),` ran,`,` `,c(`b`,{class:e.steps_rerun===0?`m good`:`m bad`,children:[l(e.steps_rerun,`recorded step`),` ran again`]}),`.`]})]}),c(D,{on:i,word:`Chaos`,disabled:!r,onChange:e=>void a(e)})]})}export{M as default};