import { join } from 'node:path';
import { publishDir } from '../base/atomic-dir';
import type { Deps } from '../base/deps';
import { AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import type { WorkloadEntry } from '../config/config';
import { MAX_LIST_BYTES, MAX_WORKLOADS } from '../config/workload-list';

const FILE = 'workloads.json';
/** JSON of a list is longer than its YAML. */
const MAX_BYTES = 4 * MAX_LIST_BYTES;

/** The entries that are in service, kept over restarts: an entry that is damaged meanwhile is then served as it was. */
export interface KeptWorkloads {
  /** What was in service when the process ended. A damaged file is logged and forgotten. */
  load(): Promise<readonly WorkloadEntry[]>;
  /** Keeps these from now on. A directory that cannot be written is logged, for they are in service all the same. */
  save(entries: readonly WorkloadEntry[]): Promise<void>;
}

/** @param stateDir  Of the process. Names of workloads begin with a letter or a digit, so none of them has the same directory. */
export function createKeptWorkloads(stateDir: string, deps: Deps): KeptWorkloads {
  const dir = join(stateDir, '.workloads');
  let saved: string | undefined;
  return {
    async load() {
      const path = join(dir, FILE);
      const bytes = await readSmallFile(path, {
        field: FILE,
        code: 'ERR_PARSE',
        maxBytes: MAX_BYTES,
      }).catch(() => undefined);
      if (!bytes) return [];
      try {
        return parseKept(bytes);
      } catch (cause) {
        deps.log.warn('stored workloads discarded', { file: path, cause });
        return [];
      }
    },
    async save(entries) {
      const text = `${JSON.stringify({ workloads: entries }, undefined, 2)}\n`;
      if (text === saved) return;
      try {
        await publishDir(dir, [{ name: FILE, bytes: Buffer.from(text), mode: 0o600 }]);
        saved = text;
      } catch (caught) {
        deps.log.warn('storing workloads failed', { dir, cause: AgentError.from(caught) });
      }
    },
  };
}

function parseKept(bytes: Buffer): WorkloadEntry[] {
  const parsed: unknown = JSON.parse(bytes.toString('utf8'));
  const workloads = (parsed as { workloads?: unknown } | null)?.workloads;
  if (!Array.isArray(workloads) || workloads.length > MAX_WORKLOADS)
    throw invalid('ERR_PARSE', FILE, `must hold up to ${MAX_WORKLOADS}`);
  return workloads.map((each: Record<keyof WorkloadEntry, unknown> | null) => {
    const { name, from, origin, settings } = each ?? {};
    if (!isText(name) || !isText(from) || !isText(origin))
      throw invalid('ERR_PARSE', FILE, 'must name each workload and its file');
    if (!Array.isArray(settings))
      throw invalid('ERR_PARSE', FILE, 'must have the settings of each workload');
    return { name, from, origin, settings: settings.map(parseSetting) };
  });
}

function parseSetting(setting: { key?: unknown; text?: unknown } | null) {
  const { key, text } = setting ?? {};
  if (!isText(key) || !isText(text))
    throw invalid('ERR_PARSE', FILE, 'must have key and text of each setting');
  return { key, text };
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}
