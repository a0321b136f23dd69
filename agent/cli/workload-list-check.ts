import { resolve } from 'node:path';
import { AgentError } from '../base/errors';
import type { Config, LoadedConfig } from '../config/config';
import { planList } from '../config/plan-list';
import { readListText } from '../config/read-workloads';
import type { Version } from '../config/workload-plan';
import { formatSpiffeId } from '../identity/spiffe-id';
import { table } from './render';

/** What `keyturn run` would start of a list, and what of it it would refuse. */
export interface CheckedList {
  readonly workloads: readonly {
    readonly name: string;
    readonly id: string;
    readonly socket: string;
    readonly file: string;
  }[];
  readonly problems: readonly AgentError[];
}

/** Reads the list of workloads as `keyturn run` does; undefined where there is none. Starts nothing. */
export async function checkWorkloadList(
  loaded: LoadedConfig,
  cwd: string,
): Promise<CheckedList | undefined> {
  const place = loaded.config.workloads;
  if (place === undefined) return undefined;
  try {
    const entries = await (await readListText(resolve(cwd, place))).entries();
    const { start, refused } = planList(entries, loaded, []);
    return { workloads: start.map(workloadFacts), problems: refused.map(({ error }) => error) };
  } catch (caught) {
    return { workloads: [], problems: [AgentError.from(caught, 'ERR_CONFIG')] };
  }
}

function workloadFacts({
  name,
  from,
  config: { id, sdsSocket },
}: Version<Config>): CheckedList['workloads'][number] {
  return {
    name,
    id: id ? formatSpiffeId(id) : 'mounted certificate',
    socket: sdsSocket,
    file: from,
  };
}

export function workloadListText({ workloads }: CheckedList): string {
  return table(
    [['WORKLOAD', 'ID', 'SOCKET'], ...workloads.map(({ name, id, socket }) => [name, id, socket])],
    '',
  );
}
