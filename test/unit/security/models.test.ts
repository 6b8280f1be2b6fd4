import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { HostErrorLog } from '#base/host-error-log.ts';
import { exportProblems } from '#exports/exports.ts';
import { type ModelEntry, modelEntry, modelNames, models, optionProblems } from '#security/models.ts';

const src = fileURLToPath(new URL('../../../src', import.meta.url));

describe('the registry of security models', () => {
  it('creates every model under its name and its aliases', async () => {
    const services = { hostErrors: new HostErrorLog(() => undefined), groupsOf: () => undefined };
    for (const name of modelNames) {
      const entry = modelEntry(name)!;
      expect((await entry.create({}, services)).name).toBe(entry.name);
    }
    expect(new Set(modelNames).size).toBe(modelNames.length);
  });

  it('has lines for --help that fit its columns', () => {
    for (const { summary } of models) {
      expect(summary.length).toBeGreaterThan(0);
      for (const line of summary) expect(line.length).toBeLessThanOrEqual(75);
    }
  });

  it('refuses options of another model, and says which model takes them', async () => {
    const mapped: ModelEntry = modelEntry('mapped')!;
    const problems = async (entry: ModelEntry, options: object) =>
      (await optionProblems(entry, options)).join();
    expect(await problems(mapped, { squash: 'root' })).toMatch(/squash is for .*passthrough.*leave/);
    expect(await problems(mapped, { squash: 'none', map: [], fmode: 0o640 })).toBe('');
    expect(await problems(modelEntry('passthrough')!, { dmode: 0o750 })).toMatch(/dmode is for .*mapped/);
  });

  it('is asked before a name is served that it lacks', async () => {
    const problems = await exportProblems([{ path: '/', securityModel: 'maped' as 'mapped' }]);
    expect(problems.join()).toContain(
      'there is no security model "maped" (did you mean "mapped"?): choose mapped',
    );
  });

  it('is the only place where the program asks for a model by its name', () => {
    const files = ['cli', 'exports', 'workers'].flatMap(folder =>
      readdirSync(`${src}/${folder}`).map(name => `${src}/${folder}/${name}`),
    );
    const naming = files.filter(path => /[=!]== '(mapped|passthrough)/.test(readFileSync(path, 'utf8')));
    expect(naming).toEqual([]);
  });
});
