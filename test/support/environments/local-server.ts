import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { LocalNode } from '#backend/local/node.ts';
import { Volumes } from '#backend/local/volume.ts';
import { groupsOf as groupsOfHost } from '#host/process.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import type { SecurityModel } from '#security/model.ts';
import { none } from '#security/none.ts';
import { serverOwner } from '#security/owner.ts';
import { type GroupsOf, passthrough } from '#security/passthrough.ts';
import type { SessionPort } from '#session/exchange.ts';
import {
  closedBefore,
  exportsOf,
  type ModelName,
  type Place,
  type Serving,
  serveSessions,
} from '../serve.ts';
import { plenty, ShortDescriptors, StrainedVolumes, StrainingVolumes } from './conditions.ts';
import { Neighbour, neighbourUids } from './neighbour.ts';

/** Conditions of a server in this process. */
export interface LocalConditions {
  /** `short`: evicts descriptors that can be reopened between requests; `contended`: also during requests. */
  readonly descriptors?: 'short' | 'contended';
  /** `strained`: file systems are contended; `straining`: they become so in the middle of a request. */
  readonly calls?: 'strained' | 'straining';
  /** Between any two requests, two other users send one each. */
  readonly otherUsers?: true;
  /** Number of independent trees that serve connections in turn, like workers. */
  readonly trees?: 2;
}

function modelOf(name: ModelName, groupsOf: GroupsOf): SecurityModel {
  if (name === 'passthrough') return passthrough(groupsOf, { check: 'host' });
  if (name === 'none') return none({ owner: serverOwner(), chown: 'ignore', clearsSetIds: true });
  return mapped({ fmode: 0o600, dmode: 0o700 }, text => {
    throw new Error(`a record that is wrong: ${text}`);
  });
}

/** A server's trees, and actions before each request. */
async function openTrees(place: Place, modelName: ModelName, conditions: LocalConditions) {
  const short = conditions.descriptors && new ShortDescriptors(conditions.descriptors === 'contended');
  const descriptors = short ?? new FdBudget(plenty);
  const groupsOf: GroupsOf = (uid, submitter) =>
    groupsOfHost(neighbourUids.includes(uid) ? 0 : uid, submitter);
  const model = modelOf(modelName, groupsOf);
  const before: (() => void)[] = [];
  if (short) before.push(() => short.giveUpAll());
  const volumes = () => {
    if (conditions.calls === 'strained') return new StrainedVolumes(false);
    if (conditions.calls === undefined) return new Volumes<LocalNode>(false);
    const straining = new StrainingVolumes(false);
    before.push(() => straining.beginRequest());
    return straining;
  };
  const trees: { readonly name: string; readonly readonly: boolean; readonly tree: LocalTree }[] = [];
  for (const { name, path, readonly } of exportsOf(place)) {
    const tree = await LocalTree.open(path, { descriptors, model, readonly, volumes: volumes() });
    trees.push({ name, readonly, tree });
  }
  return { trees, before };
}

/** Calls functions before and after a session receives a request. */
function betweenRequests(session: SessionPort, act: () => void): void {
  const receive = session.receive.bind(session);
  session.receive = exchange => {
    act();
    receive(exchange);
    act();
  };
}

/** A server in this process on the place's directory. */
export async function serveLocal(
  place: Place,
  modelName: ModelName,
  conditions: LocalConditions,
): Promise<Serving> {
  process.umask(0);
  const { socket, directory } = place;

  const opened = [await openTrees(place, modelName, conditions)];
  if (conditions.trees === 2) opened.push(await openTrees(place, modelName, conditions));
  const neighbours: Neighbour[] = [];
  for (const uid of conditions.otherUsers ? neighbourUids : []) {
    const name = `user-${uid}`;
    mkdirSync(join(directory, name), { mode: 0o777 });
    neighbours.push(await Neighbour.begin({ find: () => opened[0]!.trees[0] }, name, uid));
  }
  const between = () => {
    for (const one of opened) for (const act of one.before) act();
    for (const one of neighbours) one.act();
  };
  let connections = 0;
  const serving = await serveSessions(socket, {
    exports: () => opened[connections++ % opened.length]!.trees,
    watch: session => betweenRequests(session, between),
  });
  const { errors } = serving;
  Object.defineProperties(serving, {
    directory: { value: directory },
    errors: { get: () => [...errors, ...neighbours.flatMap(({ wrong }) => [...wrong])] },
  });
  return closedBefore(serving, async () => {
    for (const one of neighbours) await one.end();
    for (const { trees } of opened) for (const { tree } of trees) tree.close();
  });
}
