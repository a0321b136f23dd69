import { AgentError, invalid } from '../base/errors';
import { parseYamlStream, type YamlDocument, type YamlStream } from '../base/yaml';
import { type Change, isSameValue, type Members, type Path } from './changes';
import { findObjects, type ManifestObject, valueAt } from './find-pods';
import { fieldName } from './findings';
import { injectPod } from './inject-pod';
import type { InjectOptions } from './options';
import { editText, type TextEdit, yamlEdits } from './yaml-edit';
import { yamlValue } from './yaml-value';

/** Manifests of hundreds of objects fit. */
export const MAX_MANIFEST_BYTES = 4 << 20;
const MAX_TOKENS = 500_000;
/** The agent is larger than the pods of some. */
const GROWTH = 20;

/** A manifest with the agent in it. */
export interface InjectedManifest {
  /** The whole text. Where nothing was to be changed, to the octet what was given. */
  readonly text: string;
  /** One for each object, in order. */
  readonly reports: readonly ObjectReport[];
}

/** What became of one object. */
export interface ObjectReport {
  /** `document 2, Deployment shop/cart`. */
  readonly object: string;
  readonly outcome: 'injected' | 'unchanged' | 'left-alone' | 'no-pod';
  /** What a person should know, e.g. `spec.template.spec.hostPID: is true: ...`. */
  readonly notes: readonly string[];
}

/**
 * Puts the agent into every pod that a YAML or JSON text of Kubernetes objects describes; what describes none stays as it is. All or
 * nothing: one object that cannot be injected refuses the text.
 *
 * @param name  How errors call it, e.g. `file app.yaml`.
 * @throws      AgentError ERR_MANIFEST naming file, document and field; several problems are one error whose cause is an AggregateError.
 */
export async function injectManifest(bytes: Uint8Array, name: string, options: InjectOptions): Promise<InjectedManifest> {
  // Each line that is added stands after an end of line, also at the end of a text without one.
  const isEnded = bytes.length === 0 || bytes.at(-1) === 0x0a;
  const stream = await parse(isEnded ? bytes : Buffer.concat([bytes, Buffer.from('\n')]), name);
  const problems: AgentError[] = [];
  const plans = stream.documents.map((document, index) => plan(document, index, stream, { name, options, problems }));
  if (problems.length > 0) throw oneError(problems);
  const edits = plans.flatMap(({ edits }) => edits);
  const text = editText(stream.text, edits);
  if (edits.length > 0) await check(text, name, plans);
  return { text: isEnded ? text : text.replace(/\r?\n$/, ''), reports: plans.flatMap(({ reports }) => reports) };
}

/** What all objects are judged with. */
interface Judging {
  readonly name: string;
  readonly options: InjectOptions;
  readonly problems: AgentError[];
}

/** What becomes of one document. */
interface Plan {
  readonly edits: readonly TextEdit[];
  readonly after: unknown;
  readonly reports: readonly ObjectReport[];
}

interface Draft {
  after: unknown;
  readonly changes: Change[];
  readonly reports: ObjectReport[];
}

function parse(bytes: Uint8Array, name: string, growth = 1): Promise<YamlStream> {
  return parseYamlStream(bytes, {
    name,
    code: 'ERR_MANIFEST',
    maxBytes: MAX_MANIFEST_BYTES * growth,
    maxTokens: MAX_TOKENS * growth,
  });
}

function plan(document: YamlDocument, index: number, stream: YamlStream, judging: Judging): Plan {
  const draft: Draft = { after: yamlValue(document, stream), changes: [], reports: [] };
  const where = `document ${index + 1}`;
  for (const found of findObjects(draft.after)) {
    if ('rule' in found) judging.problems.push(refusal(`${judging.name} ${where}`, found.path, found.rule));
    else injectObject(found, `${where}, ${found.title}`, draft, judging);
  }
  const edits = judging.problems.length > 0 ? [] : yamlEdits(document, draft.changes, stream);
  return { edits, after: draft.after, reports: draft.reports };
}

function injectObject({ pod }: ManifestObject, object: string, draft: Draft, { name, options, problems }: Judging): void {
  const report = (outcome: ObjectReport['outcome'], notes: readonly string[] = []) => draft.reports.push({ object, outcome, notes });
  if (pod === undefined) {
    report('no-pod');
    return;
  }
  const injection = injectPod(valueAt(draft.after, pod), options);
  switch (injection.kind) {
    case 'left-alone':
      report('left-alone');
      return;
    case 'refused':
      for (const { path, rule, hint } of injection.problems) problems.push(refusal(`${name} ${object}`, [...pod, ...path], rule, hint));
      return;
    case 'injected': {
      const notes = injection.notes.map(({ path, rule }) => `${fieldName([...pod, ...path])}: ${rule}`);
      report(injection.changes.length > 0 ? 'injected' : 'unchanged', notes);
      draft.changes.push(...injection.changes.map((change) => ({ ...change, path: [...pod, ...change.path] })));
      draft.after = withValue(draft.after, pod, injection.after);
    }
  }
}

/** A copy with another value at a path that exists. */
function withValue(value: unknown, path: Path, replacement: unknown): unknown {
  const [part, ...rest] = path;
  if (part === undefined) return replacement;
  if (Array.isArray(value)) return value.with(Number(part), withValue(value[Number(part)], rest, replacement));
  return { ...(value as Members), [part]: withValue((value as Members)[part], rest, replacement) };
}

/** The text must say what was decided, and nothing else: an anchor that others use, say, would have carried a change to them. */
async function check(text: string, name: string, plans: readonly Plan[]): Promise<void> {
  const stream = await parse(Buffer.from(text), name, GROWTH);
  const isRight =
    stream.documents.length === plans.length &&
    plans.every(({ after }, index) => isSameValue(yamlValue(stream.documents[index]!, stream), after));
  if (isRight) return;
  throw invalid('ERR_MANIFEST', name, 'is written in a way that cannot be added to without changing more than the pods', {
    hint: 'write out anchors that several pods share, and long keys (? key)',
  });
}

function refusal(where: string, path: Path, rule: string, hint?: string): AgentError {
  const field = [where, fieldName(path)].filter((each) => each !== '').join(', ');
  return invalid('ERR_MANIFEST', field, rule, hint === undefined ? {} : { hint });
}

/** One problem as it is; several under one roof, each still on its own for whoever prints them. */
export function oneError(problems: readonly AgentError[]): AgentError {
  if (problems.length === 1) return problems[0]!;
  return new AgentError(
    'ERR_MANIFEST',
    `manifest: ${problems.length} fields are wrong: ${problems.map((each) => each.message).join('; ')}`,
    {
      cause: new AggregateError(problems),
    },
  );
}
