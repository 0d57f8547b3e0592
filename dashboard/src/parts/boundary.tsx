import { Component, type ComponentChildren } from "preact";
import { Problem } from "./state";

/** A page that breaks shows its error; the frame and the other pages go on. */
export class ErrorBoundary extends Component<{ children: ComponentChildren }, { error: unknown }> {
  state = { error: null as unknown };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  render() {
    if (this.state.error === null) return this.props.children;
    return (
      <main class="main">
        <div class="pad">
          <Problem error={this.state.error} again={() => location.reload()} />
        </div>
      </main>
    );
  }
}
