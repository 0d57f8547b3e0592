import { useState } from "preact/hooks";
import { send } from "../../api/client";
import { useGet } from "../../api/query";
import { Labelled } from "../../parts/controls";
import { Loaded, Problem } from "../../parts/state";
import { toast } from "../../parts/toast";
import { useQueryClient } from "@tanstack/preact-query";

/** The signed-in user: the name that others see, and the password. */
export function Account() {
  const me = useGet("/api/v1/auth/me");
  return (
    <Loaded of={me}>
      {(user) => (
        <>
          <p class="dim">Signed in as {user.email}.</p>
          <Name name={user.display_name ?? ""} />
          <Password email={user.email} />
        </>
      )}
    </Loaded>
  );
}

function Name({ name: given }: { name: string }) {
  const client = useQueryClient();
  const [name, setName] = useState(given);
  const [error, setError] = useState<unknown>(null);
  const save = async (event: Event) => {
    event.preventDefault();
    setError(null);
    try {
      await send("PUT", "/api/v1/auth/me", { display_name: name });
      await client.invalidateQueries({ predicate: ({ queryKey }) => ["/api/v1/auth/me", "/api/v1/me"].includes(String(queryKey[0])) });
      toast("Saved your name.");
    } catch (problem) {
      setError(problem);
    }
  };
  return (
    <form class="col gap12 narrow" onSubmit={(event) => void save(event)}>
      <Labelled label="Name" help="Others see it with what you do.">
        <input class="input" autocomplete="name" value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </Labelled>
      {error !== null && <Problem error={error} />}
      <div>
        <button type="submit" class="btn">
          Save
        </button>
      </div>
    </form>
  );
}

function Password({ email }: { email: string }) {
  const [error, setError] = useState<unknown>(null);
  const change = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    setError(null);
    try {
      const { current_password, new_password } = Object.fromEntries(new FormData(form)) as Record<string, string>;
      await send("POST", "/api/v1/auth/password", { current_password, new_password });
      form.reset();
      toast("Changed the password. Other sessions of yours have ended.");
    } catch (problem) {
      setError(problem);
    }
  };
  return (
    <form class="col gap12 narrow" aria-label="Change the password" onSubmit={(event) => void change(event)}>
      <h2>Password</h2>
      <input type="hidden" name="username" autocomplete="username" value={email} />
      <Labelled label="Current password">
        <input class="input" type="password" name="current_password" autocomplete="current-password" required />
      </Labelled>
      <Labelled label="New password">
        <input class="input" type="password" name="new_password" autocomplete="new-password" required />
      </Labelled>
      {error !== null && <Problem error={error} />}
      <div>
        <button type="submit" class="btn">
          Change the password
        </button>
      </div>
    </form>
  );
}
