/** An instant for people and files: ISO 8601 in UTC, with milliseconds. @param at  Epoch milliseconds. */
export function iso(at: number): string {
  return new Date(at).toISOString();
}
