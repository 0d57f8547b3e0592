import { useState } from "preact/hooks";
import { errorOf, reach } from "../../api/errors";
import { Mark } from "../../frame";
import { Problem } from "../../parts/state";

async function signIn(fields: Record<string, string>): Promise<void> {
  const reply = await reach("/api/v1/sign-in", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(fields),
  });
  if (!reply.ok) throw errorOf(reply.status, await reply.json().catch(() => null));
}

/** The form on every page until the browser is signed in: a key, or e-mail and password. */
export function SignIn({ onDone, used, inDialog }: { onDone: () => void; used: boolean; inDialog?: boolean }) {
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    setBusy(true);
    setError(null);
    try {
      await signIn(Object.fromEntries(new FormData(form)) as Record<string, string>);
      onDone();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  };
  const Frame = inDialog === true ? "div" : "main";
  return (
    <Frame class="signin">
      {inDialog !== true && (
        <div class="row">
          <Mark /> <h1>Sign in to Perdure</h1>
        </div>
      )}
      <p class="dim">
        {used && "This link was used or has expired. "}
        {inDialog === true && "Sign in to go on. What you entered stays. "}
        This server is {location.host}.
      </p>
      <form class="col gap12" onSubmit={(event) => void submit(event)} aria-label="Sign in with a key">
        <label class="field">
          <span>API key</span>
          <input class="input" name="key" type="password" autocomplete="off" placeholder="sk_…" required autofocus />
          <small>
            <code>perdure dev</code> prints a link that needs no key.
          </small>
        </label>
        <button type="submit" class="btn pri" disabled={busy}>
          Sign in with the key
        </button>
      </form>
      <div class="or dim3">or</div>
      <form class="col gap12" onSubmit={(event) => void submit(event)} aria-label="Sign in with a password">
        <label class="field">
          <span>E-mail</span>
          <input class="input" name="email" type="email" autocomplete="username" required />
        </label>
        <label class="field">
          <span>Password</span>
          <input class="input" name="password" type="password" autocomplete="current-password" required />
        </label>
        <button type="submit" class="btn" disabled={busy}>
          Sign in with the password
        </button>
      </form>
      {error !== null && <Problem error={error} />}
    </Frame>
  );
}
