import { isMembers, itemKey, type Members } from './changes';
import { OUR_VOLUMES } from './names';

/** What the API server sets where nobody did, in the parts of a pod that are ours. To take it out would be a change at every look. */
const FILLED_IN: readonly string[] = [
  'apiVersion',
  'defaultMode',
  'failureThreshold',
  'imagePullPolicy',
  'periodSeconds',
  'protocol',
  'scheme',
  'successThreshold',
  'terminationMessagePath',
  'terminationMessagePolicy',
  'timeoutSeconds',
];

/**
 * What we want, with what the API server or its admission plugins have added to the one that is there: defaults, and mounts of volumes that
 * are not ours in our containers (a service account's token, or what somebody gave the agent).
 */
export function withServerDefaults(wanted: Members, found: Members): Members {
  return fill(wanted, found) as Members;
}

function fill(wanted: unknown, found: unknown): unknown {
  if (Array.isArray(wanted) && Array.isArray(found)) {
    // An item without a name is known by its place, where nothing came or went.
    const like = (item: unknown, index: number) => {
      const key = itemKey(item);
      if (key !== undefined) return found.find((each) => itemKey(each) === key);
      return found.length === wanted.length ? found[index] : undefined;
    };
    return wanted.map((item, index) => fill(item, like(item, index)));
  }
  if (!isMembers(wanted) || !isMembers(found)) return wanted;
  const merged: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(wanted)) {
    const filled = fill(value, found[key]);
    merged[key] =
      key === 'volumeMounts' && Array.isArray(filled)
        ? [...filled, ...strangeMounts(filled, found[key])]
        : filled;
  }
  for (const key of FILLED_IN)
    if (!Object.hasOwn(wanted, key) && Object.hasOwn(found, key)) merged[key] = found[key];
  return merged;
}

function strangeMounts(ours: readonly unknown[], found: unknown): unknown[] {
  if (!Array.isArray(found)) return [];
  const taken = ours.map(itemKey);
  return found.filter(
    (each) =>
      isMembers(each) && !OUR_VOLUMES.includes(String(each.name)) && !taken.includes(itemKey(each)),
  );
}
