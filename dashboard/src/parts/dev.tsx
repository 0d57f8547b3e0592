import { send, type Schemas } from "../api/client";
import { queries } from "../api/query";
import { toast } from "./toast";

/** SIGKILL for a worker of `perdure dev`: no clean-up, as in a power cut. */
export async function killWorker(): Promise<void> {
  try {
    const { pid } = (await send("POST", "/api/v1/dev/kill", {})) as Schemas["Killed"];
    toast(`Killed the worker ${pid} with SIGKILL. Another one starts.`);
    await queries.invalidateQueries({ queryKey: ["/api/v1/dev"] });
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error));
  }
}
