/**
 * Circles of a directed graph, one for each group of nodes that reach each other: a shortest way from its first node back to it, both ends
 * named. A node that points at itself is a circle of one.
 *
 * @param graph  For each node what it points at; a target without a line of its own points at nothing.
 */
export function circlesOf(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const found: string[][] = [];
  const seen = new Set<string>();
  for (const node of [...graph.keys()].sort()) {
    if (seen.has(node)) continue;
    const way = wayBack(node, graph);
    if (way === undefined) continue;
    found.push(way);
    for (const each of way) seen.add(each);
  }
  return found;
}

/** Breadth first, so the way is a shortest one. */
function wayBack(
  start: string,
  graph: ReadonlyMap<string, readonly string[]>,
): string[] | undefined {
  const cameFrom = new Map<string, string>();
  const queue = [start];
  for (const node of queue) {
    for (const next of graph.get(node) ?? []) {
      if (next === start) return [...trace(node, start, cameFrom), start];
      if (cameFrom.has(next)) continue;
      cameFrom.set(next, node);
      queue.push(next);
    }
  }
  return undefined;
}

function trace(node: string, start: string, cameFrom: ReadonlyMap<string, string>): string[] {
  const way = [node];
  while (way[0] !== start) way.unshift(cameFrom.get(way[0]!)!);
  return way;
}
