/** A mutant that may live, and why. */
export interface Survivor {
  readonly path: string;
  /** As `Mutation.name`. */
  readonly name: string;
  readonly reason: string;
}

const LINE = /^(?<path>\S+): (?<name>.+) \/\/ (?<reason>.+)$/;

/**
 * Reads lines `PATH: WAS => IS // REASON`; empty ones and those that begin with `#` say nothing.
 *
 * @throws Error naming the line that has no reason.
 */
export function readSurvivors(text: string): Survivor[] {
  return text.split('\n').flatMap((line, index) => {
    if (line === '' || line.startsWith('#')) return [];
    const found = LINE.exec(line)?.groups;
    if (found === undefined)
      throw new Error(`line ${index + 1} is not PATH: WAS => IS // REASON: ${line}`);
    return [{ path: found.path!, name: found.name!, reason: found.reason! }];
  });
}
