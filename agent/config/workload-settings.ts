import { basename, dirname, join } from 'node:path';
import { AgentError, invalid } from '../base/errors';
import type { WorkloadEntry } from './config';
import { PROCESS_SETTINGS, type SettingName } from './options';
import { type SettingsDraft, settle } from './rules';
import { type Reading, unknownKeys } from './sources';

/** What the workload itself says about a setting. */
export function workloadReading(
  { settings, origin }: WorkloadEntry,
  name: SettingName,
): Reading | undefined {
  const entry = settings.find(({ key }) => key === name);
  return entry && { text: entry.text, origin: `${origin}: ${name}`, from: 'workload' };
}

/** Keys that are no settings, or none of a workload. */
export function unknownWorkloadKeys({ settings, origin }: WorkloadEntry): AgentError[] {
  const ofProcess = (key: string) => PROCESS_SETTINGS.some((name) => name === key);
  return [
    ...settings
      .filter(({ key }) => ofProcess(key))
      .map(({ key }) =>
        invalid(
          'ERR_CONFIG',
          `${origin}: ${key}`,
          'is for the whole process, not for one workload',
        ),
      ),
    ...unknownKeys(
      settings.filter(({ key }) => !ofProcess(key)),
      origin,
      PROCESS_SETTINGS,
    ),
  ];
}

/**
 * What no two workloads can share lies below the place that the process was given, under the workload's name: `DIR/socket` becomes
 * `DIR/NAME/socket`, `--state-dir` and `--output-certs` become `DIR/NAME`. What the workload says itself is taken as it is.
 */
export function placeWorkload(draft: SettingsDraft, { name }: WorkloadEntry): void {
  move(draft, 'sds-socket', (path) => join(dirname(path), name, basename(path)));
  move(draft, 'state-dir', (dir) => join(dir, name));
  move(draft, 'output-certs', (dir) => join(dir, name));
}

function move(
  draft: SettingsDraft,
  name: 'sds-socket' | 'state-dir' | 'output-certs',
  place: (path: string) => string,
): void {
  const reading = draft.readings.get(name);
  const path = draft.values[name];
  if (reading === undefined || path === undefined || reading.from === 'workload') return;
  settle(draft, name, place(path), `${reading.origin}, with the name of the workload`);
}

/** An error of a workload's settings, which may come from elsewhere than its file. */
export function workloadError(name: string, error: AgentError): AgentError {
  const { code, message, field, rule, hint } = error;
  return new AgentError(code, `workload ${name}: ${message}`, {
    cause: error,
    ...(field !== undefined && { field }),
    ...(rule !== undefined && { rule }),
    ...(hint !== undefined && { hint }),
  });
}
