import { objectOf } from './resources/fields';
import type { JsonObject } from './resources/resource';

/** The workload that policies are compiled for. */
export interface PolicyWorkload {
  readonly namespace: string;
  /** What selectors see. */
  readonly labels: Readonly<Record<string, string>>;
  /** Where listeners without an address of their own are bound; every address where undefined. */
  readonly address?: string | undefined;
}

/** Whether a selector's labels are all among the workload's; an absent selector takes every workload. */
export function selects(selector: JsonObject, labels: PolicyWorkload['labels']): boolean {
  return Object.entries(selector).every(
    ([name, value]) => Object.hasOwn(labels, name) && labels[name] === value,
  );
}

/** `selector.matchLabels` of a policy. */
export function matchLabels(spec: JsonObject): JsonObject {
  return objectOf(objectOf(spec.selector).matchLabels);
}
