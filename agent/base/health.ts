/** What a running daemon says of itself to whoever supervises it. */
export interface Health {
  /** What it does now and what hinders it, in one line. */
  summary(): string;
  /** Why it does none of its work although the process lives; undefined where it does. */
  stalled(): string | undefined;
  /** Calls `listener` after what the summary says may have changed. Returns the function that stops it. */
  onChange(listener: () => void): () => void;
}
