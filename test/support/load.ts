/**
 * Processor time of this process so far, milliseconds. What a computation costs is measured by it: unlike the wall clock it says the same on
 * a busy machine.
 */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

/** So much work tells how long the machine takes for it now. */
const PROBE_MS = 20;

/** Whether this process gets less than half of a processor: then what ends by the clock may not. */
export function isBusy(): boolean {
  return underLoad(1) > 2;
}

/**
 * A bound on wall-clock time, as it is to be held on a quiet machine, stretched by how busy the machine is at this moment: by the time that a
 * piece of work takes over the processor time that it needs.
 */
export function underLoad(ms: number): number {
  const [wall, cpu] = [performance.now(), cpuMs()];
  while (cpuMs() - cpu < PROBE_MS);
  return ms * Math.max(1, (performance.now() - wall) / (cpuMs() - cpu));
}
